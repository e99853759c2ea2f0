from __future__ import annotations

import shutil

import pytest
from my_devices import Lamp

from pytest_openscope import Experiment, Operator, Rig

pytestmark = pytest.mark.pre_acquisition  # a failure here skips the acquisition


def test_disk_space(experiment: Experiment) -> None:
    free_gb = shutil.disk_usage(experiment.session_folder).free / 1e9
    experiment.measure("free_disk", round(free_gb, 1), unit="GB", minimum=0.1)


def test_lamp_power(lamp: Lamp, rig: Rig, experiment: Experiment) -> None:
    wanted_mw = rig["lamp_power_mw"]
    experiment.measure("lamp_power", lamp.read_power_mw(), unit="mW", minimum=0.9 * wanted_mw, maximum=1.1 * wanted_mw)


@pytest.mark.pre_acquisition(on_failure="continue")
def test_animal_weight(operator: Operator, experiment: Experiment) -> None:
    if not operator.available:
        pytest.skip("nobody is there to weigh the animal")
    experiment.measure("weight", float(operator.ask("Weight of the animal in g?", "25")), unit="g", minimum=10, maximum=60)
