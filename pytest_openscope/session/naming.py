"""Asks the lab's own hook for a failure's name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from ..records import Failure

#: A longer name is a message, and is kept as its fingerprint only.
MAX_NAME_CHARS = 200


class Host(Protocol):
    """What is needed of the session."""

    config: pytest.Config

    def _guard(self, what: str, action: Callable[[], object]) -> bool: ...


def name_by_hook(session: Host, failure: Failure) -> None:
    """Set ``failure.fingerprint`` to what ``pytest_openscope_fingerprint`` answers, if anything does.

    A hook that raises, or answers with something else than text, is shown as a failed helper; the failure keeps the name that
    it had.
    """
    hook = session.config.hook.pytest_openscope_fingerprint
    if hook.get_hookimpls():
        session._guard("the hook pytest_openscope_fingerprint", lambda: _ask(hook, failure))


def _ask(hook: Any, failure: Failure) -> None:
    try:
        name = hook(failure=copy.deepcopy(failure))
    except (pytest.fail.Exception, pytest.skip.Exception) as outcome:
        # These are no Exceptions: the guard would let them pass, and they would change the step's outcome.
        raise RuntimeError(f"it ended with {type(outcome).__name__}: {outcome}") from outcome
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"it returned {name!r:.100} -> return a text, or None for the ordinary fingerprint")
    name = " ".join(name.split())
    if len(name) > MAX_NAME_CHARS:
        from ..issues import named

        name = named(name)
    failure.fingerprint = name or failure.fingerprint
