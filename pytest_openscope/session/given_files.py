"""The files and folders on the command line: one that is not there must be told before a session folder exists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..records import Mistake

_PARAMETER_FILE = ".json"
_NO_PARAMETER_FILE = (".yaml", ".yml", ".toml")


def check_given_files(config: pytest.Config) -> list[Mistake]:
    """Return what is wrong with the positional arguments, as far as it can be seen before pytest collects.

    A parameter file (JSON) that is not there is told by who reads it.
    """
    if config.args_source is not config.ArgsSource.ARGS:
        return []
    folder = config.invocation_params.dir
    mistakes: dict[str, Mistake] = {}
    for argument in config.args:
        name = str(argument).split("::", 1)[0]
        if not (folder / name).exists():
            name = str(argument).partition("[")[0].split("::", 1)[0]
        path = Path(os.path.abspath(folder / name))  # noqa: PTH100 - resolve() follows links
        ending = path.suffix.lower()
        if path.exists():
            if ending in _NO_PARAMETER_FILE and path.is_file() and not _others_collect(config):
                remedy = f"rename or convert it, or give --params {name}"
                mistakes[name] = Mistake(name, "a parameter file given like this is JSON", remedy)
        elif ending != _PARAMETER_FILE and not (config.option.pyargs and _is_module(name)):
            mistakes[name] = Mistake(name, "there is no such file", _remedy(path))
    return list(mistakes.values())


def _is_module(name: str) -> bool:
    """Tell whether ``--pyargs`` finds the package that a name begins with; nothing is imported for that."""
    from importlib.util import find_spec

    try:
        return find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _others_collect(config: pytest.Config) -> bool:
    """Tell whether another plugin or a ``conftest.py`` makes tests of files; it may make some of this one."""
    own = {"python", "doctest"}
    return any(one.plugin_name not in own for one in config.hook.pytest_collect_file.get_hookimpls())


def _remedy(path: Path) -> str:
    import difflib

    try:
        there = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"mend the path; {path.parent} is not there either"
    near = difflib.get_close_matches(path.name, there, n=1)
    return f"did you mean {near[0]}?" if near else "mend the path"
