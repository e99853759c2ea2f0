"""The lab's own checks, beside the ready-made ones: pytest --rig-config rig.yaml --validate-rig checks."""

from __future__ import annotations

import pytest

from pytest_openscope import Devices, Experiment


@pytest.mark.rig_check(expires="7d")
def test_laser_power(devices: Devices, experiment: Experiment) -> None:
    """The laser takes a power and says so."""
    laser = devices["laser"]
    assert laser.query("POW 10.0") == "OK"
    experiment.measure("laser_power", float(laser.query("POW?")), unit="mW", minimum=9.5, maximum=10.5)
    assert laser.query("POW 0.0") == "OK"


@pytest.mark.rig_check(expires="30d")
def test_stage_reaches_its_limits(devices: Devices) -> None:
    stage = devices["stage"]
    for x_mm in (-10.0, 10.0, 0.0):
        devices.run(stage.move, x_mm=x_mm, z_mm=0.0)
        assert devices.run(stage.x_mm.get_value) == pytest.approx(x_mm, abs=0.01)
