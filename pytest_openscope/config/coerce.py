"""From what a file says to a value of the type that the schema asks for: strict, but kind where only one meaning is left."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..log import REFERENCE, is_secret_key, mask_text
from ..records import Mistake
from ..system import parse_duration_s
from .reading import kind_of
from .schema import LEVELS, Key
from .suggest import nearest

_SHOWN_CHARS = 60


class Wrong(Exception):  # noqa: N818 - not an error of the program
    """A value does not fit; carries problem and remedy."""

    def __init__(self, problem: str, remedy: str = "", key: str = "") -> None:
        super().__init__(problem)
        self.problem, self.remedy, self.key = problem, remedy, key


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
    if not isinstance(value, str) or not ("{" in value or "$" in value or "%" in value):
        return False
    return REFERENCE.search(value) is not None


def coerce(key: Key, value: Any, path: str) -> Any:
    """Return the value as the type of ``key``; null gives the default.

    Raises:
        Wrong: it does not fit; the message names what was expected and what came.
    """
    if value is None:
        return key.default
    try:
        result = _KINDS[key.kind](key, value, path)
    except _UnfitError as unfit:
        raise Wrong(f"{unfit.expected} expected, not {_got(value, path)}", unfit.remedy) from None
    if isinstance(result, str) and "\0" in result:
        raise Wrong("holds a NUL character", "remove it")
    if key.kind == "path" and isinstance(result, str) and (odd := control_characters(result)):
        raise Wrong(odd, CONTROL_REMEDY)
    return result


CONTROL_REMEDY = "write `\\\\` or `/` between folders"


def control_characters(path: str) -> str:
    """Say which control characters a path holds ("" for none): in quotes ``\\n`` and ``\\t`` are no folders."""
    names = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
    found = dict.fromkeys(names.get(char, f"0x{ord(char):02X}") for char in path if ord(char) < 32 or ord(char) == 127)
    if not found:
        return ""
    return f"{show(path)} holds a control character ({', '.join(found)})"


class _UnfitError(Exception):
    def __init__(self, expected: str, remedy: str = "") -> None:
        super().__init__(expected)
        self.expected, self.remedy = expected, remedy


def _got(value: Any, path: str) -> str:
    shown = show(value, path)
    if isinstance(value, (dict, list)):
        return shown
    return f"{kind_of(value)} {shown}" if isinstance(value, str) else shown


def _any(key: Key, value: Any, path: str) -> Any:
    return value


def _id(key: Key, value: Any, path: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _UnfitError("a name or number", "write one name or number")
    return (value if isinstance(value, str) else str(value)).strip()


def _text(key: Key, value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _UnfitError("text", _quotes(value) or "write one text in quotes")
    return value


def _quotes(value: Any) -> str:
    return "put it in quotes" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def _path(key: Key, value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _UnfitError("a path", _quotes(value) or "write one path, e.g. 'D:/data'")
    if not value.strip():
        raise _UnfitError("a path", "give one or remove the key")
    return value


def _integer(key: Key, value: Any, path: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        remedy = (
            "remove the quotes" if isinstance(value, str) and re.fullmatch(r"\s*-?\d+\s*", value) else "write a whole number"
        )
        raise _UnfitError("a whole number", remedy)
    _check_limits(key, value)
    return value


def _number(key: Key, value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        remedy = "remove the quotes" if isinstance(value, str) and re.fullmatch(r"\s*-?[\d.]+\s*", value) else _a_number(key)
        raise _UnfitError("a number", remedy)
    _check_limits(key, value)
    return float(value)


def _a_number(key: Key) -> str:
    return f"write a number of {key.unit}" if key.unit else "write a number"


def _duration(key: Key, value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _UnfitError("a number of seconds", "write one, or 500ms, 2s, 10m, 24h, 7d")
    if isinstance(value, str):
        try:
            value = parse_duration_s(value)
        except ValueError:
            raise _UnfitError("a number of seconds", "write seconds without quotes, or 500ms, 2s, 10m, 24h, 7d") from None
    _check_limits(key, value)
    return float(value)


def _check_limits(key: Key, value: float) -> None:
    unit = f" {key.unit}" if key.unit else ""
    if key.minimum is not None and key.maximum is not None and not key.minimum <= value <= key.maximum:
        raise Wrong(f"{value} is not within {key.minimum:g} to {key.maximum:g}{unit}", "give a number within them")
    if key.minimum is not None and value < key.minimum:
        raise Wrong(f"{value} is too small: at least {key.minimum:g}{unit}", "give a larger one")


def _flag(key: Key, value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        remedy = "write true or false"
        if isinstance(value, str) and value.strip().lower() in ("yes", "no", "on", "off", "true", "false"):
            remedy = f"write {str(value.strip().lower() in ('yes', 'on', 'true')).lower()} without quotes"
        raise _UnfitError("true or false", remedy)
    return value


def _choice(key: Key, value: Any, path: str) -> str:
    words = ", ".join(key.choices)
    if not isinstance(value, str):
        raise _UnfitError(f"one of {words}", "use one of them")
    word = value.strip().lower()
    if word in key.choices:
        return word
    near = nearest(word, key.choices, 2)
    raise Wrong(f"{show(value, path)} is none of {words}", f"did you mean {near}?" if near else "use one of them")


def _level(key: Key, value: Any, path: str) -> str:
    word = value.strip().upper() if isinstance(value, str) else value
    word = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(word, word) if isinstance(word, str) else word
    if not isinstance(word, str) or word not in LEVELS:
        near = nearest(word, LEVELS, 2) if isinstance(word, str) else None
        raise Wrong(
            f"{show(value, path)} is none of {', '.join(LEVELS)}", f"did you mean {near}?" if near else "use one of them"
        )
    return word


def _levels(key: Key, value: Any, path: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _UnfitError("a mapping of logger names to levels", "write {logger.name: DEBUG}")
    return {str(name): _level(key, level, f"{path}.{name}") for name, level in value.items()}


def _mapping(key: Key, value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _UnfitError("a mapping", "write 'name: value' pairs")
    return value


def _list(key: Key, value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _UnfitError("a list", "put it in square brackets")
    return tuple(value)


def _texts(key: Key, value: Any, path: str) -> tuple[str, ...]:
    items = [value] if isinstance(value, (str, int, float)) and not isinstance(value, bool) else value
    if not isinstance(items, (list, tuple)):
        raise _UnfitError("a list of texts", "write a list, e.g. [one, two]")
    texts = []
    for index, item in enumerate(items):
        if isinstance(item, (dict, list, tuple)) or item is None:
            raise Wrong(f"item {index} is {kind_of(item)}, not text", "write texts only")
        text = str(item).lower() if isinstance(item, bool) else str(item)
        if key.choices and text not in key.choices:
            near = nearest(text, key.choices, 2)
            remedy = f"did you mean {near}?" if near else "use one of them"
            raise Wrong(f"{show(text, path)} is none of {', '.join(key.choices)}", remedy)
        texts.append(text)
    return tuple(texts)


def _command(key: Key, value: Any, path: str) -> tuple[str, ...] | str:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, (list, tuple)) and value:
        return _texts(key, value, path)
    raise _UnfitError("a command: program and arguments", "write a list, e.g. [ffmpeg, -i, in.mp4]")


_KINDS = {
    "any": _any,
    "id": _id,
    "text": _text,
    "path": _path,
    "integer": _integer,
    "number": _number,
    "duration": _duration,
    "flag": _flag,
    "choice": _choice,
    "level": _level,
    "levels": _levels,
    "mapping": _mapping,
    "list": _list,
    "texts": _texts,
    "command": _command,
}


def check_section(
    where: str, path: str, section: Mapping[str, Any], keys: Iterable[Key], unknown: str
) -> tuple[dict[str, Any], list[Mistake], list[str]]:
    """Check one mapping against its keys.

    Args:
        where: file named in mistakes.
        path: dotted key of the mapping.
        section: the mapping as the file has it.
        keys: what it may hold.
        unknown: what an unknown key without a near match is: ``mistake``, ``notice`` or ``allowed``.

    Returns:
        typed values (defaults included; texts with placeholders as they stand), mistakes, notices.
    """
    known = {key.name: key for key in keys}
    mistakes: list[Mistake] = []
    notices: list[str] = []
    for name in section:
        if name in known:
            continue
        near = nearest(name, known)
        if near:
            mistakes.append(Mistake(where, "unknown key", f"did you mean {near}?", f"{path}.{name}"))
        elif unknown == "mistake":
            mistakes.append(Mistake(where, "unknown key", f"the keys here are {', '.join(known)}", f"{path}.{name}"))
        elif unknown == "notice":
            notices.append(f"{where}: {path}.{name}: unknown option, not used")
    values: dict[str, Any] = {}
    for name, key in known.items():
        value = section.get(name)
        if has_placeholder(value):
            values[name] = value
            continue
        try:
            values[name] = coerce(key, value, f"{path}.{name}")
        except Wrong as wrong:
            mistakes.append(Mistake(where, wrong.problem, wrong.remedy, f"{path}.{name}"))
    return values, mistakes, notices
