"""Every declared device opens, answers in time and closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from . import measure
from .result import CheckResult

pytestmark = pytest.mark.rig_check


def test_device(device_name: str, devices: Any, said: Callable[[CheckResult], None]) -> None:
    """Open, ``check()``, close; each within the device's own time."""
    said(measure.check_device(device_name, devices, devices.specs[device_name].check_timeout_s))
