from __future__ import annotations

import pytest
from count_trials import count

from pytest_openscope import Experiment

pytestmark = pytest.mark.post_acquisition  # runs whatever happened in the acquisition


def test_trials_are_complete(experiment: Experiment, trials: int) -> None:
    if experiment.dry_run:
        pytest.skip("a dry run acquires nothing")
    table = experiment.session_folder / "trials.csv"
    experiment.attach(table)
    experiment.measure("trials", count(table), minimum=trials, maximum=trials)


def test_say_how_it_went(experiment: Experiment) -> None:
    experiment.note(f"{experiment.subject_id}: {experiment.outcome}, {len(experiment.failures)} failures")
