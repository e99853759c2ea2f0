"""Tests that Windows cannot run, and those that Wine cannot, each with its reason. The root ``conftest.py`` skips them there.

A key names the start of a test's id. A test that is about POSIX says so beside itself where it is one of few; here stand those
of which whole groups share a reason, and all that only Wine keeps from running, with what was seen there.
"""

from __future__ import annotations

import ctypes
import sys

import pytest

#: Skipped on every Windows.
POSIX: dict[str, list[str]] = {}

#: Skipped under Wine alone.
WINE: dict[str, list[str]] = {}


def wine_version() -> str | None:
    """Return the version of Wine that this Windows is, or None on another system."""
    if sys.platform != "win32":
        return None
    ask = getattr(ctypes.WinDLL("ntdll"), "wine_get_version", None)
    if ask is None:
        return None
    ask.restype = ctypes.c_char_p
    return str(ask().decode())


def skip_what_cannot_run(items: list[pytest.Item]) -> None:
    """Mark the tests that stand above."""
    if sys.platform != "win32":
        return
    version = wine_version()
    reasons = {start: f"POSIX: {reason}" for reason, starts in POSIX.items() for start in starts}
    if version is not None:
        reasons |= {start: f"Wine {version}: {seen}" for seen, starts in WINE.items() for start in starts}
    for item in items:
        for start, reason in reasons.items():
            if item.nodeid == start or item.nodeid.startswith((f"{start}[", f"{start}::")):
                item.add_marker(pytest.mark.skip(reason=reason))
                break
