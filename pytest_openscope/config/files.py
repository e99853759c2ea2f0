"""From a file to plain values: YAML, TOML or JSON, whatever is wrong said in one sentence without showing content."""

from __future__ import annotations

import json
import math
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..records import Mistake
from .suggest import nearest
from .yaml_rules import MAX_DEPTH, TOO_DEEP, Wrong, keeps_text, load_yaml

MAX_BYTES = 5_000_000

_BOMS = ((b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


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
            raise Wrong(f"the top level is {kind_of(value)}, not a mapping", "write 'key: value' pairs")
        mistakes += [Mistake(shown, "is no finite number", "write a number", key) for key in sorted(_not_finite(value, ""))]
        return value
    except Wrong as wrong:
        return wrong.at(shown)


def _read_bytes(path: Path, what: str) -> bytes:
    try:
        facts = path.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise Wrong("is a directory", f"name the {what} file itself")
        if not stat.S_ISREG(facts.st_mode):
            raise Wrong("is no ordinary file", f"name a {what} file")
        if facts.st_size > MAX_BYTES:
            problem = f"is too large for a {what}: {facts.st_size:,} bytes, at most {MAX_BYTES:,}"
            raise Wrong(problem, "name the right file")
        return path.read_bytes()
    except FileNotFoundError:
        raise Wrong("there is no such file", _neighbours(path)) from None
    except OSError as error:
        raise Wrong(f"cannot be read: {error.strerror or error}", "check the path and its permissions") from None


def _neighbours(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()][:1000]
    except OSError:
        return "check the path; its folder does not exist"
    near = nearest(path.name, names)
    return f"did you mean {near}?" if near else "check the path"


def _decode(data: bytes) -> str:
    encoding = next((encoding for mark, encoding in _BOMS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        problem = f"is not encoded in {encoding.upper()} (line {line}, byte 0x{data[error.start]:02X})"
        raise Wrong(problem, "save it as UTF-8") from None
    if "\0" in text:
        raise Wrong("is no text file: it holds a NUL byte", "name the right file, or save it as UTF-8")
    return text


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return _parse_json(text)
    if suffix == ".toml":
        return _parse_toml(text)
    if suffix in (".yaml", ".yml", ""):
        return load_yaml(text)
    raise Wrong(f"the ending {suffix} tells no known language", "use .yaml, .toml or .json")


class _WrittenFloat(float):
    """A float that remembers how the file wrote it."""

    def __init__(self, written: str) -> None:
        self.written = written


class _DuplicateKeyError(Exception):
    pass


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = {key: item.written if type(item) is _WrittenFloat and keeps_text(key, item) else item for key, item in items}
    if len(mapping) != len(items):
        raise _DuplicateKeyError
    return mapping


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_pairs, parse_float=_WrittenFloat)
    except _DuplicateKeyError:
        return load_yaml(text.replace("\t", " "))  # JSON is YAML, whose reader knows in which line the key stands again
    except json.JSONDecodeError as error:
        if not text.strip():
            raise Wrong("is empty", "write a JSON object: {…}") from None
        problem, remedy = _json_words(error, text)
        raise Wrong(f"line {error.lineno}, column {error.colno}: is no valid JSON: {problem}", remedy) from None
    except RecursionError:
        raise Wrong(TOO_DEEP) from None
    except ValueError:
        raise Wrong("holds a number with too many digits") from None


#: What the reader says, what stands before the place and what at it, a line each; problem ("" for the reader's words); remedy.
_JSON_WORDS = (
    (r"\n(//|/\*|#)", "a comment", "remove it: JSON has no comments"),
    (r"Illegal trailing comma|\n,\n[}\]]", "a comma before a closing bracket", "remove the comma"),
    (r".*\n.?\n'", "single quotes", 'write "…"'),
    (r"Invalid \\escape", "a lone backslash", "write \\\\ (or /) in paths"),
    (r"Extra data", "something follows after the end of the object", "keep one object"),
    (r"Expecting value", "", "give a value, or remove the comma or colon before it"),
    (r"Expecting ',' delimiter", "", "put a comma before it, or close the bracket"),
    (r"Expecting (property name|':' delimiter)", "", 'write "name": value'),
    (r"Unterminated string", "", "close the quote"),
    (r"", "", "check quotes and brackets there"),
)


def _json_words(error: json.JSONDecodeError, text: str) -> tuple[str, str]:
    facts = f"{error.msg}\n{text[: error.pos].rstrip()[-1:]}\n{text[error.pos : error.pos + 2]}"
    problem, remedy = next((problem, remedy) for pattern, problem, remedy in _JSON_WORDS if re.search(pattern, facts))
    return problem or error.msg[:1].lower() + error.msg[1:], remedy


def _parse_toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        found = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r"\(at (line \d+, column \d+|end of document)\)$", message)
        reason = re.sub(r"""\s*[:(]?\s*['"(].*$""", "", message.split(" (at ")[0])
        raise Wrong(f"{place[1] + ': ' if place else ''}is no valid TOML: {reason}") from None
    except (RecursionError, ValueError):
        raise Wrong("is no valid TOML") from None
    # Dates and times become text.
    return json.loads(json.dumps(found, default=lambda moment: moment.isoformat()))


def _not_finite(value: Any, path: str, depth: int = 0) -> Iterator[str]:
    """Yield the dotted keys of numbers that JSON cannot hold; refuse what is nested too deep."""
    if depth > MAX_DEPTH:
        raise Wrong(TOO_DEEP)
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in parts:
        yield from _not_finite(child, f"{path}.{key}" if path else str(key), depth + 1)


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list", dict: "a mapping"}


def kind_of(value: Any) -> str:
    """Say in a user's words what a value is."""
    kind = float if isinstance(value, float) else type(value)
    return "empty (null)" if value is None else _WORDS.get(kind, kind.__name__)
