"""What pytest shows of an error that this package raised on purpose: its message and the user's own lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from _pytest._code import Traceback
from _pytest._code.code import TracebackEntry

_PACKAGE = Path(__file__).parents[1]
_QUALIFIED = re.compile(r"\bpytest_openscope(?:\.\w+)*\.(?=[A-Z]\w*\b)")


@contextmanager
def own_frames_hidden(excinfo: pytest.ExceptionInfo[BaseException] | None) -> Iterator[None]:
    """Leave this package's frames out of the report that is made in the block; log and states get the whole chain.

    That is for what it raised on purpose, and for errors of the lab's own code that it called; its own faults show all.

    Of an error whose class has ``openscope_hides_cause`` the cause is left out as well.
    """
    if excinfo is None or (_is_ours(excinfo.traceback[-1]) and not _on_purpose(excinfo.value)):
        yield
        return
    error, whole = excinfo.value, excinfo.traceback
    theirs = None
    for entry in reversed(whole):
        if not _is_ours(entry):
            raw = entry._rawentry
            theirs = TracebackType(theirs, raw.tb_frame, raw.tb_lasti, raw.tb_lineno)
    if theirs is not None:
        excinfo.traceback = Traceback(theirs)
    hides = getattr(error, "openscope_hides_cause", False)
    cause, context = error.__cause__, error.__suppress_context__
    if hides:
        error.__cause__, error.__suppress_context__ = None, True
    try:
        yield
    finally:
        excinfo.traceback = whole
        if hides:
            error.__cause__, error.__suppress_context__ = cause, context


def _on_purpose(error: BaseException) -> bool:
    return type(error).__module__.startswith("pytest_openscope.")


def _is_ours(entry: TracebackEntry) -> bool:
    return _PACKAGE in Path(entry.path).parents


def shorten_names(report: pytest.TestReport) -> None:
    """Name this package's exceptions as one knows them: ``LimitsExceeded``, without the modules in front."""
    longrepr: Any = report.longrepr
    for traceback, crash, _ in getattr(longrepr, "chain", ()):
        if crash is not None:
            crash.message = _QUALIFIED.sub("", crash.message)
        for entry in getattr(traceback, "reprentries", ()):
            if hasattr(entry, "lines"):
                entry.lines[:] = [_QUALIFIED.sub("", line) if line.startswith("E ") else line for line in entry.lines]
