from __future__ import annotations

from collections.abc import Iterator

import pytest
from my_devices import Lamp

from pytest_openscope import Devices, Experiment, Rig


@pytest.fixture(scope="session")
def lamp(devices: Devices, rig: Rig) -> Iterator[Lamp]:
    """What comes before the yield is pre-acquisition, what comes after it is post-acquisition."""
    lamp: Lamp = devices["lamp"]
    lamp.set_power(rig["lamp_power_mw"])
    yield lamp
    lamp.set_power(0.0)


@pytest.fixture(scope="session")
def trials(experiment: Experiment) -> int:
    """Five, unless a parameter file says otherwise: pytest --params day1.json."""
    return int(experiment.parameters.get("trials", 5))
