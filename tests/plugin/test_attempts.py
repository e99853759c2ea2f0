"""Steps that are tried again: by their own attempts, by a parameter file's, by pytest-rerunfailures."""

from __future__ import annotations

import json
from typing import Any

import pytest

STEPS = """
def tries(name):
    with open(f"{name}.txt", "a") as file:
        file.write("x")
    return len(open(f"{name}.txt").read())

@pytest.fixture(scope="session")
def laser():
    tries("laser")
    yield
    tries("laser_off")

@pytest.fixture
def stage():
    tries("stage")
    yield
    tries("stage_home")

@pytest.mark.pre_acquisition(MARK)
def test_water(experiment):
    experiment.measure("water", 3 if tries("water") < 3 else 30, minimum=10)

@pytest.mark.acquisition(MARK)
def test_record(acquisition, laser, stage):
    code = f"import sys; print('try'); sys.exit({3 if tries('record') < 2 else 0})"
    acquisition.run(command=[sys.executable, "-c", code], name="camera")

@pytest.mark.post_acquisition
def test_save(): tries("save")
"""


def count(bench: Any, name: str) -> int:
    path = bench.path / f"{name}.txt"
    return len(path.read_text()) if path.exists() else 0


@pytest.mark.parametrize(
    ("mark", "flags"),
    [
        ("attempts=3, retry_delay_s=0.01", ()),
        ("", ("-p", "pytest_rerunfailures", "--reruns", "2")),
    ],
    ids=["own", "rerunfailures"],
)
def test_the_last_attempt_decides_and_every_one_is_on_record(bench: Any, mark: str, flags: tuple[str, ...]) -> None:
    bench.steps(STEPS.replace("MARK", mark))
    result = bench.run_here(*flags, "-rR")
    assert result.ret == 0
    assert bench.end["outcome"] == "passed"
    assert bench.end["failures"] == []
    assert not bench.has_debug
    result.assert_outcomes(passed=3)
    assert "3 rerun" in result.stdout.str()
    steps = {step["name"]: step for step in bench.end["steps"]}
    water, record = steps["test_water"], steps["test_record"]
    assert [(one["attempt"], one["outcome"]) for one in water["attempts"]] == [(1, "failed"), (2, "failed")]
    assert "water = 3 is not at least 10" in water["attempts"][0]["message"]
    assert [(one["attempt"], one["outcome"]) for one in record["attempts"]] == [(1, "failed")]
    assert steps["test_save"]["attempts"] == []
    assert "ERROR pre_acquisition test_water" in bench.messages
    assert "INFO pre_acquisition test_water pytest_openscope.steps attempt 3: " in bench.messages
    # Fixtures of function scope are made anew; the laser stays on, or is at least off at the end.
    assert (count(bench, "stage"), count(bench, "stage_home")) == (2, 2)
    assert count(bench, "laser") == count(bench, "laser_off")
    assert count(bench, "laser") == 1 or flags
    names = [facts["name"] for facts in bench.end["acquisitions"]]
    assert names == ["camera", "camera.attempt-2"]
    for name in names:
        assert (bench.folder / "launcher_metadata" / "acquisition" / f"{name}.stdout.log").read_text() == "try\n"


def test_when_no_attempt_passes_the_last_one_is_the_failure(bench: Any) -> None:
    bench.steps(
        STEPS.replace("MARK", "attempts=2").replace("< 3", "< 9")
        + "\n@pytest.mark.pre_acquisition(attempts=3, retry_on=TimeoutError)\n"
        + "def test_other(): tries('other'); raise ValueError('no')\n"
    )
    result = bench.run_here("-x")
    assert result.ret == 1
    assert [failure["step"] for failure in bench.end["failures"]] == ["test_water"]
    outcomes = bench.outcomes()
    assert outcomes["test_water"] == "failed"
    assert outcomes["test_record"].startswith("skipped: pre_acquisition step 'test_water' failed")
    assert (count(bench, "water"), count(bench, "other"), count(bench, "save")) == (2, 0, 0)


def test_only_the_errors_that_are_named_and_never_an_interrupt(bench: Any) -> None:
    bench.steps(
        """
def tries(name):
    with open(f"{name}.txt", "a") as file:
        file.write("x")

@pytest.mark.pre_acquisition(attempts=3, retry_on=(TimeoutError, KeyError), on_failure="continue")
def test_value(): tries("value"); raise ValueError("no")

@pytest.mark.pre_acquisition(attempts=3, retry_on=(TimeoutError, KeyError), on_failure="continue")
def test_key(): tries("key"); {}["no"]

@pytest.mark.pre_acquisition(attempts=2, retry_on=TimeoutError, on_failure="continue")
@pytest.mark.timeout(0.3)
def test_slow(): tries("slow"); time.sleep(30)

@pytest.mark.acquisition(attempts=3)
def test_record(): tries("record"); signal_me(); time.sleep(30)

@pytest.mark.post_acquisition
def test_save(): tries("save")
"""
    )
    assert bench.run().ret == 2
    assert {name: count(bench, name) for name in ("value", "key", "slow", "record", "save")} == {
        "value": 1,
        "key": 3,
        "slow": 2,
        "record": 1,
        "save": 1,
    }
    assert bench.outcomes()["test_record"] == "interrupted"


def test_an_interrupt_while_it_waits_ends_the_attempts(bench: Any) -> None:
    bench.steps(
        """
@pytest.mark.acquisition(attempts=3, retry_delay_s=60)
def test_record():
    threading.Timer(0.5, signal_me).start()
    assert False, "no signal"
"""
    )
    assert bench.run().ret == 2
    assert bench.end["outcome"] == "interrupted"
    assert bench.outcomes()["test_record"] == "failed"
    assert bench.end["failures"][0]["message"].startswith("no signal")


def test_entries_of_a_parameter_file(bench: Any) -> None:
    module = "from pathlib import Path\ndef run():\n    path = Path('tries.txt')\n"
    module += "    path.write_text((path.read_text() if path.exists() else '') + 'x')\n    return len(path.read_text()) > 1\n"
    bench.write("make.py", module)
    entry = {"module_type": "script_module", "module_path": "make.py", "attempts": 3, "on_failure": "abort"}
    bench.write("day1.json", json.dumps({"pre_acquisition_pipeline": [entry]}))
    result = bench.run_here("day1.json")
    assert result.ret == 0
    (step,) = [step for step in bench.end["steps"] if step["name"] == "make"]
    assert [one["message"] for one in step["attempts"]] == ["the module returned False"]
    bench.write("day2.json", json.dumps({"pre_acquisition_pipeline": [{**entry, "attempts": 0, "retry_delay_s": "soon"}]}))
    refused = bench.run_here("day2.json").stderr.str()
    assert "pre_acquisition_pipeline[0].attempts" in refused
    assert "pre_acquisition_pipeline[0].retry_delay_s" in refused


@pytest.mark.parametrize(
    "given", ["attempts=0", "attempts='3'", "attempts=True", "attempts=2, retry_delay_s=-1", "retry_on='OSError'"]
)
def test_a_wrong_retry_is_a_usage_error(bench: Any, given: str) -> None:
    bench.steps(f"@pytest.mark.acquisition({given})\ndef test_record(): pass\n")
    result = bench.run_here()
    assert result.ret == 4
    assert f"test_record: @pytest.mark.acquisition({given.split(', ')[-1]}) -> give " in result.stderr.str()
    assert not bench.folders


def test_another_steps_timeout_does_not_count_for_a_later_attempt(bench: Any) -> None:
    bench.steps(
        """
@pytest.mark.pre_acquisition
@pytest.mark.timeout(0.3)
def test_quick(): pass

@pytest.mark.acquisition(attempts=2)
def test_record():
    first = not os.path.exists("tried")
    open("tried", "w").close()
    assert not first
    time.sleep(1)
"""
    )
    assert bench.run().ret == 0
    assert bench.outcomes()["test_record"] == "passed"
