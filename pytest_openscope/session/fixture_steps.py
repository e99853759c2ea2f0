"""Fixtures are phases too: what they do before their ``yield`` prepares, what they do after it cleans up."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

import pytest

from ..records import OnFailure, Outcome, Phase, StepRecord

if TYPE_CHECKING:
    from .state import SessionState

_log = logging.getLogger("pytest_openscope.steps")
_OF_TOOLS = ("_pytest.", "pytest_openscope.", "pytest_timeout", "pluggy", "hypothesis.", "xdist", "anyio.", "pytest_asyncio")


class FixtureSteps:
    """Logs, times and counts the fixtures of acquisition steps as steps of pre- and post-acquisition."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._phase: Phase | None = None
        self._item_place = ("", "")
        self._steps: dict[CodeType, list[StepRecord]] = {}

    def item_begins(self, phase: Phase, step: str) -> None:
        self._phase = phase
        self._item_place = (str(phase), step)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        code = getattr(fixturedef.func, "__code__", None)
        if self._phase is not Phase.ACQUISITION or code is None or _of_a_tool(fixturedef.func):
            try:
                return (yield)
            except KeyboardInterrupt as interrupt:
                _mend(fixturedef, request, interrupt)
                raise
        step = self._begin(code, fixturedef.argname, Phase.PRE_ACQUISITION)
        clock = time.perf_counter()
        after: list[tuple[StepRecord, float]] = []
        fixturedef.addfinalizer(lambda: self._end_after(after))
        try:
            result = yield
        except KeyboardInterrupt as interrupt:
            self._end(step, clock, Outcome.INTERRUPTED)
            _mend(fixturedef, request, interrupt)
            raise
        except pytest.skip.Exception as reason:
            step.skipped = str(reason.msg)
            self._end(step, clock, None)
            raise
        except BaseException:
            self._end(step, clock, step.outcome or Outcome.ERROR)
            raise
        self._end(step, clock, Outcome.PASSED)
        if _has_yield(code):
            fixturedef.addfinalizer(lambda: self._begin_after(code, fixturedef.argname, after))
        return result

    def _begin(self, code: CodeType, name: str, phase: Phase) -> StepRecord:
        session = self._session
        step = session.add_step(name, self._item_place[1], phase, OnFailure.ABORT, "fixture")
        self._steps.setdefault(code, []).append(step)
        session.log.set_place(str(phase), name)
        _log.info("fixture %s started", name)
        return step

    def _end(self, step: StepRecord, clock: float, outcome: Outcome | None) -> None:
        session = self._session
        step.duration_s = round(time.perf_counter() - clock, 6)
        step.outcome = outcome
        session.end_step(step)
        _log.info("fixture %s %s in %.3f s", step.name, outcome or f"skipped: {step.skipped}", step.duration_s)
        session.log.set_place(*self._item_place)
        session.journal.write("step_resumed", phase=self._item_place[0], step=self._item_place[1])

    def _begin_after(self, code: CodeType, name: str, after: list[tuple[StepRecord, float]]) -> None:
        early = self._phase is Phase.PRE_ACQUISITION
        step = self._begin(code, name, Phase.PRE_ACQUISITION if early else Phase.POST_ACQUISITION)
        after.append((step, time.perf_counter()))

    def _end_after(self, after: list[tuple[StepRecord, float]]) -> None:
        while after:
            step, clock = after.pop()
            self._end(step, clock, step.outcome or Outcome.PASSED)

    def failed_fixture(self, error: BaseException | None, when: str | None) -> StepRecord | None:
        """Return the fixture's step whose code raised ``error`` in setup or teardown; None when it was the test itself."""
        if error is None or when == "call":
            return None
        found = None
        for code in _codes(error):
            steps = self._steps.get(code)
            if steps:
                found = steps[-1]
        return found


def _of_a_tool(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith(_OF_TOOLS)


def _has_yield(code: CodeType) -> bool:
    return bool(code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR))


def _codes(error: BaseException) -> Iterator[CodeType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame.f_code
        traceback = traceback.tb_next
    for member in getattr(error, "exceptions", ()):
        yield from _codes(member)


def _mend(fixturedef: Any, request: Any, interrupt: KeyboardInterrupt) -> None:
    """An interrupted fixture poisons its later users with a bare assertion and loses its finalizers: finish it properly."""
    if fixturedef.cached_result is None:
        key = fixturedef.cache_key(request)
        fixturedef.cached_result = (None, key, (interrupt, interrupt.__traceback__))
    try:
        fixturedef.finish(request)
    except Exception:
        _log.exception("teardown of the interrupted fixture %s failed", fixturedef.argname)
