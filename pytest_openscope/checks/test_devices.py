"""Every declared device opens, answers in time and closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from . import measure
from .result import CheckResult
from .suite import RigChecks

pytestmark = pytest.mark.rig_check


#: What a device may take beyond its own times, on a PC that is busy with other things.
_MARGIN_S = 5.0


def test_device(device_name: str, devices: Any, rig_checks: RigChecks, said: Callable[[CheckResult], None]) -> None:
    """Open, ``check()``, close; each within the device's own time. One that nothing could make safe stays closed."""
    broken = measure.check_safe_command(device_name, devices)
    if broken is not None:
        said(broken)
        return
    spec = devices.specs[device_name]
    if spec.open_in_main_thread:
        words = f"TimeoutError: {device_name}.open did not return within {spec.open_timeout_s:g} s"
        said(measure.check_device(device_name, devices, rig_checks.within(spec.open_timeout_s, words)))
        return
    # Where a driver holds Python's lock no thread can watch it: the session's deadline is known to its sidecar too.
    seconds = spec.open_timeout_s + spec.check_timeout_s + spec.safe_state_timeout_s + spec.close_timeout_s + _MARGIN_S
    with rig_checks.within(seconds, f"TimeoutError: the driver of {device_name} let nothing else run for {seconds:g} s"):
        said(measure.check_device(device_name, devices))
