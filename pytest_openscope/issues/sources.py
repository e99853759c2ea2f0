"""Qualified names of functions where Python does not tell them: in stacks of faulthandler, and in tracebacks of Python 3.10.

The line that ran is looked up in the source. Where the source is gone, or has changed so that no function of that name is at
that line, the plain name stays.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .normalise import basename

#: Larger files are data.
MAX_SOURCE_BYTES = 4_000_000
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
#: What pytest imports by a name that may hold the way from its root folder.
_COLLECTED = re.compile(r"(?:test_\w*|\w+_test|conftest)")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_COMPREHENSIONS: dict[type[ast.AST], str] = {
    ast.ListComp: "<listcomp>",
    ast.SetComp: "<setcomp>",
    ast.DictComp: "<dictcomp>",
    ast.GeneratorExp: "<genexpr>",
}


@dataclass(frozen=True)
class Scope:
    """What compiles to code of its own: a function, class, lambda or comprehension."""

    name: str
    qualname: str
    first: int
    last: int


class Sources:
    """Completes frames from the files on this disk.

    Args:
        python: version that made the tracebacks; those of 3.11 on have qualified names.
    """

    def __init__(self, python: str = "") -> None:
        numbers = [int(part) for part in re.findall(r"\d+", python)[:2]]
        self.traced_plainly = len(numbers) == 2 and numbers < [3, 11]
        self._scopes: dict[str, list[Scope]] = {}

    def traced(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Return a frame of a traceback with the names that it has on every rig."""
        found = {**frame, "module": _module(frame)}
        return self._qualified(found) if self.traced_plainly else found

    def dumped(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Return a frame of a faulthandler stack with its qualified name."""
        return self._qualified({**frame, "function": _unescaped(str(frame["function"]))})

    def _qualified(self, frame: dict[str, Any]) -> dict[str, Any]:
        name, line = str(frame.get("function") or ""), int(frame.get("line") or 0)
        around = [scope for scope in self._of(str(frame.get("file") or "")) if scope.first <= line <= scope.last]
        # Inner scopes come later, so the last one is the innermost.
        return next(({**frame, "function": scope.qualname} for scope in reversed(around) if scope.name == name), frame)

    def _of(self, file: str) -> list[Scope]:
        if file not in self._scopes:
            self._scopes[file] = _read(file)
        return self._scopes[file]


def _read(file: str) -> list[Scope]:
    """Return the scopes of a source file; [] for what is none."""
    for path in dict.fromkeys([file, _unescaped(file)]):
        try:
            if Path(path).is_file() and Path(path).stat().st_size <= MAX_SOURCE_BYTES:
                return scopes_in(Path(path).read_bytes())
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return []


def _unescaped(text: str) -> str:
    """Undo how faulthandler writes what is not ASCII."""
    return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2] or match[3], 16) % 0x110000), text)


def _module(frame: Mapping[str, Any]) -> str:
    """Return a frame's module; of a test file without the folders that are no packages.

    With ``--import-mode=importlib`` pytest puts the way from its root folder before the name, which differs between checkouts.
    """
    module, file = str(frame.get("module") or ""), str(frame.get("file") or "")
    parts = module.split(".")
    if len(parts) < 2 or not _COLLECTED.fullmatch(parts[-1]) or basename(file) != parts[-1] + ".py":
        return module
    kept, folder = [parts[-1]], Path(file).parent
    try:
        if not Path(file).is_file():
            return module
        for part in reversed(parts[:-1]):
            if folder.name != part or not (folder / "__init__.py").is_file():
                break
            kept.insert(0, part)
            folder = folder.parent
    except (OSError, ValueError):
        return module
    return ".".join(kept)


def scopes_in(source: str | bytes) -> list[Scope]:
    """Return the scopes of a source text, outer ones before inner ones.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it is no Python, or too deep.
    """
    return list(_inside(ast.parse(source), "", set()))


def _inside(node: ast.AST, prefix: str, globals_: set[str]) -> Iterator[Scope]:
    """Yield the scopes below a node; ``prefix`` is what their names begin with."""
    for child in ast.iter_child_nodes(node):
        yield from _from(child, prefix, globals_)


def _from(node: ast.AST, prefix: str, globals_: set[str]) -> Iterator[Scope]:
    if isinstance(node, _DEFINITIONS):
        qualname = node.name if node.name in globals_ else prefix + node.name
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        yield Scope(node.name, qualname, first, node.end_lineno or node.lineno)
        # Decorators, defaults, annotations and bases belong to the scope around.
        for name, value in ast.iter_fields(node):
            if name != "body":
                yield from _each(value, prefix, globals_)
        inner = qualname + ("." if isinstance(node, ast.ClassDef) else ".<locals>.")
        yield from _each(node.body, inner, _declared_global(node.body))
    elif isinstance(node, ast.Lambda):
        yield Scope("<lambda>", f"{prefix}<lambda>", node.lineno, node.end_lineno or node.lineno)
        yield from _inside(node.args, prefix, globals_)
        yield from _from(node.body, f"{prefix}<lambda>.<locals>.", set())
    elif isinstance(node, ast.expr) and type(node) in _COMPREHENSIONS:
        name = _COMPREHENSIONS[type(node)]
        yield Scope(name, prefix + name, node.lineno, node.end_lineno or node.lineno)
        yield from _comprehension(node, prefix, name, globals_)
    else:
        yield from _inside(node, prefix, globals_)


def _comprehension(node: Any, prefix: str, name: str, globals_: set[str]) -> Iterator[Scope]:
    """What is in a comprehension is in its scope, but for what it goes over first."""
    yield from _from(node.generators[0].iter, prefix, globals_)
    inner = f"{prefix}{name}."
    for field, value in ast.iter_fields(node):
        if field != "generators":
            yield from _each(value, inner, set())
    for position, generator in enumerate(node.generators):
        for field, value in ast.iter_fields(generator):
            if position or field != "iter":
                yield from _each(value, inner, set())


def _each(value: Any, prefix: str, globals_: set[str]) -> Iterator[Scope]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, ast.AST):
            yield from _from(item, prefix, globals_)


def _declared_global(body: list[ast.stmt]) -> set[str]:
    """Return what a scope declares global itself: a function of such a name is the module's."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Global):
            found.update(node.names)
        elif not isinstance(node, (*_DEFINITIONS, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return found
