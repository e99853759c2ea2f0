"""Experiments as pytest sessions, seen from outside."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import warm
from share_kit import processes_of, use_share

ALL_PHASES = """
@pytest.mark.post_acquisition
def test_post(experiment):
    print("post saw", experiment.outcome)

@pytest.fixture
def stage():
    logging.getLogger("lab.stage").info("stage moves")
    yield
    logging.getLogger("lab.stage").info("stage parks")

def test_acquire(acquisition, stage):
    facts = acquisition.run(command=[sys.executable, "-c", "print('frame 1'); print('frame 2')"])
    assert facts.returncode == 0

@pytest.mark.pre_acquisition
def test_check(rig, experiment):
    experiment.measure("free disk", 30, unit="GB", minimum=10)
    logging.getLogger("lab").info("two\\nlines")
    warnings.warn("old driver")
"""


def test_a_whole_session(bench: Any) -> None:
    bench.steps(ALL_PHASES)
    result = bench.run()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["outcome: passed", f"session folder: {bench.folder}"])
    assert bench.outcomes() == {"test_check": "passed", "test_acquire": "passed", "stage": "passed", "test_post": "passed"}
    end = bench.end
    assert (end["outcome"], end["subject_id"], end["user_id"], end["rig_id"]) == ("passed", "mouse7", "ada", "bench")
    assert end["stop_time"] > end["start_time"]
    assert end["process_returncode"] == 0
    assert end["mirror"]["status"] == "off"
    assert not bench.has_debug
    for name in ("input_parameters", "processed_parameters", "command_line_arguments", "git_revisions"):
        assert bench.metadata(f"{name}.json") is not None
    # The log has everything, in order.
    entries = bench.log
    assert [entry.timestamp for entry in entries] == sorted(entry.timestamp for entry in entries)
    text = bench.messages
    assert "INFO pre_acquisition test_check lab two\nlines" in text
    assert "WARNING pre_acquisition test_check py.warnings UserWarning: old driver" in text
    assert "INFO acquisition test_acquire acquisition.python.stdout frame 2" in text
    assert "INFO pre_acquisition stage lab.stage stage moves" in text
    assert "INFO post_acquisition stage lab.stage stage parks" in text
    assert "INFO post_acquisition test_post stdout post saw passed" in text
    assert "free disk = 30 GB" in text
    assert entries[-1].message.startswith("outcome: passed")


def test_files_that_cannot_be_run_are_told_before_the_session_folder_exists(bench: Any) -> None:
    bench.write("test_day1.py", "def test_it(): pass\n")
    bench.write("day1.yaml", "subject_id: mouse7\n")
    result = bench.run_here("test_day2.py::test_it", "test_day1.py::test_it[a/b]", "day1.yaml", "nowhere/test_day1.py")
    assert result.ret == 4
    message = result.stderr.str()
    assert "3 mistakes, nothing was started" in message
    assert "test_day2.py: there is no such file -> did you mean test_day1.py?" in message
    assert "day1.yaml: a parameter file given like this is JSON -> rename or convert it, or give --params day1.yaml" in message
    assert "nowhere/test_day1.py: there is no such file -> mend the path" in message
    assert not (bench.path / "sessions").exists()


def test_modules_folders_and_what_others_collect_are_no_missing_files(bench: Any) -> None:
    bench.write("rounds/test_day1.py", "def test_it(): pass\n")
    bench.write("labtests/__init__.py", "")
    bench.write("labtests/test_day2.py", "def test_it(): pass\n")
    bench.write("plan.yaml", "")
    bench.write(
        "conftest.py",
        "import pytest\n"
        "class Plan(pytest.File):\n"
        "    def collect(self): return [Line.from_parent(self, name='line')]\n"
        "class Line(pytest.Item):\n"
        "    def runtest(self): pass\n"
        "def pytest_collect_file(file_path, parent):\n"
        "    if file_path.suffix == '.yaml': return Plan.from_parent(parent, path=file_path)\n",
    )
    result = bench.run_here("--pyargs", "rounds", "labtests.test_day2", "plan.yaml")
    assert result.ret == 0, result.stderr.str()
    result.assert_outcomes(passed=3)
    result = bench.run_here("--pyargs", "rounds", "labtest")
    assert (result.ret, len(bench.folders)) == (4, 1)
    assert "labtest: there is no such file -> did you mean labtests?" in result.stderr.str()


def test_a_misspelt_phase_is_refused_before_any_step(bench: Any) -> None:
    bench.steps(
        "@pytest.mark.pre_aquisition\ndef test_shutter(): open('ran', 'w')\n"
        "@pytest.mark.acquisition_rack\ndef test_rack(): open('ran', 'w')\n"
    )
    bench.write("pytest.ini", "[pytest]\nmarkers =\n    acquisition_rack(bay): where it stands\n")
    result = bench.run_here("-m", "acquisition_rack")
    assert result.ret == 4
    (told,) = [line for line in result.stderr.lines if line.startswith("ERROR")]
    assert "test_experiment.py::test_shutter: @pytest.mark.pre_aquisition is no phase of an experiment" in told
    assert "-> write @pytest.mark.pre_acquisition, or register the mark" in told
    assert not (bench.path / "ran").exists()
    assert not bench.folders


def test_a_file_that_cannot_be_imported_is_named_with_its_line(bench: Any) -> None:
    bench.write("days/test_day1.py", "def test_it(): pass\n\ndef test_that(:\n")
    bench.write("days/test_day2.py", "def test_it(): pass\nopenscope_has_no_such_name\n")
    bench.write("days/test_day3.py", "import no_such_driver\n")
    bench.write("days/test_day4.py", "def test_it(frames): pass\ntest_it.pytestmark = 3\n")
    result = bench.run_here()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["first failure: days/test_day1.py cannot be imported: SyntaxError: * (line 3)"])
    told = [failure["message"] for failure in bench.end["failures"]][1:4]
    assert told[0].startswith("days/test_day2.py cannot be imported: NameError: name 'openscope_has_no_such_name'")
    assert told[0].endswith("(line 2)")
    assert told[1] == "days/test_day3.py cannot be imported: ModuleNotFoundError: No module named 'no_such_driver' (line 1)"
    assert told[2].startswith("days/test_day4.py cannot be collected: ")


def test_measurements_in_the_log_and_in_the_failure(bench: Any) -> None:
    bench.steps(
        "def test_frames(experiment): experiment.measure('frames', 60)\n"
        "def test_dropped(experiment): experiment.measure('dropped', 9, 'frames', maximum=5)\n"
        "def test_memory(experiment): experiment.measure('peak_memory', None, 'MB', maximum=2000)\n"
    )
    bench.run_here()
    said = [entry.message for entry in bench.log if entry.logger == "pytest_openscope.measurements"]
    assert said == ["frames = 60", "dropped = 9 frames (allowed: at most 5)", "peak_memory = None MB (allowed: at most 2000)"]
    dropped, memory = (failure["message"] for failure in bench.end["failures"])
    assert dropped == "dropped = 9 frames is not at most 5"
    assert memory == "peak_memory is None, not a number (allowed: at most 2000)"


def test_tracebacks_show_the_step_and_not_the_plugin(bench: Any) -> None:
    bench.steps(
        "def look(): signal.raise_signal(signal.SIGINT); time.sleep(9)\n"
        "def test_frames(experiment): experiment.measure('frames', 3, minimum=5)\n"
        "def test_attach(experiment): experiment.attach('nothing.txt')\n"
        "def test_program(acquisition): acquisition.run([sys.executable, '-c', 'raise SystemExit(3)'])\n"
        "@pytest.mark.timeout(0.2)\n"
        "def test_late(acquisition): acquisition.run([sys.executable, '-c', 'import time; time.sleep(9)'])\n"
        "def test_stopped(experiment): look()\n"
    )
    result = bench.run("-rN")
    told = result.stdout.str()
    assert told.count("   def test_") == 5
    assert "def look" in told
    assert not re.search(r"pytest_openscope[/\\]\w", told)
    assert "E   KeyboardInterrupt" not in told
    assert [step["outcome"] for step in bench.end["steps"]] == ["failed", "failed", "failed", "timeout", "interrupted"]
    # The files keep the whole way.
    assert "in look" in bench.end["failures"][-1].get("traceback", "") + bench.messages


def test_a_session_timeout_that_its_thread_did_not_see_ends_one_step(bench: Any) -> None:
    """What a call that holds the GIL can do: the step is found overdue before the watching thread has run at all."""
    bench.write("conftest.py", "from pytest_openscope.session.interrupts import Watchdog\nWatchdog._run = lambda self: None\n")
    # The step must have begun before the time is over; where a process does not start as a fork, that takes longer.
    limit_s = 10 if sys.platform == "win32" else 0.5
    rig = "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\n"
    bench.write("rig.yaml", f"{rig}session_timeout: {limit_s}\n")
    bench.steps(
        f"def test_slow(): time.sleep({limit_s} + 0.1)\n"
        "def test_next(): pass\n@pytest.mark.post_acquisition\ndef test_save(): pass\n"
    )
    assert bench.run().ret == 1
    outcomes = bench.outcomes()
    assert (outcomes["test_slow"], outcomes["test_save"]) == ("timeout", "passed")
    assert outcomes["test_next"].startswith("skipped: session timeout")
    assert [failure["kind"] for failure in bench.end["failures"]] == ["timeout"]


def test_the_log_begins_with_what_there_is(bench: Any) -> None:
    bench.steps("def test_acquire(): pass\n")
    bench.run_here()
    told = [entry.message for entry in bench.log]
    assert f"rig configuration {bench.path / 'rig.yaml'}" in told
    assert not [line for line in told if " None" in line or line.startswith(("script", "repository"))]
    repository = (
        "parameters: {repository_url: 'https://host/lab.git', repository_commit_hash: abc123, local_repository_path: r}\n"
    )
    rig = (bench.path / "rig.yaml").read_text(encoding="utf-8")
    bench.write("rig.yaml", rig.replace("sessions", "others") + repository)
    bench.run_here("--dry-run")
    (folder,) = (bench.path / "others" / "dry_runs").iterdir()
    log = (folder / "launcher_metadata" / "launcher.log").read_text(encoding="utf-8")
    assert "repository https://host/lab.git at abc123" in log


def test_without_a_rig_the_plugin_is_inert(bench: Any) -> None:
    bench.write(
        "test_plain.py",
        "import sys\ndef test_it():\n    assert 'pytest_openscope.session.session' not in sys.modules\n"
        "    assert 'yaml' not in sys.modules\n    assert 'psutil' not in sys.modules\n",
    )
    result = bench.run("test_plain.py", rig=False, fresh=True)
    result.assert_outcomes(passed=1)
    assert not bench.folders


@pytest.mark.parametrize("option", ["--collect-only", "--help", "--fixtures", "--markers", "--setup-plan", "--version"])
def test_informational_options_create_nothing(bench: Any, option: str) -> None:
    bench.steps("def test_acquire(): pass\n")
    before = {path.name for path in bench.path.iterdir()}
    result = bench.run_here(option, ids=False)
    assert result.ret == 0
    assert {path.name for path in bench.path.iterdir()} - before <= {"__pycache__", ".pytest_cache", "stdout", "stderr"}


def test_fixtures_are_documented(bench: Any) -> None:
    output = bench.run_here("--fixtures", ids=False).stdout.str()
    for name in ("rig", "experiment", "acquisition", "devices", "operator"):
        assert f"\n{name} [session scope]" in output


def test_a_failed_pre_acquisition_step_keeps_the_acquisition_from_starting(bench: Any) -> None:
    bench.steps(
        "@pytest.mark.pre_acquisition\ndef test_shutter(): assert False, 'shutter stuck'\n"
        "def test_acquire(): pass\n@pytest.mark.post_acquisition\ndef test_post(): pass\n"
    )
    result = bench.run_here()
    assert result.ret == 1
    outcomes = bench.outcomes()
    assert outcomes["test_shutter"] == "failed"
    assert outcomes["test_acquire"] == "skipped: pre_acquisition step 'test_shutter' failed"
    assert outcomes["test_post"].startswith("skipped: no acquisition took place")
    debug = bench.debug
    assert debug["exception"].startswith("shutter stuck")
    assert (debug["phase"], debug["step"]) == ("pre_acquisition", "test_shutter")
    assert "test_experiment.py" in debug["traceback"]
    assert "pytest" in {name.lower() for name in debug["versions"]}
    result.stdout.fnmatch_lines(["outcome: failed", "first failure: pre_acquisition step test_shutter: shutter stuck*"])


def test_continue_lets_the_acquisition_run(bench: Any) -> None:
    bench.steps(
        "@pytest.mark.pre_acquisition(on_failure='continue')\ndef test_shutter(): assert False\ndef test_acquire(): pass\n"
    )
    assert bench.run_here().ret == 1
    assert bench.outcomes() == {"test_shutter": "failed", "test_acquire": "passed"}


def test_prompt_without_an_operator_aborts(bench: Any) -> None:
    bench.steps(
        "@pytest.mark.pre_acquisition(on_failure='prompt')\ndef test_shutter(): assert False\ndef test_acquire(): pass\n"
    )
    bench.run_here()
    assert bench.outcomes()["test_acquire"].startswith("skipped")


def test_a_wrong_policy_is_a_usage_error(bench: Any) -> None:
    bench.steps("@pytest.mark.pre_acquisition(on_failure='abbort')\ndef test_shutter(): pass\n")
    result = bench.run_here()
    assert result.ret == 4
    assert "abbort" in result.stderr.str()
    assert not bench.folders


@pytest.mark.parametrize("option", ["-x", "--maxfail=1", "--stepwise"])
def test_post_acquisition_runs_whatever_pytest_would_skip(bench: Any, option: str) -> None:
    bench.steps(
        "def test_acquire(): assert False\ndef test_acquire_more(): pass\n"
        "@pytest.mark.post_acquisition\ndef test_save(): pass\n"
    )
    assert bench.run_here(option).ret in (1, 2)
    outcomes = bench.outcomes()
    assert outcomes["test_save"] == "passed"
    assert outcomes.get("test_acquire_more", "skipped").startswith("skipped")


def test_a_failing_fixture_of_an_acquisition_step_is_a_pre_acquisition_failure(bench: Any) -> None:
    bench.steps(
        "@pytest.fixture\ndef laser():\n    raise OSError('laser is off')\n    yield\n"
        "def test_acquire(laser): pass\ndef test_more(): pass\n"
    )
    assert bench.run_here().ret == 1
    assert (bench.end["outcome"], bench.debug["phase"], bench.debug["step"]) == ("error", "pre_acquisition", "laser")
    assert bench.outcomes()["test_more"].startswith("skipped")


def test_a_failing_teardown_is_post_acquisition(bench: Any) -> None:
    bench.steps(
        "@pytest.fixture\ndef laser():\n    yield\n    raise OSError('laser stays on')\ndef test_acquire(laser): pass\n"
    )
    assert bench.run_here().ret == 1
    assert (bench.debug["phase"], bench.debug["step"]) == ("post_acquisition", "laser")


def test_limits_of_measurements(bench: Any) -> None:
    bench.steps("def test_acquire(experiment):\n    experiment.measure('frames', 41, minimum=60)\n")
    assert bench.run_here().ret == 1
    (measurement,) = bench.end["measurements"]
    assert (measurement["name"], measurement["value"], measurement["passed"]) == ("frames", 41, False)
    assert "frames = 41 is not at least 60" in bench.debug["exception"]


def test_notes_and_attachments(bench: Any, tmp_path: Path) -> None:
    outside = tmp_path / "frame.png"
    outside.write_bytes(b"png")
    bench.steps(
        "def test_acquire(experiment):\n    experiment.note('animal calm')\n"
        f"    (experiment.session_folder / 'a.txt').write_text('x')\n    experiment.attach('a.txt')\n"
        f"    experiment.attach({str(outside)!r})\n    experiment.attach({str(outside)!r})\n"
    )
    assert bench.run_here().ret == 0
    assert bench.end["notes"] == ["animal calm"]
    assert bench.end["attachments"] == ["a.txt", "attachments/frame.png", "attachments/frame[2].png"]


def test_selection_and_parametrisation(bench: Any) -> None:
    bench.steps(
        "class TestRun:\n    pytestmark = pytest.mark.acquisition\n"
        "    @pytest.mark.parametrize('gain', [1, 2])\n    def test_gain(self, gain): pass\n"
        "@pytest.mark.pre_acquisition\ndef test_check(): pass\n"
    )
    assert bench.run_here("-k", "gain").ret == 0
    assert bench.outcomes() == {"TestRun.test_gain[1]": "passed", "TestRun.test_gain[2]": "passed"}
    assert bench.end["deselected"] == ["test_experiment.py::test_check"]


def test_no_step_is_an_error(bench: Any) -> None:
    bench.steps("")
    assert bench.run_here().ret == 5
    assert bench.end["outcome"] == "error"


def test_a_collection_error(bench: Any) -> None:
    bench.steps("import no_such_module\n")
    assert bench.run_here().ret == 2
    assert bench.end["outcome"] == "error"
    assert "no_such_module" in bench.debug["exception"] + bench.debug["traceback"]


def test_missing_ids_are_named(bench: Any) -> None:
    bench.steps("def test_acquire(): pass\n")
    result = bench.run_here("--no-input", ids=False)
    assert result.ret == 4
    assert "subject_id" in result.stderr.str()
    assert "user_id" in result.stderr.str()
    assert "--subject-id" in result.stderr.str()
    assert "openscope_subject_id in pytest.ini" in result.stderr.str()
    assert not (bench.path / "sessions").exists()


def test_all_mistakes_at_once(bench: Any) -> None:
    bench.write("rig.yaml", "rig_idd: bench\noutput_root_folder: [1]\n")
    bench.write("day1.json", '{"launcher": "pythn", "log_level": "LOUD"}')
    bench.steps("def test_acquire(): pass\n")
    result = bench.run_here("day1.json")
    text = result.stderr.str()
    assert result.ret == 4
    assert "Traceback" not in text
    for part in ("rig.yaml", "rig_id", "output_root_folder", "launcher", "log_level"):
        assert part in text
    assert not (bench.path / "sessions").exists()


def test_xdist_is_refused(bench: Any) -> None:
    bench.steps("def test_acquire(): pass\n")
    result = bench.run_here("-p", "xdist", "-n", "2")
    assert result.ret == 4
    assert "xdist" in result.stderr.str()


def test_two_sessions_in_one_second_have_two_folders(bench: Any) -> None:
    bench.steps("def test_acquire(): pass\n")
    processes = [bench.start("--dry-run") for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(bench.folders) == 3


def test_a_given_name_that_exists_is_refused(bench: Any) -> None:
    bench.steps("def test_acquire(): pass\n")
    assert bench.run_here("--param", "session_uuid=day1").ret == 0
    result = bench.run_here("--param", "session_uuid=day1")
    assert result.ret == 4
    assert "day1" in result.stderr.str()
    assert len(bench.folders) == 1


def test_one_session_per_rig(bench: Any) -> None:
    bench.steps("def test_acquire(experiment):\n    while not os.path.exists('go'): time.sleep(0.02)\n")
    first = bench.start()
    try:
        bench.wait_for(lambda: bench.folders)
        bench.wait_for(lambda: "step started" in bench.messages)
        refused = bench.run()
        assert refused.ret == 4
        assert f"pid {first.pid}" in refused.stderr.str()
        assert bench.folder.name in refused.stderr.str()
        second = bench.start("--wait-for-rig", "30")
        (bench.path / "go").touch()
        assert first.wait(30) == 0
        assert second.wait(30) == 0
    finally:
        first.kill()
    assert len(bench.folders) == 2


def test_a_parameter_file_is_an_experiment(bench: Any) -> None:
    bench.write("record.py", "print('frame 1')\n")
    bench.write(
        "check.py", "import logging\ndef run_post_acquisition(params):\n    logging.info('saw %s', params['subject_id'])\n"
    )
    parameters = {
        "launcher": "python",
        "script_path": "record.py",
        "pre_acquisition_pipeline": ["example_pre_acquisition_module"],
        "post_acquisition_pipeline": [{"module_type": "script_module", "module_path": "check.py"}],
    }
    bench.write("day1.json", json.dumps(parameters))
    result = bench.run_here("day1.json", "-v")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "day1.json::pre_acquisition::example_pre_acquisition_module PASSED*",
            "day1.json::acquisition::record PASSED*",
            "day1.json::post_acquisition::check PASSED*",
        ]
    )
    assert "frame 1" in bench.messages
    assert "saw mouse7" in bench.messages


def test_entries_can_be_selected_and_fail_with_their_policy(bench: Any) -> None:
    bench.write("bad.py", "def run(params): return False\n")
    entry = {"module_type": "script_module", "module_path": "bad.py", "on_failure": "abort"}
    bench.write("day1.json", json.dumps({"pre_acquisition_pipeline": [entry], "launcher": "base"}))
    assert bench.run_here("day1.json").ret == 1
    assert bench.outcomes() == {"bad": "failed", "acquisition": "skipped: pre_acquisition step 'bad' failed"}
    assert bench.debug["kind"] == "step"
    assert bench.run_here("--co", "-q", "day1.json::acquisition").stdout.str().count("day1.json::") == 1


def test_a_dry_run_refuses_what_the_rig_refuses(bench: Any) -> None:
    """Otherwise CI is green and the operator is stopped."""
    script = {"module_type": "script_module", "module_path": "gone.py"}
    content = {"pre_acquisition_pipeline": ["disk_space_chek", script], "launcher": "python", "script_path": "run.py"}
    bench.write("day1.json", json.dumps(content))
    real, dry = bench.run_here("day1.json"), bench.run_here("--dry-run", "day1.json")
    assert (real.ret, dry.ret) == (4, 4)
    assert real.stderr.str() == dry.stderr.str()
    assert dry.stderr.str().startswith("ERROR: 3 mistakes, nothing was started:")
    for words in ("did you mean 'disk_space_check'?", "there is no gone.py", "script_path: there is no run.py"):
        assert words in dry.stderr.str()
    assert not bench.folders


def test_what_cannot_be_known_in_a_dry_run_is_listed_and_refused_by_strict(bench: Any) -> None:
    script = {"module_type": "script_module", "module_path": "code/make.py"}
    content = {"pre_acquisition_pipeline": ["colour_calibration_2031", script], "repository_url": "https://host/lab.git"}
    bench.write("day1.json", json.dumps({**content, "local_repository_path": "repositories"}))
    result = bench.run_here("--dry-run", "day1.json")
    assert result.ret == 0
    listed = bench.end["not_checked"]
    words = ("repositories/lab is not cloned on this computer", "colour_calibration_2031", "code/make.py")
    assert [[word in text for word in words] for text in listed] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    for text in listed:
        assert f"not checked here: {text}" in result.stdout.str().replace(" (--strict makes it a mistake)", "")
    assert bench.end["simulated"] == ["repository", "colour_calibration_2031", "make", "acquisition"]
    strict = bench.run_here("--dry-run", "--strict", "day1.json")
    assert strict.ret == 4
    for words in ("colour_calibration_2031", "code/make.py", "repository_url"):
        assert words in strict.stderr.str()


def test_values_from_a_file_and_phases_from_tests(bench: Any) -> None:
    bench.write("day1.json", json.dumps({"gain": 4, "note_path": "{output_session_folder}\\notes\\n.txt"}))
    bench.steps(
        "def test_acquire(experiment):\n    assert experiment.parameters['gain'] == 4\n"
        "    print(experiment.parameters['note_path'])\n"
    )
    assert bench.run_here("--params", "day1.json").ret == 0
    assert str(bench.folder / "notes" / "n.txt") in bench.messages


@pytest.mark.parametrize(
    "flags", [["-s"], ["-p", "no:logging"], ["--log-cli-level=DEBUG"], ["--capture=sys"], ["--capture=tee-sys"]]
)
def test_capture_modes_change_nothing_in_the_log(bench: Any, flags: list[str]) -> None:
    bench.steps("def test_acquire():\n    print('printed'); logging.getLogger('lab').info('logged')\n")
    assert bench.run(*flags).ret == 0
    assert "stdout printed" in bench.messages
    assert "lab logged" in bench.messages


def test_caplog_keeps_its_meaning(bench: Any) -> None:
    bench.steps(
        "def test_default(caplog):\n    logging.getLogger('a').info('quiet'); logging.getLogger('a').warning('loud')\n"
        "    assert caplog.messages == ['loud']\n"
        "def test_set(caplog):\n    caplog.set_level(logging.DEBUG)\n    logging.getLogger('a').debug('deep')\n"
        "    assert caplog.messages == ['deep']\n"
    )
    assert bench.run().ret == 0
    assert "a quiet" in bench.messages


HOSTILE = [
    "logging.getLogger().handlers.clear()",
    "logging.shutdown()",
    "logging.basicConfig(force=True)",
    "logging.getLogger().handlers[:] = [logging.NullHandler()]",
    "logging.config.dictConfig({'version': 1})",
    "os.close(2)",
    "sys.stdout.close()",
]


def test_the_log_survives_hostile_steps(bench: Any) -> None:
    """Each of them, and then all that came before: a step after each one finds the log whole."""
    steps = "".join(
        f"def test_hostile_{number}():\n    {hostile}\n    logging.getLogger('lab.{number}').info('still there')\n"
        f"def test_after_{number}():\n    logging.getLogger('lab.{number}').info('after')\n"
        for number, hostile in enumerate(HOSTILE)
    )
    bench.steps(f"import logging.config\n{steps}@pytest.mark.post_acquisition\ndef test_save(): pass\n")
    assert bench.run().ret == 0
    assert bench.end["outcome"] == "passed"
    assert set(bench.outcomes().values()) == {"passed"}
    assert not bench.has_debug
    for number, hostile in enumerate(HOSTILE):
        # A logger of its own, since dictConfig() turns off those that are there.
        assert f"lab.{number} still there" in bench.messages, hostile
        assert f"lab.{number} after" in bench.messages, hostile
    assert bench.log[-1].message.startswith("outcome: passed")
    bench.wait_for(lambda: not processes_of(bench.path))


def test_uncaught_exceptions_are_in_the_log(bench: Any) -> None:
    bench.steps(
        "class Broken:\n    def __del__(self): raise ValueError('in del')\n"
        "def test_acquire():\n    thread = threading.Thread(target=lambda: 1 / 0)\n"
        "    thread.start()\n    thread.join()\n    Broken()\n"
    )
    bench.run()
    assert "ZeroDivisionError" in bench.messages
    assert "in del" in bench.messages


def test_an_interrupt_at_the_first_question_starts_nothing_and_says_so(bench: Any) -> None:
    bench.steps("def test_acquire():\n    pass\n")
    import pty

    leader, follower = pty.openpty()
    command = [part for part in bench.command(ids=False) if part != "--no-input"]
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    process = warm.start(command, cwd=bench.path, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    seen, pressed = b"", False
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        # Python's readline misses a signal that comes between its prompt and its wait: as a user would, press again.
        # A second one while it leaves would end it before its last words.
        if select.select([leader], [], [], 5.0)[0]:
            try:
                data = os.read(leader, 4096)
            except OSError:
                break
            seen += data
            if not data:
                break
        elif process.poll() is not None:
            break
        else:
            pressed = False
        if b"subject_id:" in seen and not pressed:
            pressed = True
            process.send_signal(signal.SIGINT)
    os.close(leader)
    assert process.wait(20) == 2
    assert b"openscope: interrupted before the session began; nothing was started" in seen
    assert not list(bench.path.glob("sessions/*"))


def test_secrets_never_reach_the_session_folder(bench: Any) -> None:
    bench.write("rig.yaml", "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\napi_token: hunter2hunter2\n")
    bench.steps("def test_acquire(rig):\n    print('using', rig['api_token'])\n    assert False, rig['api_token']\n")
    bench.run_here()
    for path in bench.folder.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path


def test_questions_on_a_terminal(bench: Any) -> None:
    bench.steps(
        "def test_acquire(operator):\n    assert operator.ask('Weight in g?') == '21.5'\n    assert input('ready? ') == 'yes'\n"
    )
    import pty

    leader, follower = pty.openpty()
    command = [part for part in bench.command(ids=False) if part != "--no-input"]
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    process = warm.start(command, cwd=bench.path, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    seen = everything = b""
    answers = [
        (b"subject_id:", b"mouse9\n"),
        (b"user_id:", b"eve\n"),
        (b"Weight in g?", b"21.5\n"),
        (b"ready?", b"yes\n"),
        (b"Notes on this session", b"calm animal\n"),
        (b"...", b"\n"),
    ]
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        try:
            data = os.read(leader, 4096)
        except OSError:
            break
        seen, everything = seen + data, everything + data
        while answers and answers[0][0] in seen:
            question, answer = answers.pop(0)
            seen = seen.split(question, 1)[1]
            os.write(leader, answer)
    assert process.wait(20) == 0
    assert not answers
    for text in (b"test session starts", b"collected 1 item", b"outcome: passed"):
        assert text in everything.partition(b"user_id:")[2]
    assert bench.end["subject_id"] == "mouse9"
    assert bench.end["experiment_data"]["experiment_notes"] == "calm animal"
    assert "question: Weight in g?" in bench.messages
    assert "answer: 21.5" in bench.messages


def test_input_without_an_operator_is_the_end_of_file(bench: Any) -> None:
    bench.steps(
        "def test_acquire():\n    with pytest.raises(EOFError):\n        input('anyone? ')\n"
        "    assert sys.stdin.readline() == ''\n"
    )
    assert bench.run_here().ret == 0


def test_the_provisional_end_state_is_there_for_post_acquisition(bench: Any) -> None:
    bench.steps(
        "import json\ndef test_acquire(): pass\n@pytest.mark.post_acquisition\ndef test_save(experiment):\n"
        "    state = json.loads((experiment.session_folder / 'launcher_metadata/end_state.json').read_text())\n"
        "    assert state['stop_time'] is None and state['session_uuid'] == experiment.session_uuid\n"
    )
    assert bench.run_here().ret == 0


def test_pytest_main_in_process(bench: Any) -> None:
    bench.steps("def test_acquire(): pass\n")
    script = bench.write(
        "main.py",
        "import logging, os, pytest, sys\nbefore = (logging.getLogger().level, logging.Logger.callHandlers, os._exit)\n"
        "code = pytest.main(sys.argv[1:])\n"
        "assert before == (logging.getLogger().level, logging.Logger.callHandlers, os._exit)\nsys.exit(int(code))\n",
    )
    command = bench.command()
    result = warm.run([sys.executable, script, *command[3:]], cwd=bench.path)
    assert result.returncode == 0, result.stderr


def test_a_dry_run_touches_nothing_and_says_what_it_would_do(bench: Any) -> None:
    bench.steps(ALL_PHASES)
    result = bench.run_here("--dry-run")
    assert result.ret == 0
    assert bench.end["dry_run"] is True
    assert bench.folder.parent.name == "dry_runs"
    assert not (bench.path / "state" / "rig.lock").exists()
    assert "would have run" in bench.messages
    assert not any(entry.logger == "acquisition.python.stdout" for entry in bench.log)


def test_the_acquisition_can_be_echoed(bench: Any) -> None:
    bench.steps("def test_acquire(acquisition):\n    acquisition.run(command=[sys.executable, '-c', 'print(987000 + 123)'])\n")
    result = bench.run("--param", "acquisition_echo=true")
    assert "987123" in result.stdout.str()
    assert [entry.message for entry in bench.log].count("987123") == 1


def test_a_summary_that_fails_does_not_take_the_exit_code_with_it(bench: Any) -> None:
    bench.write("conftest.py", "import pytest_openscope.views.summary\npytest_openscope.views.summary._skipped = None\n")
    bench.steps("def test_acquire(): pass\n")
    result = bench.run()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["the summary could not be written:", "*TypeError*", "session folder: *", "*1 passed*"])
    assert bench.end["outcome"] == "passed"


def test_steps_run_as_plain_tests_say_what_is_missing(bench: Any) -> None:
    bench.steps("def test_acquire(experiment): pass\n")
    result = bench.run_here(rig=False, ids=False)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["openscope: this was no experiment, so there is no fixture 'experiment' -> add --rig-config RIG.yaml"]
    )
    assert not bench.folders


def test_an_empty_rig_option_is_no_plain_run(bench: Any) -> None:
    bench.steps("def test_acquire(): pass\n")
    result = bench.run_here("--rig-config", "", rig=False, ids=False)
    assert result.ret == 4
    assert "--rig-config: the path is empty" in result.stderr.str()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["test_experiment.py::test_b"], "not found: .*test_experiment.py::test_b"),
        (["day1"], "not found: .*day1"),
        (["test_misspelt.py"], "pre_aquisition is no phase.*write @pytest.mark.pre_acquisition"),
    ],
    ids=["test", "file", "marker"],
)
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["real", "dry"])
def test_a_mistake_on_the_command_line_leaves_no_session(
    bench: Any, arguments: list[str], told: str, dry_run: list[str]
) -> None:
    share = use_share(bench, bench.path / "share")
    share.mkdir()
    bench.write("day1", "notes")
    bench.write("test_misspelt.py", "import pytest\n@pytest.mark.pre_aquisition\ndef test_a(): pass\n")
    bench.steps("def test_a(): pass\n")
    result = bench.run_here(*arguments, *dry_run)
    assert result.ret == 4
    assert re.search(told, result.stdout.str() + result.stderr.str())
    assert "session folder" not in result.stdout.str()
    assert not (bench.path / "sessions").exists()
    assert not list(share.iterdir())
    assert not list((bench.path / "state").glob("unfinished/*"))
    bench.wait_for(lambda: not processes_of(bench.path))


def test_an_error_shows_its_message_and_the_users_own_lines(bench: Any) -> None:
    """Neither this package's frames nor those of a driver's library stand between an operator and the line that helps."""
    bench.write("lab.py", "class Laser:\n    def open(self):\n        json_of('{')\n\nfrom json import loads as json_of\n")
    rig = (bench.path / "rig.yaml").read_text(encoding="utf-8")
    bench.write("rig.yaml", f"{rig}devices: {{laser: {{driver: 'lab:Laser'}}}}\n")
    bench.steps(
        """
def continues(phase): return getattr(pytest.mark, phase)(on_failure="continue")

@continues("pre_acquisition")
def test_limits(experiment): experiment.measure("water", 3, minimum=10)

@continues("pre_acquisition")
def test_laser(devices): devices["laser"]

@continues("acquisition")
def test_run(acquisition): acquisition.run(command=[sys.executable, "-c", "raise SystemExit(3)"])

@continues("acquisition")
@pytest.mark.timeout(0.3)
def test_slow(): time.sleep(30)
"""
    )
    result = bench.run()
    assert result.ret == 1
    told = result.stdout.str()
    report = told[told.index("= FAILURES =") :]
    assert not re.search(r"pytest_openscope[/\\\\.]\w+[/\\\\.]\w*(\.py:\d+: in|\.[A-Z])", report), report
    assert "json/decoder.py" not in report
    laser = report[report.index("_ test_laser _") : report.index("_ test_run _")]
    assert len(laser.splitlines()) < 15
    assert "DevicesFailed: laser did not open (lab:Laser): JSONDecodeError: Expecting property name" in laser
    assert "(in lab.py:3)" in laser
    for name, kind in (("limits", "LimitsExceeded"), ("run", "AcquisitionFailed"), ("slow", "StepTimedOut")):
        assert f"FAILED test_experiment.py::test_{name} - {kind}: " in report
    assert "decoder.py" in bench.messages
    assert any("decoder.py" in str(frame) for failure in bench.debug["other_failures"] for frame in failure["chain"])


def test_an_error_of_a_module_shows_the_modules_own_lines(bench: Any) -> None:
    bench.write("make.py", "def run():\n    helper()\n\ndef helper():\n    raise ValueError('no table')\n")
    entry = {"module_type": "script_module", "module_path": "make.py"}
    bench.write("day1.json", json.dumps({"pre_acquisition_pipeline": [entry]}))
    report = bench.run_here("day1.json").stdout.str()
    assert "make.py:5: ValueError" in report
    assert "pytest_openscope/" not in report


def test_the_labs_own_models_type_what_steps_see(bench: Any) -> None:
    bench.write(
        "lab_models.py",
        "from pydantic import BaseModel\n"
        "class Camera(BaseModel):\n    exposure_ms: float\n"
        "class LabRig(BaseModel):\n    camera: Camera\n"
        "class Plan(BaseModel):\n    blocks: int\n    label: str\n",
    )
    rig = bench.path / "rig.yaml"
    rig.write_text(rig.read_text("utf-8") + "rig_model: lab_models:LabRig\nvalues: {camera: {exposure_ms: 33}}\n", "utf-8")
    bench.write("day1.json", '{"parameters_model": "lab_models:Plan", "blocks": 4, "label": "{session_uuid}"}')
    bench.steps(
        "def test_plan(rig, experiment):\n"
        "    assert rig.values.camera.exposure_ms == 33.0\n"
        "    assert experiment.parameters.blocks == 4\n"
        "    assert experiment.parameters.label == experiment.session_uuid\n"
    )
    bench.run_here("--params", "day1.json").assert_outcomes(passed=1)
    assert bench.metadata("processed_parameters.json")["blocks"] == 4
    wrong = bench.run_here("--params", "day1.json", "--param", "blocks=many")
    assert wrong.ret == 4
    wrong.stderr.fnmatch_lines(["*--param: blocks: a whole number expected, not text 'many'*"])
