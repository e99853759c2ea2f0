"""Where a pytest item stands in an experiment, and what it is called there."""

from __future__ import annotations

import pytest

from .phases import OnFailure, Phase

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


def step_name(item: pytest.Item) -> str:
    """Return the short name of a step: its class and function, or the pipeline entry's name."""
    owner = getattr(item, "cls", None)
    return f"{owner.__name__}.{item.name}" if owner is not None else item.name
