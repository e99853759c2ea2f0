"""Scripts of a lab's repository: finding them, importing them side by side without mixing up their names."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import ModuleType

from .failures import ModuleFailed

#: Folders that hold other people's code or none; a base name is not looked up in them.
_SKIPPED = {".git", ".hg", "__pycache__", "node_modules", "site-packages", ".venv", "venv", ".tox"}


class ScriptNotFound(ModuleFailed):
    """A script is neither at its path nor, by its name, anywhere in the repository; the text says where it was sought."""


def find_script(module_path: str, repository: Path | None, folders: Sequence[Path] = ()) -> tuple[Path, str]:
    """Return the file of a script and, when it was not at its path, a sentence that says so.

    An absolute path stands for itself. A relative one is taken in the repository, then in ``folders``; then the repository
    is searched for the base name, and of several files the one that shares the longest end of the path is taken.

    Raises:
        ScriptNotFound: there is no such file, or several are equally good.
    """
    wanted = PurePosixPath(str(module_path).replace("\\", "/"))
    if not wanted.name:
        raise ScriptNotFound("the path of the script is empty")
    names = [wanted] if wanted.suffix else [wanted, wanted.with_name(wanted.name + ".py")]
    roots = list(dict.fromkeys(root for root in (repository, *folders) if root is not None))
    for name in names:
        # As text: a Windows path that is made of the parts of another kind of path loses its root, up to Python 3.11.
        given = Path(str(name))
        for candidate in [given] if given.is_absolute() else [root / given for root in roots]:
            if candidate.is_file():
                return candidate.resolve(), ""
    found = _by_base_name(names[-1], repository) if repository else []
    if len(found) == 1:
        return found[0].resolve(), f"{module_path} is not at its path; found by its name: {found[0]}"
    if found:
        raise ScriptNotFound(f"{module_path} is not at its path, and its name fits several files: {', '.join(map(str, found))}")
    raise ScriptNotFound(f"there is no {module_path} in {', '.join(map(str, roots)) or 'any known folder'}")


def _by_base_name(wanted: PurePosixPath, repository: Path) -> list[Path]:
    """Return the files of that name that share the longest end of the wanted path, without regard to case."""
    best: list[Path] = []
    best_shared = 0
    ending = [part.lower() for part in reversed(wanted.parts)]
    for folder, subfolders, files in os.walk(repository):
        subfolders[:] = sorted(name for name in subfolders if name not in _SKIPPED)
        for name in sorted(files):
            if name.lower() != ending[0]:
                continue
            path = Path(folder, name)
            own = [part.lower() for part in reversed(path.parts)]
            shared = next((i for i, (a, b) in enumerate(zip(ending, own, strict=False)) if a != b), min(len(ending), len(own)))
            if shared > best_shared:
                best, best_shared = [path], shared
            elif shared == best_shared:
                best.append(path)
    return best


class ScriptImports:
    """The scripts that a session has imported, each under a name of its own.

    Two repositories, or two folders of one, may both have a ``helper.py``. While a script runs, its folder stands first on
    ``sys.path`` and the modules of that folder are the ones in ``sys.modules``; afterwards they are taken out again (unless
    the folder was on the path before), and what they had hidden is put back. A script and its neighbours are imported once,
    so they keep their state from step to step. ``sys.argv`` holds the script alone; the working directory is put back.
    """

    def __init__(self) -> None:
        self._scripts: dict[Path, ModuleType] = {}
        self._neighbours: dict[Path, dict[str, ModuleType]] = {}

    @contextmanager
    def running(self, script: Path) -> Iterator[ModuleType]:
        """Import ``script`` and keep its surroundings in place until the block ends.

        Raises:
            Exception: whatever the script raises while it is imported.
        """
        folder = script.parent
        before_path, before_argv, before_cwd = list(sys.path), sys.argv, Path.cwd()
        beside = _names_beside(folder)
        hidden = _take_out(
            name
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] in beside and not _lies_in(module, folder)
        )
        before = set(sys.modules)
        sys.modules.update(self._neighbours.get(folder, {}))
        sys.path.insert(0, str(folder))
        sys.argv = [str(script)]
        importlib.invalidate_caches()
        try:
            yield self._load(script)
        finally:
            if str(folder) not in before_path:
                added = [name for name, module in list(sys.modules.items()) if name not in before and _lies_in(module, folder)]
                own = {module.__name__ for module in self._scripts.values()}
                self._neighbours.setdefault(folder, {}).update(_take_out(name for name in added if name not in own))
            if str(folder) in sys.path:
                sys.path.remove(str(folder))
            sys.modules.update(hidden)
            sys.argv = before_argv
            os.chdir(before_cwd)

    def _load(self, script: Path) -> ModuleType:
        if script in self._scripts:
            return self._scripts[script]
        name = stem = f"script_{script.stem}"  # the log shows it as the name of the script's logger
        while name in sys.modules:
            name = f"{stem}_{len(self._scripts) + 1}" if name == stem else f"{name}_"
        spec = importlib.util.spec_from_file_location(name, script)
        if spec is None or spec.loader is None:
            raise ImportError(f"{script} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickle look a class up by the name of its module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            sys.modules.pop(name, None)
            if isinstance(error, SystemExit):
                raise ModuleFailed(f"{script} called sys.exit({error.code!r}) while it was imported") from error
            raise
        self._scripts[script] = module
        return module


def _take_out(names: Iterable[str]) -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(names)}


def _names_beside(folder: Path) -> set[str]:
    """Names of the modules and packages beside a script; the standard library's own names stay the library's."""
    names = set()
    for item in folder.iterdir():
        if item.suffix == ".py" and item.is_file():
            names.add(item.stem)
        elif (item / "__init__.py").is_file():
            names.add(item.name)
    return names - sys.stdlib_module_names - {"conftest", "__init__", "__main__"}


def _lies_in(module: ModuleType | None, folder: Path) -> bool:
    """Tell whether a module is one of the folder's own; what is installed in an environment below it is not."""
    file = getattr(module, "__file__", None)
    places = [file] if isinstance(file, str) else [place for place in getattr(module, "__path__", ()) if isinstance(place, str)]
    return any(
        folder in path.parents and not {"site-packages", "dist-packages"} & set(path.parts) for path in map(Path, places)
    )
