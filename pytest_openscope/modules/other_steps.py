"""Steps that are named like ready-made ones and come from elsewhere: the rig's own, and those of the launcher's package.

A name is looked up in this order: ``modules`` of the rig file, the entry point group ``pytest_openscope.modules``, the steps of
this package, an installed ``openscope_experimental_launcher``. Nothing is imported before a step runs, but for the packages
above a module.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from ..config import nearest
from ..records import Phase
from ..system import native_path
from .failures import ModuleFailed
from .scripts import ScriptImports

ENTRY_POINTS = "pytest_openscope.modules"
LAUNCHER = "openscope_experimental_launcher"
_REFERENCE = re.compile(r"(?P<place>.{2,}?)(?::(?P<function>[A-Za-z_][\w.]*))?")


@dataclass(frozen=True)
class OtherStep:
    """A step that this package does not ship.

    Attributes:
        origin: who ships it, for messages.
        place: a Python file, or the dotted name of a module.
        function: its function; None for ``run_pre_acquisition``, ``run_post_acquisition`` or ``run``.
        folder: where modules are found besides.
        runs_dry: it may run in a dry run, since its author knows of ``dry_run``.
    """

    origin: str
    place: Path | str
    function: str | None = None
    folder: Path | None = None
    runs_dry: bool = True

    def candidates(self, phase: Phase) -> list[str]:
        """Names of its function, best first."""
        return [self.function] if self.function else [f"run_{phase}", "run"]

    def problem(self, phase: Phase) -> str:
        """Return what keeps it from running, as far as that can be told without importing it; "" for nothing."""
        try:
            file = self._file()
        except Exception as error:  # a package above the module may fail in any way
            return f"{self.place} cannot be imported: {type(error).__name__}: {error}"
        if file is None:
            return f"there is no {self.place}"
        try:
            names = _defined_names(file)
        except (SyntaxError, ValueError, OSError) as error:
            return f"{file} cannot be read as Python: {error}"
        wanted = self.candidates(phase)
        if names is None or any(name.partition(".")[0] in names for name in wanted):
            return ""
        return f"{file} has no function {' or '.join(wanted)}; {guess(wanted[0], sorted(names))}"

    def _file(self) -> Path | None:
        if isinstance(self.place, Path):
            return self.place if self.place.is_file() else None
        self._find_beside()
        spec = importlib.util.find_spec(self.place)
        return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None

    def _find_beside(self) -> None:
        if self.folder is not None and str(self.folder) not in sys.path:
            sys.path.append(str(self.folder))

    @contextmanager
    def loaded(self, phase: Phase, scripts: ScriptImports) -> Iterator[Callable[..., Any]]:
        """Import it and yield its function.

        Raises:
            ModuleFailed: it has no such function.
            Exception: whatever it raises while it is imported.
        """
        if isinstance(self.place, Path):
            with scripts.running(self.place.resolve()) as module:
                yield _function_of(module, self.candidates(phase), str(self.place))
        else:
            self._find_beside()
            yield _function_of(importlib.import_module(self.place), self.candidates(phase), self.place)


@dataclass(frozen=True)
class OwnSteps:
    """The steps that a rig names itself.

    Attributes:
        modules: name to ``package.module:function``, or to the path of a Python file.
        folder: of the rig file; relative paths start there, and modules that lie there are found.
    """

    modules: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def find(self, name: str) -> OtherStep | None:
        """Return the rig's own step of that name, or an installed package's."""
        if name in self.modules:
            return self._read(self.modules[name])
        point = self._entry_points.get(name)
        if point is None:
            return None
        owner = point.dist.name if point.dist is not None else "an installed package"
        module, _, function = point.value.partition(":")
        return OtherStep(f"entry point of {owner}", module.strip(), function.strip() or None)

    def names(self) -> list[str]:
        """Return all names that :meth:`find` knows."""
        return [*self.modules, *self._entry_points]

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        """Those of all installed packages, which takes 20 ms to find out; of several with one name the first one counts."""
        return {point.name: point for point in reversed(list(entry_points(group=ENTRY_POINTS)))}

    def _read(self, reference: str) -> OtherStep:
        origin = f"modules of the rig file: {reference}"
        found = _REFERENCE.fullmatch(reference)
        place, function = (found["place"], found["function"]) if found else (reference, None)
        if place.lower().endswith(".py") or "/" in place or "\\" in place:
            path = native_path(place).expanduser()
            return OtherStep(origin, (self.folder or Path()) / path, function)
        return OtherStep(origin, place, function, self.folder)


def launcher_step(name: str, phase: Phase) -> OtherStep | None:
    """Return a step of the installed launcher; None where it is not installed, or has none of that name for that phase."""
    top = importlib.util.find_spec(LAUNCHER)
    relative = f"{phase}.{name}"
    if top is None or not all(part.isidentifier() for part in relative.split(".")):
        return None
    for folder in top.submodule_search_locations or ():
        path = Path(folder, *relative.split("."))
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return OtherStep(f"the installed {LAUNCHER}", f"{LAUNCHER}.{relative}", runs_dry=False)
    return None


def _function_of(module: Any, candidates: list[str], where: str) -> Callable[..., Any]:
    """Return the first of these functions that a module has."""
    for name in candidates:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if callable(found):
            function: Callable[..., Any] = found
            return function
    raise ModuleFailed(f"{where} has no function {' or '.join(candidates)}")


def guess(name: str, known: Iterable[str]) -> str:
    """Return the hint to a name that nobody knows: the known one that it is a slip of, or all of them."""
    known = list(known)
    near = nearest(name, known, 2)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(known) or 'none'}"


def _defined_names(script: Path) -> set[str] | None:
    """Names that a script binds at its top level, or None when that cannot be told without running it."""
    names: set[str] = set()
    stack: list[ast.AST] = list(ast.parse(script.read_bytes(), os.fspath(script)).body)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            if node.name == "__getattr__":
                return None
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
            if "*" in names:
                return None
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("globals", "exec", "setattr"):
            return None
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            stack.extend(ast.iter_child_nodes(node))
    return names
