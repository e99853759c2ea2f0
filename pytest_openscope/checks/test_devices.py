"""Every declared device opens, answers in time and closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from . import measure
from .result import CheckResult
from .suite import RigChecks

pytestmark = pytest.mark.rig_check


def test_device(device_name: str, devices: Any, rig_checks: RigChecks, said: Callable[[CheckResult], None]) -> None:
    """Open, ``check()``, close; each within the device's own time. One that nothing could make safe stays closed."""
    spec, within = devices.specs[device_name], None
    if spec.open_in_main_thread:
        within = rig_checks.within(
            spec.open_timeout_s, f"TimeoutError: {device_name}.open did not return within {spec.open_timeout_s:g} s"
        )
    said(measure.check_safe_command(device_name, devices) or measure.check_device(device_name, devices, within))
