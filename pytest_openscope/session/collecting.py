"""What pytest collects for an experiment: the files given, and the phase, policy and name of each step."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest

from ..records import Mistake, OnFailure, Phase

_PHASES = [str(phase) for phase in Phase]
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
    try:
        return find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _others_collect(config: pytest.Config) -> bool:
    """Tell whether another plugin or a ``conftest.py`` makes tests of files; it may make some of this one."""
    own = {"python", "doctest"}
    return any(one.plugin_name not in own for one in config.hook.pytest_collect_file.get_hookimpls())


def _remedy(path: Path) -> str:
    try:
        there = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"mend the path; {path.parent} is not there either"
    near = difflib.get_close_matches(path.name, there, n=1)
    return f"did you mean {near[0]}?" if near else "mend the path"


#: How like a phase's name an unknown mark must be to count as a misspelt one (:mod:`difflib`, 1 is the same word).
_MISSPELT = 0.85
#: pytest-retry makes its reports past pytest's hook.
NO_PYTEST_RETRY = (
    "an experiment cannot run with pytest-retry: it hides failed attempts from pytest, so that a failed step would not stop the"
    " ones after it -> leave out --retries and its marks; write attempts=3 on the phase marker, or use pytest-rerunfailures"
)
_PLACE = pytest.StashKey["tuple[Phase, OnFailure, bool]"]()


def phase_marker(item: pytest.Item) -> pytest.Mark | None:
    return next((marker for marker in item.iter_markers() if marker.name in _PHASES), None)


def place_of(item: pytest.Item) -> tuple[Phase, OnFailure, bool]:
    """Return phase, failure policy, and whether the policy was written out.

    Raises:
        pytest.UsageError: ``on_failure`` is no policy.
    """
    if _PLACE in item.stash:
        return item.stash[_PLACE]
    place = (Phase.ACQUISITION, OnFailure.CONTINUE, False)
    marker = phase_marker(item)
    if marker is not None:
        given = marker.kwargs.get("on_failure")
        try:
            policy = OnFailure.ABORT if given is None else OnFailure(str(given))
        except ValueError:
            raise pytest.UsageError(
                f"{item.nodeid}: @pytest.mark.{marker.name}(on_failure={given!r}) -> use 'abort', 'continue' or 'prompt'"
            ) from None
        place = (Phase(marker.name), policy, given is not None)
    item.stash[_PLACE] = place
    return place


def misspelt_phases(items: Iterable[pytest.Item], config: pytest.Config) -> list[Mistake]:
    """Return the marks that nobody registered and that are nearly a phase: their steps would run in the wrong one."""
    known = {line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers")}
    near: dict[str, list[str]] = {}
    found: dict[tuple[str, str], Mistake] = {}
    for item in items:
        for name in {marker.name for marker in item.iter_markers()} - known:
            if name not in near:
                near[name] = difflib.get_close_matches(name.lower(), _PHASES, n=1, cutoff=_MISSPELT)
            place = (item.nodeid.partition("::")[0], name)
            if near[name] and place not in found:
                remedy = f"write @pytest.mark.{near[name][0]}, or register the mark if it means something else"
                found[place] = Mistake(item.nodeid, f"@pytest.mark.{name} is no phase of an experiment", remedy)
    return list(found.values())


def step_name(item: pytest.Item) -> str:
    """Return the short name of a step: its class and function, or the pipeline entry's name."""
    owner = getattr(item, "cls", None)
    return f"{owner.__name__}.{item.name}" if owner is not None else item.name
