"""The experiment: move the stage, switch the laser on, record one second of video, reward."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import video

from pytest_openscope import Acquisition, Devices, Experiment, Rig

DURATION_S = 1.0


@pytest.fixture(scope="session")
def movie(experiment: Experiment) -> Path:
    return experiment.session_folder / "body_camera.mkv"


@pytest.mark.pre_acquisition
def test_devices_answer(devices: Devices) -> None:
    for name in devices:
        devices.check(name)


@pytest.mark.pre_acquisition
def test_stage(devices: Devices) -> None:
    stage = devices["stage"]
    devices.run(stage.move, x_mm=1.5, z_mm=-0.2, timeout_s=10)


@pytest.mark.pre_acquisition
def test_laser_power(devices: Devices, rig: Rig, experiment: Experiment) -> None:
    laser = devices["laser"]
    assert laser.query(f"POW {rig['laser_power_mw']:.1f}") == "OK"
    experiment.measure("laser_power", float(laser.query("POW?")), unit="mW", minimum=4.5, maximum=5.5)


@pytest.mark.acquisition
def test_record(acquisition: Acquisition, devices: Devices, rig: Rig, movie: Path) -> None:
    devices["laser"].output(True)
    command = video.record_command(movie, DURATION_S, rig["camera.frame_rate_hz"], rig["camera.frame_size"])
    with acquisition.running(command=command, name="body_camera", timeout_s=DURATION_S + 8) as camera:
        assert devices["lick_spout"].query("VALVE 1") == "VALVE 1"
        time.sleep(0.1)
        assert devices["lick_spout"].query("VALVE 0") == "VALVE 0"
        camera.wait()
    devices["laser"].output(False)


@pytest.mark.post_acquisition
def test_frames(experiment: Experiment, rig: Rig, movie: Path) -> None:
    if experiment.dry_run:
        pytest.skip("a dry run records nothing")
    ordered = DURATION_S * rig["camera.frame_rate_hz"]
    experiment.measure("frames", video.count_frames(movie), minimum=ordered - 1, maximum=ordered + 1)
