"""YAML by the core rules of YAML 1.2, on the parser of PyYAML.

PyYAML itself follows YAML 1.1, which turns ``no`` into False, ``00:30:00`` into 1800 and ``007`` into 7. Only its parser is
used here; values are built from its nodes.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from ..records import Mistake

#: Levels of a file; the parser itself gives up at some hundreds.
MAX_DEPTH = 64
TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"

_TAG = "tag:yaml.org,2002:"
#: Tag of what is written without quotes and without a tag.
_PLAIN = "plain"
#: The core schema of YAML 1.2.2, chapter 10.3.2, but for leading zeros: ``007`` is a name, not a number.
_CORE = (
    (re.compile(r"~|null|Null|NULL|"), lambda text: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    (re.compile(r"[-+]?(0|[1-9][0-9]*)"), int),
    (re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)
_CHECK = "check quotes, brackets and indentation there"
_TYPES: dict[str, tuple[type, ...]] = {"null": (type(None),), "bool": (bool,), "int": (int,), "float": (int, float)}
#: Keys of which a number is a name and stays as it is written (``12e4``, ``1.10``).
_ID_KEYS = frozenset({"subject_id", "user_id", "rig_id", "session_uuid", "repository_commit_hash", "session_sync_session_key"})


class Wrong(ValueError):  # noqa: N818 - not an error of the program
    """A file or a value does not fit; ``key`` and ``place`` (line and column) say where, as far as that is known."""

    def __init__(self, problem: str, remedy: str = "mend the file there", key: str = "", place: str = "") -> None:
        super().__init__(problem)
        self.problem, self.remedy, self.key, self.place = problem, remedy, key, place

    def at(self, where: str, key: str = "") -> Mistake:
        """Return the mistake that this is in a file or an option."""
        return Mistake(where, self.place + self.problem, self.remedy, self.key or key)


def _wrong(problem: str, mark: Any = None, remedy: str = _CHECK) -> Wrong:
    return Wrong(problem, remedy, place=f"line {mark.line + 1}, column {mark.column + 1}: " if mark else "")


def keeps_text(key: str, value: Any) -> bool:
    """Tell whether a value is a number that stays as it is written, since it is a name under this key."""
    return key in _ID_KEYS and isinstance(value, (int, float)) and not isinstance(value, bool)


def plain_scalar(text: str) -> Any:
    """Return what an unquoted scalar stands for.

    Raises:
        ValueError: a number with more digits than Python converts.
    """
    return next((read(text) for pattern, read in _CORE if pattern.fullmatch(text)), text)


def load_yaml(text: str) -> Any:
    """Return the one document of ``text`` as plain values; an empty one is None.

    Raises:
        Wrong: syntax, duplicate or non-text keys, tags, several documents, cycles, far too deep. No content of the text is in
            the message.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else loader.value(node, ())
    except yaml.reader.ReaderError as error:
        raise _wrong(f"holds a character that no YAML file can hold (U+{error.character:04X})") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text) from None
    except RecursionError:
        raise Wrong(TOO_DEEP) from None


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> Wrong:
    mark = error.problem_mark or error.context_mark
    problem = str(error.problem).split("\n")[0]
    lines = text.splitlines()
    for number in (mark.line, mark.line - 1) if mark else ():
        if 0 <= number < len(lines) and re.match(r" *\t", lines[number]):
            mark = yaml.Mark("", 0, number, 0, None, 0)
            return _wrong("a tab indents this line; YAML allows spaces only", mark, "replace the tab by spaces")
    if "another document" in problem:
        return _wrong("holds several documents", mark, "keep one: remove the '---' lines")
    if "undefined alias" in problem:
        return _wrong("an alias (*name) refers to no anchor (&name)", mark)
    if "cannot start any token" in problem:
        problem = "a value begins with a character that needs quotes (@, `, %, or a tab)"
    if "mapping values are not allowed" in problem:
        problem = "a colon where none can be: wrong indentation, or a value with ': ' that needs quotes"
    return _wrong(f"is no valid YAML: {problem}", mark)


class _Loader(yaml.SafeLoader):
    """Builds values from nodes; an alias is built anew, so that no two keys share a value."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node; an anchor may be defined again."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if not isinstance(event, yaml.AliasEvent):
            self.anchors.pop(event.anchor, None)
        return super().compose_node(parent, index)

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Return the tag of a node that has none."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]

    def value(self, node: yaml.Node, around: tuple[yaml.Node, ...]) -> Any:
        """Return the value of a node; ``around`` are the nodes that it stands in."""
        if node in around:
            raise _wrong("an alias refers to the value that it stands in: a cycle", node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if node.tag not in (_TAG + "seq", _TAG + "map"):
            raise _wrong("holds a tag (!…); only plain values are loaded", node.start_mark, "remove the tag")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*around, node)) for item in node.value]
        return self._mapping(node, (*around, node))

    def _mapping(self, node: yaml.Node, around: tuple[yaml.Node, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, value = self.value(key_node, around), self.value(value_node, around)
            if key == "<<" and key_node.tag == _PLAIN:
                for part in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(part, dict):
                        raise _wrong("'<<' merges mappings only", key_node.start_mark)
                    merged.update(part)
                continue
            if not isinstance(key, str):
                written = key_node.value if key_node.tag == _PLAIN else ""
                remedy = f'put it in quotes: "{written}"' if written else _CHECK
                raise _wrong(f"{f'the key {written}' if written else 'a key'} is no text", key_node.start_mark, remedy)
            if key in mapping:
                raise _wrong(f"the key {key!r} stands twice", key_node.start_mark, "remove one of the two")
            mapping[key] = value_node.value if keeps_text(key, value) and value_node.tag == _PLAIN else value
        return {**merged, **mapping}


def _scalar(node: yaml.ScalarNode) -> Any:
    if node.tag == _TAG + "str":
        return node.value
    name = node.tag.removeprefix(_TAG)
    try:
        value = plain_scalar(node.value)
    except ValueError:
        raise _wrong("a number with too many digits", node.start_mark) from None
    if node.tag == _PLAIN:
        return value
    if name not in _TYPES:
        raise _wrong("holds a tag (!…); only plain values are loaded", node.start_mark, "remove the tag")
    if type(value) not in _TYPES[name]:
        raise _wrong(f"a value does not fit its tag !!{name}", node.start_mark)
    return float(value) if name == "float" else value


class _Dumper(yaml.SafeDumper):
    """Quotes texts that are something else by the core rules (``12e4``), which PyYAML's own would leave plain."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    try:
        quoted = not text.isprintable() or plain_scalar(text) is not text
    except ValueError:
        quoted = True
    return dumper.represent_scalar(_TAG + "str", text, style='"' if quoted else None)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(value: Any) -> str:
    """Return plain values as YAML text that :func:`load_yaml` reads back exactly."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000))
