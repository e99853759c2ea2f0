from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from my_devices import Lamp


@pytest.fixture(scope="session")
def lamp(devices: Mapping[str, Any], rig: Mapping[str, Any]) -> Iterator[Lamp]:
    """What comes before the yield is pre-acquisition, what comes after it is post-acquisition."""
    lamp: Lamp = devices["lamp"]
    lamp.set_power(rig["lamp_power_mw"])
    yield lamp
    lamp.set_power(0.0)


@pytest.fixture(scope="session")
def trials(experiment: Any) -> int:
    """Five, unless a parameter file says otherwise: pytest --params day1.json."""
    return int(experiment.parameters.get("trials", 5))
