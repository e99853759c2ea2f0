from __future__ import annotations

import sys
from pathlib import Path

import pytest
from my_devices import Lamp

from pytest_openscope import Acquisition, Experiment

pytestmark = pytest.mark.acquisition


def test_stimulus(acquisition: Acquisition, experiment: Experiment, lamp: Lamp, trials: int) -> None:
    script = Path(__file__).with_name("stimulus.py")
    table = experiment.session_folder / "trials.csv"
    acquisition.run(command=[sys.executable, str(script), "--trials", str(trials), str(table)], timeout_s=60)
