"""Types of configuration values (seconds, paths, ids, ...) for the models, and the words for what does not fit them."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, WithJsonSchema, model_validator
from pydantic.fields import FieldInfo

from ..log import REFERENCE, is_secret_key, mask_text
from ..records import Mistake
from ..system import parse_duration_s
from .files import kind_of
from .suggest import nearest
from .yaml_rules import Wrong as Wrong

CONTROL_REMEDY = "write `\\\\` or `/` between folders"
_SHOWN_CHARS = 60


class Unfit(Wrong):
    """A value is of another type than the one expected, which ``problem`` names; the value is told where the key is known."""


def show(value: Any, path: str = "") -> str:
    """Return a value for a message: short, and ``***`` where the path or the value says secret."""
    if any(is_secret_key(part) for part in path.split(".")):
        return "(not shown)"
    if isinstance(value, (dict, list, tuple)):
        return kind_of(value if isinstance(value, dict) else list(value))
    text = repr(mask_text(value)) if isinstance(value, str) else str(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def has_placeholder(value: Any) -> bool:
    """Tell whether a text will be another one after expansion."""
    return isinstance(value, str) and REFERENCE.search(value) is not None


def control_characters(path: str) -> str:
    """Say which control characters a path holds ("" for none): in quotes ``\\n`` and ``\\t`` are no folders."""
    names = {"\0": "NUL", "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
    found = dict.fromkeys(names.get(char, f"0x{ord(char):02X}") for char in path if ord(char) < 32 or ord(char) == 127)
    if not found:
        return ""
    return f"{show(path)} holds a control character ({', '.join(found)})"


# The types. A reader takes what a file, an option or the environment says and raises Wrong or Unfit.


@dataclass(frozen=True)
class Kind:
    """Marks a type: its name, and the words of the reference page for it."""

    name: str
    words: str = ""


def _read_id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Unfit("a name or number", "write one name or number")
    return str(value).strip()


def _read_path(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unfit("a path", "write one path, e.g. 'D:/data'")
    if odd := control_characters(value):
        raise Wrong(odd, CONTROL_REMEDY)
    return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _read_seconds(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    try:
        return parse_duration_s(value)
    except ValueError:
        raise Unfit("a number of seconds", "write seconds, or 500ms, 2s, 10m, 24h, 7d") from None


def _read_level(value: Any) -> Any:
    word = value.strip().upper() if isinstance(value, str) else value
    return {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(word, word) if isinstance(word, str) else word


def _read_reference(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Wrong(f"{show(value)} names no module", "write package.module:function, or the path of a Python file")
    return value.strip()


def _read_texts(value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, (str, int, float)) and not isinstance(value, bool) else value
    if not isinstance(items, (list, tuple)):
        raise Unfit("a list of texts", "write a list, e.g. [one, two]")
    for index, item in enumerate(items):
        if isinstance(item, (dict, list, tuple)) or item is None:
            raise Wrong(f"item {index} is {kind_of(item)}, not text", "write texts only")
    return tuple(str(item).lower() if isinstance(item, bool) else str(item) for item in items)


def _read_command(value: Any) -> tuple[str, ...] | str:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, (list, tuple)) and value:
        return _read_texts(value)
    raise Unfit("a command: program and arguments", "write a list, e.g. [ffmpeg, -i, in.mp4]")


def _read_choice(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


_TEXT_OR_NUMBER = {"type": ["string", "number"]}
_ONE_OR_MORE = {"anyOf": [{"type": "array", "items": {"type": ["string", "number", "boolean"]}}, _TEXT_OR_NUMBER]}

Id = Annotated[str, BeforeValidator(_read_id), WithJsonSchema(_TEXT_OR_NUMBER), Kind("id", "name or number")]
Text = Annotated[str, Strict(), Kind("text")]
PathText = Annotated[str, BeforeValidator(_read_path), Kind("path")]
Integer = Annotated[int, Strict(), BeforeValidator(_whole), Kind("integer", "whole number")]
Number = Annotated[float, Strict(), Kind("number")]
Seconds = Annotated[
    float,
    BeforeValidator(_read_seconds),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
    Kind("duration", "seconds, or text such as `10m`"),
]
Flag = Annotated[bool, Strict(), Kind("flag", "true/false")]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_read_level)]
Levels = Annotated[dict[str, Level], Kind("levels", "logger name: log level")]
References = Annotated[dict[str, Annotated[str, BeforeValidator(_read_reference)]], Kind("references", "name: module")]
Values = Annotated[dict[str, Any], Kind("mapping")]
List = Annotated[tuple[Any, ...], Kind("list")]
Texts = Annotated[tuple[str, ...], BeforeValidator(_read_texts), WithJsonSchema(_ONE_OR_MORE), Kind("texts", "list of texts")]
Command = Annotated[
    tuple[str, ...] | str, BeforeValidator(_read_command), WithJsonSchema(_ONE_OR_MORE), Kind("command", "list (or text)")
]
#: Marks a Literal: upper case and blanks around the word do not matter.
CHOICE = BeforeValidator(_read_choice)
AS_TEXTS = BeforeValidator(_read_texts)
#: Kinds whose texts are never read as numbers or flags.
TEXT_KINDS = ("id", "text", "path", "choice", "duration", "")


def key(default: Any, doc: str, unit: str = "", minimum: float | None = None, maximum: float | None = None) -> Any:
    """Declare a key of a model: default, one sentence for the reference page, unit and inclusive limits of numbers."""
    return Field(default, description=doc, ge=minimum, le=maximum, json_schema_extra={"unit": unit} if unit else None)


def seconds(default: float | None, doc: str, minimum: float = 0.0) -> Any:
    """Declare a key that holds a duration."""
    return key(default, doc, "s", minimum)


class Section(BaseModel):
    """A mapping of a configuration file. A key whose value is null has its default."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore", populate_by_name=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, Mapping) else data


SectionT = TypeVar("SectionT", bound=Section)


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the keys that a file may hold, as they are spelt there, with their declarations."""
    return {field.alias or name: field for name, field in model.model_fields.items() if not field.exclude}


def marks_of(annotation: Any) -> Iterator[Any]:
    """Yield what a type is annotated with, at any depth."""
    yield from getattr(annotation, "__metadata__", ())
    for inner in typing.get_args(annotation):
        yield from marks_of(inner)


def kind_of_key(field: FieldInfo) -> Kind:
    """Return the kind of a key's value; one without a name may be anything."""
    marks = (*field.metadata, *marks_of(field.annotation))
    default = Kind("choice" if choices_of(field.annotation) else "")
    return next((mark for mark in marks if isinstance(mark, Kind)), default)


def choices_of(annotation: Any) -> list[str]:
    """Return the words that a type allows, in their order; none for a type that is no choice."""
    if typing.get_origin(annotation) is Literal:
        return list(typing.get_args(annotation))
    return [choice for inner in typing.get_args(annotation) for choice in choices_of(inner)]


def limits_of(field: FieldInfo) -> dict[str, float]:
    """Return the inclusive limits of a number, ``ge`` and ``le``, as far as there are any."""
    return {name: getattr(one, name) for one in field.metadata for name in ("ge", "le") if hasattr(one, name)}


def kind_name(model: type[BaseModel], name: str) -> str:
    """Return the name of a key's kind, "" for a key that the model does not know, or of any kind."""
    field = keys_of(model).get(name)
    return kind_of_key(field).name if field is not None else ""


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """Return the remedy for a misspelt word ("" where nothing known is near)."""
    near = nearest(word, known, 2) if isinstance(word, str) else None
    return f"did you mean {near}?" if near else ""


def check(
    model: type[SectionT], section: Mapping[str, Any], where: str, path: str, *, strict: bool = False
) -> tuple[SectionT, list[Mistake]]:
    """Check one mapping of a file against its model.

    Args:
        model: what it may hold.
        section: the mapping as the file has it.
        where: the file, for mistakes.
        path: dotted key of the mapping, "" for the top level.
        strict: every unknown key is a mistake, not only one that is near a known one.

    Returns:
        the typed section (defaults where a value is wrong; texts with placeholders as they stand), and mistakes.
    """
    known = keys_of(model)
    prefix = f"{path}." if path else ""
    mistakes: list[Mistake] = []
    for name in section:
        if name in known:
            continue
        if near := nearest(name, known):
            mistakes.append(Mistake(where, "unknown key", f"did you mean {near}?", prefix + name))
        elif strict:
            mistakes.append(Mistake(where, "unknown key", f"the keys here are {', '.join(known)}", prefix + name))
    later = {name: value for name, value in section.items() if name in known and has_placeholder(value)}
    now = {name: value for name, value in section.items() if name in known and name not in later}
    read, wrong = validate(model, now, where, prefix)
    return read.model_copy(update=later), mistakes + wrong


def validate(
    model: type[SectionT], values: Mapping[str, Any], where: str = "", prefix: str = ""
) -> tuple[SectionT, list[Mistake]]:
    """Return the model of ``values``, with its defaults for keys that are wrong, and what is wrong with these."""
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        mistakes = explain(model, error, where, prefix)
        wrong = {mistake.key.removeprefix(prefix).split(".")[0] for mistake in mistakes}
        return model.model_validate({name: value for name, value in values.items() if name not in wrong}), mistakes


def explain(model: type[BaseModel], error: ValidationError, where: str, prefix: str) -> list[Mistake]:
    """Return pydantic's errors in an operator's words, one a value, each key with ``prefix`` before it."""
    found: dict[str, Mistake] = {}
    for one in error.errors(include_url=False):
        place = [str(part) for part in one["loc"]]
        field = _field_at(model, place)
        name = ".".join(place)
        if field is not None and typing.get_origin(field.annotation) is not dict and place[-1].isdigit() and len(place) == 2:
            name = place[0]  # one of several texts: the message names it
        found.setdefault(name, Mistake(where, *_words(one, field, name), prefix + name))
    return list(found.values())


def _field_at(model: type[BaseModel], place: Sequence[str]) -> FieldInfo | None:
    """Return the declaration that an error's place lies in, as deep as there are models."""
    field: FieldInfo | None = None
    here: type[BaseModel] | None = model
    for part in place:
        fields = here.model_fields if here is not None else {}
        if part not in fields:
            return next((one for one in fields.values() if one.alias == part), field)
        field = fields[part]
        kinds = (field.annotation, *typing.get_args(field.annotation))
        classes = (one for one in kinds if inspect.isclass(one) and not typing.get_args(one))
        here = next((one for one in classes if issubclass(one, BaseModel)), None)
    return field


_EXPECTED = {
    "string": ("text", "put it in quotes"),
    "int": ("a whole number", "write a whole number"),
    "float": ("a number", "write a number"),
    "decimal": ("a number", "write a number"),
    "bool": ("true or false", "write true or false"),
    "dict": ("a mapping", "write 'name: value' pairs"),
    "model": ("a mapping", "write 'name: value' pairs"),
    "model_attributes": ("a mapping", "write 'name: value' pairs"),
    "list": ("a list", "put it in square brackets"),
    "tuple": ("a list", "put it in square brackets"),
    "set": ("a list", "put it in square brackets"),
    "datetime": ("a date and time", "write e.g. 2026-05-01T09:30:00"),
    "date": ("a date", "write e.g. 2026-05-01"),
    "time": ("a time", "write e.g. 09:30:00"),
    "path": ("a path", "write one path, e.g. 'D:/data'"),
}


_LIMITS = {
    "ge": ("too small: at least", "larger"),
    "gt": ("too small: more than", "larger"),
    "le": ("too large: at most", "smaller"),
    "lt": ("too large: less than", "smaller"),
}
_FLAGS = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}


def _words(error: Mapping[str, Any], field: FieldInfo | None, path: str) -> tuple[str, str]:
    """Return problem and remedy of one of pydantic's errors."""
    kind, value, context = str(error["type"]), error["input"], error.get("ctx") or {}
    cause = context.get("error")
    extra = field.json_schema_extra if field is not None else None
    unit = f" {extra['unit']}" if isinstance(extra, dict) and "unit" in extra else ""
    if isinstance(cause, Unfit):
        return f"{cause.problem} expected, not {_got(value, path)}", cause.remedy
    if isinstance(cause, Wrong):
        return cause.problem, cause.remedy
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        words = ", ".join(choices) or str(context.get("expected"))
        if not isinstance(value, str):
            return f"one of {words} expected, not {_got(value, path)}", "use one of them"
        return f"{show(value, path)} is none of {words}", did_you_mean(value, choices) or "use one of them"
    if kind == "missing":
        return "is missing", "give it a value"
    if kind == "extra_forbidden":
        return "unknown key", "remove it, or correct its name"
    if limit := next((name for name in context if name in _LIMITS), ""):
        words, other = _LIMITS[limit]
        exact = f"{context[limit]:g}" if isinstance(context[limit], (int, float)) else str(context[limit])
        return f"{show(value)} is {words} {exact}{unit}", f"give a {other} one"
    expected, remedy = _EXPECTED.get(re.sub(r"_(type|parsing|from_float|from_date_parsing)$", "", kind), ("", ""))
    if expected:
        word = value.strip().lower() if isinstance(value, str) else ""
        if expected == "true or false" and word in _FLAGS:
            remedy = f"write {_FLAGS[word]} without quotes"
        elif expected in ("a number", "a whole number"):
            remedy = "remove the quotes" if re.fullmatch(r"-?[\d.]+", word) else f"{remedy}{unit and f' of{unit}'}"
        return f"{expected} expected, not {_got(value, path)}", remedy
    message = str(cause) if cause is not None else str(error["msg"])
    return mask_text(message[:1].lower() + message[1:]), "correct the value"


def _got(value: Any, path: str) -> str:
    shown = show(value, path)
    return f"{kind_of(value)} {shown}" if isinstance(value, str) else shown
