"""From a file to plain values: YAML, TOML or JSON, whatever is wrong said in one sentence without showing content."""

from __future__ import annotations

import json
import re
import stat
import sys
from pathlib import Path
from typing import Any

from ..records import Mistake
from .yaml_rules import MAX_DEPTH, MAX_VALUES, YamlError, load_yaml, plain_scalar

MAX_BYTES = 5_000_000

_BOMS = ((b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_ID_KEYS = frozenset({"subject_id", "user_id", "rig_id", "session_uuid", "repository_commit_hash", "session_sync_session_key"})


def keeps_text(key: str) -> bool:
    """Tell whether a number under this key is a name and stays as it is written (``12e4``, ``1.10``)."""
    return key in _ID_KEYS


class _RefusedError(Exception):
    """Why a file cannot be used."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


def read_mapping(path: Path, shown: str, what: str, mistakes: list[Mistake]) -> dict[str, Any] | Mistake:
    """Return the top level of a configuration file, or the one thing that makes it unusable.

    Args:
        path: the file; the ending decides the language, YAML where it says nothing.
        shown: how messages name the file.
        what: what the file should be ("rig configuration").
        mistakes: gets one for each number that JSON cannot hold (``.nan``, ``.inf``), and the file is read all the same.
    """
    try:
        text = _decode(_read_bytes(path, what))
        value = _parse(text, path.suffix.lower())
        if value is None and path.suffix.lower() != ".json":
            value = {}
        if not isinstance(value, dict):
            raise _RefusedError(f"the top level is {kind_of(value)}, not a mapping", "write 'key: value' pairs")
        mistakes += [Mistake(shown, "is no finite number", "write a number", key) for key in sorted(_check_values(value, ""))]
        return value
    except _RefusedError as refused:
        return Mistake(shown, refused.problem, refused.remedy or "mend the file there")


def _read_bytes(path: Path, what: str) -> bytes:
    try:
        facts = path.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise _RefusedError("is a directory", f"name the {what} file itself")
        if not stat.S_ISREG(facts.st_mode):
            raise _RefusedError("is no ordinary file", f"name a {what} file")
        if facts.st_size > MAX_BYTES:
            raise _RefusedError(
                f"is too large for a {what}: {facts.st_size:,} bytes, at most {MAX_BYTES:,}", "name the right file"
            )
        with open(path, "rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _RefusedError("there is no such file", _neighbours(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _RefusedError(f"cannot be read: {reason}", "check the path and its permissions") from None


def _neighbours(path: Path) -> str:
    from .suggest import nearest

    try:
        names = [entry.name for entry in path.parent.iterdir()][:1000]
    except OSError:
        return "check the path; its folder does not exist"
    near = nearest(path.name, names)
    return f"did you mean {near}?" if near else "check the path"


def _decode(data: bytes) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                raise _RefusedError(f"begins like {encoding.upper()} text and is none", "save it as UTF-8") from None
    if b"\0" in data:
        raise _RefusedError(
            f"is no text file: it holds a NUL byte (line {data[: data.index(0)].count(10) + 1})",
            "name the right file, or save it as UTF-8",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _RefusedError(
            f"is not encoded in UTF-8 (line {line}, byte 0x{data[error.start]:02X})", "save it as UTF-8"
        ) from None


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return _parse_json(text)
    if suffix == ".toml":
        return _parse_toml(text)
    if suffix not in (".yaml", ".yml", ""):
        raise _RefusedError(f"the ending {suffix} tells no known language", "use .yaml, .toml or .json")
    try:
        return load_yaml(text, keeps_text)
    except YamlError as error:
        place = f"line {error.line}, column {error.column}: " if error.line else ""
        remedy = error.remedy or "check quotes, brackets and indentation there"
        raise _RefusedError(place + error.problem, remedy) from None


class _WrittenFloat(float):
    """A float that remembers how the file wrote it."""

    written: str


def _parse_json(text: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = {key: item.written if type(item) is _WrittenFloat and keeps_text(key) else item for key, item in items}
        if len(mapping) != len(items):
            raise _DuplicateKeyError
        return mapping

    def number(written: str) -> float:
        value = _WrittenFloat(written)
        value.written = written
        return value

    def constant(name: str) -> Any:
        raise _RefusedError(f"holds {name}, which is no JSON", "write a number or null")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_float=number, parse_constant=constant)
    except _DuplicateKeyError:
        key, line = _duplicate_key(text)
        raise _RefusedError(f"line {line}: the key {key!r} stands twice", "remove one of the two") from None
    except json.JSONDecodeError as error:
        if not text.strip():
            raise _RefusedError("is empty", "write a JSON object: {…}") from None
        message, remedy = _json_words(error, text)
        raise _RefusedError(f"line {error.lineno}, column {error.colno}: is no valid JSON: {message}", remedy) from None
    except RecursionError:
        raise _RefusedError(f"is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:
        raise _RefusedError("holds a number with too many digits") from None


class _DuplicateKeyError(Exception):
    pass


def _json_words(error: json.JSONDecodeError, text: str) -> tuple[str, str]:
    rest = text[error.pos : error.pos + 2]
    before = text[: error.pos].rstrip()[-1:]
    if rest.startswith(("//", "/*", "#")):
        return "a comment", "remove it: JSON has no comments"
    if rest[:1] in ("}", "]") and before == ",":
        return "a comma before a closing bracket", "remove the comma"
    if before == "," and error.msg.startswith("Illegal trailing comma"):
        return "a comma before a closing bracket", "remove the comma"
    if rest.startswith("'"):
        return "single quotes", 'write "…"'
    if error.msg.startswith("Invalid \\escape"):
        return "a lone backslash", "write \\\\ (or /) in paths"
    if error.msg.startswith("Extra data"):
        return "something follows after the end of the object", "keep one object"
    remedy = next(
        (remedy for start, remedy in _JSON_REMEDIES if error.msg.startswith(start)), "check quotes and brackets there"
    )
    return error.msg[:1].lower() + error.msg[1:], remedy


_JSON_REMEDIES = (
    ("Expecting value", "give a value, or remove the comma or colon before it"),
    ("Expecting ',' delimiter", "put a comma before it, or close the bracket"),
    ("Expecting property name", 'write "name": value'),
    ("Expecting ':' delimiter", 'write "name": value'),
    ("Unterminated string", "close the quote"),
)


_JSON_TOKENS = r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}]'


def _duplicate_key(text: str) -> tuple[str, int]:
    """Find the first doubled key of a text that is known to have one, and its line."""
    stack: list[set[str]] = []
    for token in re.finditer(_JSON_TOKENS, text):
        if token[0] == "{":
            stack.append(set())
        elif token[0] == "}":
            stack.pop()
        elif token[2] and stack:
            key = json.loads(f'"{token[1]}"', strict=False)
            if key in stack[-1]:
                return key, text.count("\n", 0, token.start()) + 1
            stack[-1].add(key)
    return "?", 0


def _parse_toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return _plain(tomllib.loads(text.replace("\r\n", "\n")))
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r"\(at (line \d+, column \d+|end of document)\)$", message)
        reason = re.sub(r"""\s*[:(]?\s*['"(].*$""", "", message.split(" (at ")[0])
        raise _RefusedError(f"{place[1] + ': ' if place else ''}is no valid TOML: {reason}") from None
    except (RecursionError, ValueError):
        raise _RefusedError("is no valid TOML") from None


def _plain(value: Any) -> Any:
    """Turn TOML's dates and times into text, so that the values can be written as JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def _check_values(value: Any, path: str) -> list[str]:
    """Refuse what is too much, and return the dotted keys of numbers that JSON cannot hold; depth is one of the limits."""
    odd: list[str] = []
    todo: list[tuple[Any, str, int]] = [(value, path, 0)]
    count = 0
    while todo:
        item, name, depth = todo.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise _RefusedError(f"is nested deeper than {MAX_DEPTH} levels")
        if count > MAX_VALUES:
            raise _RefusedError(f"holds more than {MAX_VALUES:,} values")
        if isinstance(item, dict):
            todo.extend((child, f"{name}.{key}" if name else key, depth + 1) for key, child in item.items())
        elif isinstance(item, list):
            todo.extend((child, f"{name}.{index}", depth + 1) for index, child in enumerate(item))
        elif isinstance(item, float) and (item != item or item in (float("inf"), float("-inf"))):
            odd.append(name)
    return odd


def kind_of(value: Any) -> str:
    """Say in a user's words what a value is."""
    if value is None:
        return "empty (null)"
    if isinstance(value, bool):
        return "true or false"
    for kind, words in ((int, "a whole number"), (float, "a number"), (str, "text"), (list, "a list"), (dict, "a mapping")):
        if isinstance(value, kind):
            return words
    return type(value).__name__


def parse_value(text: str) -> Any:
    """Return what ``text`` means as a YAML value: how ``--param`` and the environment write numbers, lists and flags.

    Raises:
        YamlError: the text is no YAML value.
    """
    if text == text.strip() and not any(char in text for char in "[]{}\"'&*!|>%@`#:\n\t,-?"):
        try:
            return plain_scalar(text)
        except ValueError:
            raise YamlError("a number with too many digits") from None
    return load_yaml(text, keeps_text)
