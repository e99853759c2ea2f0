"""YAML by the core rules of YAML 1.2, on the parser of PyYAML.

PyYAML itself follows YAML 1.1, which turns ``no`` into False, ``00:30:00`` into 1800 and ``007`` into 7. Only its parser is
used here; values are built from its events, in one pass, with limits on depth and size (deep nesting ends the C composer in
a segmentation fault, nested aliases grow without end).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_DEPTH = 64
#: Values in one file, every alias counted with all that it stands for.
MAX_VALUES = 100_000

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_SPECIAL = {f"{sign}.{word}": float(sign + "inf") for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")}
_SPECIAL.update(dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")))
_TAG = "tag:yaml.org,2002:"


class YamlError(Exception):
    """The text is no acceptable YAML; ``line`` counts from 1 (0: unknown). No content of the file is in the message."""

    def __init__(self, problem: str, line: int = 0, column: int = 0, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem, self.line, self.column, self.remedy = problem, line, column, remedy


def plain_scalar(text: str) -> Any:
    """Return what an unquoted scalar stands for.

    Raises:
        ValueError: a number with more digits than Python converts.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text[0] not in "+-.0123456789" or not text.isascii():
        return text
    if text in _SPECIAL:
        return _SPECIAL[text]
    return _number(text)


def _number(text: str) -> Any:
    """Read a number without regular expressions, whose compilation would cost more than all numbers of a file.

    Unlike the core rules, no leading zero: ``007`` is a name, not a number.
    """
    digits = text[1:] if text[0] in "+-" else text
    if digits.isdigit():
        return int(text) if digits == "0" or digits[0] != "0" else text
    if text[:2] in ("0x", "0o") and text[2:].isalnum():
        try:
            return int(text, 0)
        except ValueError:
            return text
    whole = digits.lower().partition("e")[0].partition(".")[0]
    if digits.strip("0123456789.eE+-") or (len(whole) > 1 and whole[0] == "0"):
        return text
    try:
        return float(text)
    except ValueError:
        return text


def load_yaml(text: str, keep_text: Callable[[str], bool] = lambda key: False) -> Any:
    """Return the one document of ``text`` as plain values; an empty one is None.

    Args:
        text: the file's content.
        keep_text: tells for which keys a number stays as it is written (ids: ``12e4`` is no 120000.0).

    Raises:
        YamlError: syntax, duplicate or non-text keys, tags, several documents, cycles, too deep, too large.
    """
    import yaml

    loader: Any = getattr(yaml, "CLoader", yaml.SafeLoader)
    try:
        parser = loader(text)
        try:
            return _Builder(parser.get_event, keep_text).document()
        finally:
            parser.dispose()
    except yaml.reader.ReaderError as error:
        raise YamlError(f"holds a character that no YAML file can hold (U+{ord_of(error.character):04X})") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlError(f"is no valid YAML ({type(error).__name__})") from None


def ord_of(character: Any) -> int:
    """Return the code of a character that PyYAML gives as text, bytes or number."""
    return character if isinstance(character, int) else ord(character[:1] or "\0")


def _syntax_error(error: Any, text: str) -> YamlError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    lines = text.splitlines()
    for number in (line, line - 1):
        if 0 < number <= len(lines) and "\t" in lines[number - 1][: len(lines[number - 1]) - len(lines[number - 1].lstrip())]:
            return YamlError("a tab indents this line; YAML allows spaces only", number, 1, "replace the tab by spaces")
    problem = str(error.problem or "").split("\n")[0]
    if "another document" in problem:
        return YamlError("holds several documents", line, column, "keep one: remove the '---' lines")
    if "undefined alias" in problem:
        return YamlError("an alias (*name) refers to no anchor (&name)", line, column)
    if "cannot start any token" in problem:
        problem = "a value begins with a character that needs quotes (@, `, %, or a tab)"
    if "mapping values are not allowed" in problem:
        problem = "a colon where none can be: wrong indentation, or a value with ': ' that needs quotes"
    return YamlError(f"is no valid YAML: {problem}", line, column)


class _Builder:
    """Builds values from events; ``_anchors`` keep each value with its size, None while it is being built."""

    def __init__(self, next_event: Callable[[], Any], keep_text: Callable[[str], bool]) -> None:
        self._next = next_event
        self._keep_text = keep_text
        self._anchors: dict[str, tuple[Any, int, Any] | None] = {}
        self._count = 0

    def document(self) -> Any:
        self._next()
        event = self._next()
        if type(event).__name__ == "StreamEndEvent":
            return None
        value, _ = self._value(self._next(), 0)
        self._next()
        event = self._next()
        if type(event).__name__ != "StreamEndEvent":
            raise YamlError("holds several documents", *_place(event), remedy="keep one: remove the '---' lines")
        return value

    def _value(self, event: Any, depth: int) -> tuple[Any, Any]:
        """Return the value and, for a scalar, its text (None otherwise)."""
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._alias(event)
        if depth > MAX_DEPTH:
            raise YamlError(f"is nested deeper than {MAX_DEPTH} levels", *_place(event))
        before = self._count
        self._grow(1, event)
        if event.anchor:
            self._anchors[event.anchor] = None
        raw: Any = None
        if kind == "ScalarEvent":
            value, raw = _scalar(event), event.value if event.implicit[0] and event.tag is None else None
        elif kind == "SequenceStartEvent":
            _check_tag(event, "seq")
            value = self._sequence(depth)
        else:
            _check_tag(event, "map")
            value = self._mapping(depth)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._count - before, raw)
        return value, raw

    def _alias(self, event: Any) -> tuple[Any, Any]:
        if event.anchor not in self._anchors:
            raise YamlError("an alias (*name) refers to no anchor (&name)", *_place(event))
        found = self._anchors[event.anchor]
        if found is None:
            raise YamlError("an alias refers to the value that it stands in: a cycle", *_place(event))
        value, size, raw = found
        self._grow(size, event)
        return _copy(value), raw

    def _grow(self, size: int, event: Any) -> None:
        self._count += size
        if self._count > MAX_VALUES:
            raise YamlError(f"holds more than {MAX_VALUES:,} values (aliases counted in full)", *_place(event))

    def _sequence(self, depth: int) -> list[Any]:
        items = []
        while type(event := self._next()).__name__ != "SequenceEndEvent":
            items.append(self._value(event, depth + 1)[0])
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while type(event := self._next()).__name__ != "MappingEndEvent":
            place = _place(event)
            key, raw = self._value(event, depth + 1)
            value, text = self._value(self._next(), depth + 1)
            if raw == "<<":
                for part in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(part, dict):
                        raise YamlError("'<<' merges mappings only", *place)
                    merged.update(part)
                continue
            if not isinstance(key, str):
                shown = f"the key {raw}" if raw else "a key"
                raise YamlError(f"{shown} is no text", *place, remedy=f'put it in quotes: "{raw}"' if raw else "")
            if key in mapping:
                raise YamlError(f"the key {key!r} stands twice", *place, remedy="remove one of the two")
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            mapping[key] = text if text is not None and is_number and self._keep_text(key) else value
        return {**merged, **mapping}


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _place(event: Any) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def _check_tag(event: Any, name: str) -> None:
    if event.tag not in (None, "!", _TAG + name):
        raise YamlError("holds a tag (!…); only plain values are loaded", *_place(event), remedy="remove the tag")


def _scalar(event: Any) -> Any:
    tag = event.tag
    try:
        if tag is None:
            return plain_scalar(event.value) if event.implicit[0] else event.value
        if tag in ("!", _TAG + "str"):
            return event.value
        value = plain_scalar(event.value)
    except ValueError:
        raise YamlError("a number with too many digits", *_place(event)) from None
    expected: dict[str, tuple[type, ...]] = {"null": (type(None),), "bool": (bool,), "int": (int,), "float": (int, float)}
    wanted = expected.get(tag.removeprefix(_TAG))
    if wanted is None:
        raise YamlError("holds a tag (!…); only plain values are loaded", *_place(event), remedy="remove the tag")
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise YamlError(f"a value does not fit its tag !!{tag.removeprefix(_TAG)}", *_place(event))
    return float(event.value) if tag == _TAG + "float" else value


def dump_yaml(value: Any) -> str:
    """Return plain values as YAML text that :func:`load_yaml` reads back exactly."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes texts that are something else by the core rules (``12e4``), which PyYAML's own would leave plain."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Dumper, data: str) -> Any:
        try:
            quoted = not data.isprintable() or plain_scalar(data) is not data
        except ValueError:
            quoted = True
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style='"' if quoted else None)

    Dumper.add_representer(str, text)
    made: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return made
