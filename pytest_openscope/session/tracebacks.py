"""What pytest shows of an error that this package raised on purpose: its message and the user's own lines."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest

_HIDE = "__tracebackhide__"
_PACKAGE = Path(__file__).parents[1]
_QUALIFIED = re.compile(r"\bpytest_openscope(?:\.\w+)*\.(?=[A-Z]\w*\b)")


def hide_own_frames(error: BaseException | None) -> None:
    """Hide this package's frames from pytest's report and its debugger; log and states get the whole chain.

    That is for what it raised on purpose (its own classes, or where ``__tracebackhide__`` is set), and for errors of the lab's
    own code that it called; its own faults show all.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        own = [frame for frame in frames if _PACKAGE in Path(frame.f_code.co_filename).parents]
        on_purpose = type(error).__module__.startswith("pytest_openscope.")
        if own and own[-1] is frames[-1] and not on_purpose and _HIDE not in own[-1].f_locals:
            return
        # A cause that this package has caught itself is shown with its way from there.
        for frame in own if own and own[0] is not frames[0] else ():
            frame.f_locals[_HIDE] = True
        error = error.__context__ if error.__cause__ is None else error.__cause__


def shorten(report: pytest.TestReport, error: BaseException | None) -> None:
    """Name this package's exceptions as one knows them: ``LimitsExceeded``, without the modules in front.

    Of an error whose class has ``openscope_hides_cause`` the cause is left out.
    """
    longrepr: Any = report.longrepr
    if getattr(type(error), "openscope_hides_cause", False) and hasattr(longrepr, "chain"):
        longrepr.chain = longrepr.chain[-1:]
    for shown, crash, _ in getattr(longrepr, "chain", ()):
        if crash is not None:
            crash.message = _QUALIFIED.sub("", crash.message)
        for entry in getattr(shown, "reprentries", ()):
            if hasattr(entry, "lines"):
                entry.lines[:] = [_QUALIFIED.sub("", line) if line.startswith("E ") else line for line in entry.lines]
