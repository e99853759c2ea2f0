"""Where a pytest item stands in an experiment, and what it is called there."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ..records import Mistake, OnFailure, Phase

#: How like a phase's name an unknown mark must be to count as a misspelt one (:mod:`difflib`, 1 is the same word).
_MISSPELT = 0.85
#: pytest-retry makes its reports past pytest's hook.
NO_PYTEST_RETRY = (
    "an experiment cannot run with pytest-retry: it hides failed attempts from pytest, so that a failed step would not stop the"
    " ones after it -> leave out --retries and its marks; write attempts=3 on the phase marker, or use pytest-rerunfailures"
)
_PLACE = pytest.StashKey["tuple[Phase, OnFailure, bool]"]()


def place_of(item: pytest.Item) -> tuple[Phase, OnFailure, bool]:
    """Return phase, failure policy, and whether the policy was written out; the closest marker wins.

    Raises:
        pytest.UsageError: ``on_failure`` is no policy.
    """
    if _PLACE in item.stash:
        return item.stash[_PLACE]
    place = (Phase.ACQUISITION, OnFailure.CONTINUE, False)
    for marker in item.iter_markers():
        if marker.name not in {str(phase) for phase in Phase}:
            continue
        given = marker.kwargs.get("on_failure")
        try:
            policy = OnFailure.ABORT if given is None else OnFailure(str(given))
        except ValueError:
            raise pytest.UsageError(
                f"{item.nodeid}: @pytest.mark.{marker.name}(on_failure={given!r}) -> use 'abort', 'continue' or 'prompt'"
            ) from None
        place = (Phase(marker.name), policy, given is not None)
        break
    item.stash[_PLACE] = place
    return place


def misspelt_phases(items: Iterable[pytest.Item], config: pytest.Config) -> list[Mistake]:
    """Return the marks that nobody registered and that are nearly a phase: their steps would run in the wrong one."""
    import difflib

    phases = [str(phase) for phase in Phase]
    known = {line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers")}
    near: dict[str, list[str]] = {}
    found: dict[tuple[str, str], Mistake] = {}
    for item in items:
        for name in {marker.name for marker in item.iter_markers()} - known:
            if name not in near:
                near[name] = difflib.get_close_matches(name.lower(), phases, n=1, cutoff=_MISSPELT)
            place = (item.nodeid.partition("::")[0], name)
            if near[name] and place not in found:
                remedy = f"write @pytest.mark.{near[name][0]}, or register the mark if it means something else"
                found[place] = Mistake(item.nodeid, f"@pytest.mark.{name} is no phase of an experiment", remedy)
    return list(found.values())


def step_name(item: pytest.Item) -> str:
    """Return the short name of a step: its class and function, or the pipeline entry's name."""
    owner = getattr(item, "cls", None)
    return f"{owner.__name__}.{item.name}" if owner is not None else item.name
