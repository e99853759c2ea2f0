"""The experiment as tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import video

from pytest_openscope import Acquisition, Experiment, Rig

DURATION_S = 2.0


@pytest.fixture(scope="session")
def movie(experiment: Experiment) -> Path:
    return experiment.session_folder / "body_camera.mkv"


@pytest.mark.pre_acquisition
def test_disk_space(experiment: Experiment) -> None:
    free_gb = shutil.disk_usage(experiment.session_folder).free / 1e9
    experiment.measure("free_disk", round(free_gb, 1), unit="GB", minimum=0.1)


@pytest.mark.acquisition
def test_record(acquisition: Acquisition, rig: Rig, movie: Path) -> None:
    command = video.record_command(movie, DURATION_S, rig["camera.frame_rate_hz"], rig["camera.frame_size"])
    acquisition.run(command=command, name="body_camera", timeout_s=60)


@pytest.mark.post_acquisition
def test_frames(experiment: Experiment, rig: Rig, movie: Path) -> None:
    if experiment.dry_run:
        pytest.skip("a dry run records nothing")
    ordered = DURATION_S * rig["camera.frame_rate_hz"]
    experiment.measure("frames", video.count_frames(movie), minimum=ordered - 1, maximum=ordered + 1)


@pytest.mark.post_acquisition
def test_picture(experiment: Experiment, movie: Path) -> None:
    if experiment.dry_run:
        pytest.skip("a dry run records nothing")
    picture = video.save_frame(movie, experiment.session_folder / "body_camera.png", at_s=DURATION_S / 2)
    experiment.attach(picture)
