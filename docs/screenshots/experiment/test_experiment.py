"""A session worth looking at: every phase, measurements, a picture, a warning, a question, and a failure at the end."""

from __future__ import annotations

import logging
import sys
import time

import pytest
import window

LOG = logging.getLogger("lab.microscope")


@pytest.fixture(scope="session")
def shutter():
    LOG.info("shutter open")
    yield
    LOG.info("shutter closed")


@pytest.mark.pre_acquisition
def test_animal_weight(experiment):
    experiment.measure("weight", 24.3, unit="g", minimum=18, maximum=32)
    time.sleep(1.5)


@pytest.mark.pre_acquisition
def test_laser_power(experiment, rig):
    LOG.info("warming up at %s mW", rig["laser_power_mw"])
    time.sleep(3)
    experiment.measure("laser power", 46.8, unit="mW", minimum=45, maximum=55)


@pytest.mark.pre_acquisition
def test_field_of_view(experiment, operator):
    picture = experiment.session_folder / "field_of_view.png"
    window.draw(picture)
    experiment.attach(picture)
    assert operator.confirm("Is this the field of view of the last session?", picture=str(picture))


@pytest.mark.acquisition
def test_baseline(acquisition, experiment, shutter):
    acquisition.run(command=[sys.executable, "recorder.py", "6"], name="camera_baseline", timeout_s=60)


@pytest.mark.acquisition
def test_orientation_tuning(acquisition, experiment):
    with acquisition.running(command=[sys.executable, "recorder.py", "16"], name="camera", timeout_s=120):
        for number in range(1, 33):
            LOG.info("grating %d of 32: %d deg", number, number % 8 * 45)
            experiment.progress(number, 32, "gratings")
            if number == 20:
                LOG.warning("grating 20 came 41.3 ms late")
            time.sleep(0.5)
    experiment.note("whisking during gratings 12 to 15")


@pytest.mark.post_acquisition
def test_frames(experiment):
    LOG.info("counting frames")
    time.sleep(1)
    experiment.measure("dropped frames", 13, maximum=10)


@pytest.mark.post_acquisition
def test_disk_space(experiment):
    experiment.measure("free disk", 812.4, unit="GB", minimum=200)
