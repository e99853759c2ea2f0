"""Bonsai as an acquisition: its command, its retries, its faults and its outputs, with a stand-in for Bonsai itself."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bonsai_kit import (
    SOUND,
    StandIn,
    externalized,
    include,
    install,
    per_trial,
    subject,
    timer,
    workflow,
    writer,
)

from pytest_openscope import Task
from pytest_openscope.acquisition import Acquisition, AcquisitionFailed, AcquisitionSpec, bonsai, check_parameters
from pytest_openscope.records import ConfigurationError, Mistake
from pytest_openscope.system import StopPolicy

FILES = {"events_path": "events.csv"}


class Lab:
    """A Bonsai, a workflow and a session folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bonsai = StandIn(folder / "bonsai")
        self.session = folder / "mouse_2026-01-01_10-00-00"
        (self.session / "launcher_metadata").mkdir(parents=True)
        self.flow = self.write("flows/day.bonsai", SOUND)
        self.lines: list[str] = []
        self.questions: list[tuple[str, list[str], str]] = []
        self.answers: list[str | None] = []
        self.notices: list[str] = []
        self.saved: dict[str, Any] = {}
        self.acquisition = self._acquisition()

    def _acquisition(self, **changes: Any) -> Acquisition:
        return Acquisition(
            self.session,
            lambda source, lines, *_: self.lines.extend(line.decode() for line in lines),
            lambda *_, **__: None,
            defaults=AcquisitionSpec(stop=StopPolicy(0.5, 0.5, 1.0), **changes),
            services={"ask": self._ask, "save": self._save, "notice": self.notices.append},
        )

    def limits(self, **changes: Any) -> None:
        self.acquisition = self._acquisition(**changes)

    def _save(self, name: str, content: Any) -> None:
        self.saved[name] = json.loads(json.dumps(content))

    def _ask(self, question: str, choices: Sequence[str], default: str) -> str | None:
        self.questions.append((question, list(choices), default))
        return self.answers.pop(0)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def parameters(self, **more: Any) -> dict[str, Any]:
        return {
            "launcher": "bonsai",
            "bonsai_exe_path": str(self.bonsai.exe),
            "script_path": str(self.flow),
            "script_parameters": FILES,
            "bonsai_max_retries": 0,
            **more,
        }

    def run(self, **more: Any) -> Any:
        if not self.answers:
            self.answers = [None] * 9
        return self.acquisition.run_launcher(self.parameters(**more))

    def failure(self, **more: Any) -> str:
        with pytest.raises(AcquisitionFailed) as caught:
            self.run(**more)
        return str(caught.value)

    def check(self, dry_run: bool = True, **more: Any) -> tuple[list[Mistake], list[Mistake], list[Mistake]]:
        unknown: list[Mistake] = []
        warnings: list[Mistake] = []
        errors = check_parameters(self.parameters(**more), dry_run, "day1.json", unknown, warnings)
        return errors, warnings, unknown


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


# The command and the files -------------------------------------------------------------------------------------------


def test_a_sound_workflow_runs_from_its_folder(lab: Lab) -> None:
    facts = lab.run()
    assert (facts.name, facts.returncode) == ("day", 0)
    (call,) = lab.bonsai.calls
    assert Path(call[0]) == lab.flow.parent
    assert call[1:] == [
        str(lab.flow), "--start", "--no-editor", "-p", f"events_path={lab.session / 'events.csv'}",
        "-p", f"RootFolder={lab.session}",
    ]  # fmt: skip
    assert lab.lines == ["workflow of 8 nodes runs"]
    assert not lab.notices


def test_provenance_says_which_protocol_ran(lab: Lab) -> None:
    lab.bonsai.packages({"Bonsai.Core": "2.9.0"}, ["Bonsai.Core.2.9.0"])
    lab.run(script_parameters={**FILES, "Period": "PT2S"})
    found = lab.saved["bonsai_provenance.json"]
    assert len(found["fingerprint"]) == 64
    assert found["properties"]["Period"]["value"] == "PT2S"
    assert found["properties"]["Period"]["saved_value"] == "PT1S"
    assert found["parameters"]["events_path"] == str(lab.session / "events.csv")
    assert found["package_versions"] == {"Bonsai.Core": {"wanted": "2.9.0", "installed": ["2.9.0"]}}
    assert found["outputs"][0]["files"] == {str(lab.session / "events.csv"): (lab.session / "events.csv").stat().st_size}
    assert found["fields"]["bonsai.fingerprint"] == found["fingerprint"]
    assert found["working_directory"] == str(lab.flow.parent)


def test_the_same_protocol_has_the_same_fingerprint_whatever_its_values(lab: Lab) -> None:
    prints = set()
    for period in ("PT2S", "PT3S"):
        lab.run(script_parameters={**FILES, "Period": period})
        prints.add(lab.saved["bonsai_provenance.json"]["fingerprint"])
    lab.flow.write_text(SOUND.replace("Tick", "Tock"), encoding="utf-8")
    lab.run()
    assert len(prints) == 1
    assert lab.saved["bonsai_provenance.json"]["fingerprint"] not in prints


def test_a_dry_run_writes_it_too_and_starts_nothing(lab: Lab) -> None:
    lab.acquisition.dry_run = True
    lab.run()
    assert lab.saved["bonsai_provenance.json"]["fingerprint"]
    assert not lab.bonsai.calls


@pytest.mark.parametrize(("fault", "words"), [("no-outputs", "has left no events.csv in"), ("empty-outputs", "empty")])
def test_a_declared_file_that_is_missing_or_empty_fails_it(lab: Lab, fault: str, words: str) -> None:
    lab.bonsai.faults(fault)
    text = lab.failure()
    assert text.startswith("acquisition 'day' failed: CsvWriter")
    assert words in text
    assert lab.run(bonsai_check_outputs=False).returncode == 0


def test_a_file_with_a_suffix_is_found_and_one_astray_is_named(lab: Lab) -> None:
    lab.flow.write_text(
        workflow(
            timer(), externalized("FileName", "log_path"), writer("l.csv"), writer("astray.csv"), edges=[(0, 2), (1, 2), (0, 3)]
        ),
        encoding="utf-8",
    )
    text = lab.failure(script_parameters={"log_path": "logs/licks.csv"})
    assert "astray" in text
    assert f"(but {lab.flow.parent / 'astray2026-01-01T10_00_00.csv'}, outside of the session folder)" in text
    assert "licks" not in text
    assert (lab.session / "logs" / "licks2026-01-01T10_00_00.csv").is_file()


def test_a_file_of_an_earlier_session_does_not_count(lab: Lab) -> None:
    old = lab.write("disk/all.csv", "old")
    lab.flow.write_text(
        workflow(timer(), externalized("FileName", "F"), writer("x.csv", "None"), edges=[(0, 2), (1, 2)]), encoding="utf-8"
    )
    lab.bonsai.faults("no-outputs")
    os.utime(old, (time.time() - 3600,) * 2)
    assert "has left no all.csv" in lab.failure(script_parameters={"F": str(old)})


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a batch file there, which takes away percent signs")
def test_signs_of_placeholders_in_a_value_are_nothing_special_once_it_runs(lab: Lab) -> None:
    lab.run(script_parameters={"events_path": "50%\\cost_$5.csv"})
    assert (lab.session / "50%" / "cost_$5.csv").is_file()


def test_a_bonsai_on_path(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(lab.bonsai.folder), prepend=os.pathsep)
    lab.bonsai.packages({"Bonsai.Core": "2.9.0"}, [])
    lab.run(bonsai_exe_path=lab.bonsai.exe.name)
    assert lab.notices[0].endswith("Bonsai.config: Bonsai.Core 2.9.0 is not installed")
    assert len(lab.bonsai.calls) == 1


# Bonsai fails -------------------------------------------------------------------------------------------------------


def test_a_fatal_error_fails_it_although_the_exit_code_is_0(lab: Lab) -> None:
    lab.bonsai.faults("fatal")
    for more in ({}, {"bonsai_fail_on_stderr": False}):
        text = lab.failure(**more)
        assert "had a fatal error, and ended with exit code 0: Bonsai.WorkflowRuntimeException: No camera found." in text


def test_stderr_fails_it_at_its_end_unless_told_otherwise(lab: Lab) -> None:
    lab.bonsai.faults("warn")
    assert "wrote to stderr, which counts as a failure" in lab.failure()
    assert (lab.session / "events.csv").is_file()  # it was not stopped for it
    assert lab.run(bonsai_fail_on_stderr=False).returncode == 0


def test_patterns_and_exit_codes_of_the_lab(lab: Lab) -> None:
    lab.bonsai.faults("warn")
    more = {"bonsai_fail_on_stderr": False, "bonsai_retry_error_patterns": "incorrect s?RGB"}
    assert "fatal error" in lab.failure(**more)
    lab.bonsai.faults("exit:7")
    assert "exit code 7" in lab.failure()
    assert lab.run(bonsai_acceptable_exit_codes=[7], bonsai_check_outputs=False).returncode == 7
    with pytest.raises(ConfigurationError, match="is no regular expression"):
        lab.run(bonsai_retry_error_patterns=["("])


FINAL = (
    b"Unhandled Exception: System.IO.FileNotFoundException: Could not load file",
    b"Unhandled exception. System.InvalidOperationException: x",
    b"Bonsai.WorkflowBuildException: Failed to build",
    b"Bonsai.WorkflowRuntimeException: No camera found.",
)
NOT_FINAL = (
    b"System.IO.IOException: The file 'a.avi' already exists.",
    b"System.AggregateException: One or more errors occurred. (x)",
    b"OpenCV.Net.CVException (0x80004005)",
)


def test_lines_of_a_fatal_error(lab: Lab) -> None:
    spec = bonsai.BonsaiAdapter(_task(lab)).spec()
    assert spec.fatal is not None
    assert spec.fatal_is_final is not None
    for line in (*FINAL, *NOT_FINAL):
        assert spec.fatal("stderr", [b"frame 1", line]) == line.decode()
        assert spec.fatal_is_final(line.decode()) == (line in FINAL)
        assert spec.fatal("stdout", [line]) == ""
    assert spec.fatal("stderr", [*NOT_FINAL, FINAL[0]]) == FINAL[0].decode()


@pytest.mark.parametrize(
    "line",
    [b"", b"frame 12", b"Exception handling is on", b"no System.Exception here", b"camera.error: 0", b"a.b.Exception: 1"],
)
def test_lines_that_are_none(lab: Lab, line: bytes) -> None:
    spec = bonsai.BonsaiAdapter(_task(lab)).spec()
    assert spec.fatal is not None
    assert spec.fatal("stderr", [line]) == ""


@pytest.mark.parametrize(("more", "stopped"), [({}, False), ({"stderr_fails": True, "stderr_grace_s": 60.0}, True)])
def test_a_handled_exception_fails_it_and_stops_it_only_where_that_is_wanted(lab: Lab, more: Any, stopped: bool) -> None:
    lab.bonsai.faults("handled", *(["hang"] if stopped else []))
    lab.limits(fatal_grace_s=0.2, **more)
    text = lab.failure(bonsai_fail_on_stderr=False)
    assert ("was stopped: it did not end after a fatal error" in text) == stopped
    assert "System.TimeoutException: The camera did not answer." in text
    assert (lab.session / "events.csv").exists() != stopped


def test_a_bonsai_that_hangs_after_the_end_of_its_workflow_is_stopped(lab: Lab) -> None:
    lab.bonsai.faults("fatal", "hang")
    lab.limits(fatal_grace_s=0.2)
    assert "was stopped: it did not end after a fatal error: Bonsai.WorkflowRuntimeException" in lab.failure()


def _task(lab: Lab, **more: Any) -> Any:
    return Task(lab.parameters(**more), lab.session)


def test_silence_is_told_with_what_is_known(lab: Lab) -> None:
    lab.limits(process_start_timeout_s=0.5)
    lab.bonsai.faults("silent")
    assert "many workflows print nothing" in lab.failure()
    lab.write("flows/day.bonsai.layout", "<VisualizerLayout />")
    lab.bonsai.packages({"Bonsai.Core": "2.9.0", "Bonsai.Vision": "2.8.1"}, ["Bonsai.Core.2.9.0"])
    text = lab.failure()
    assert "printed nothing within 0.5 s of its start: day.bonsai.layout makes it open visualizers" in text
    assert "packages are missing, which Bonsai offers to restore in a window: Bonsai.Vision 2.8.1 is not installed" in text
    assert "s of CPU time" in text


# Retries ------------------------------------------------------------------------------------------------------------


def test_the_operator_decides_and_files_of_a_failed_attempt_are_kept(lab: Lab) -> None:
    lab.bonsai.faults("fatal:1")
    (lab.session / "events.csv").write_text("of attempt 1")
    lab.answers = ["retry"]
    assert lab.run(bonsai_max_retries=None).returncode == 0
    ((question, choices, default),) = lab.questions
    assert "No camera found" in question
    assert (choices, default) == (["retry", "proceed", "abort"], "retry")
    assert (lab.session / "events.attempt-1.csv").read_text() == "of attempt 1"
    assert (lab.session / "events.csv").read_text() == "attempt 2\n"
    assert lab.notices[0].endswith("; it runs again, attempt 2")
    assert lab.notices[1:] == ["events.csv of attempt 1 is kept as events.attempt-1.csv"]
    assert lab.saved["bonsai_provenance.json"]["attempt"] == 2


@pytest.mark.parametrize(
    ("more", "calls", "passes"),
    [
        ({"bonsai_max_retries": 2}, 3, True),
        ({"bonsai_max_retries": 1}, 2, False),
        ({"bonsai_max_retries": 0}, 1, False),
        ({"bonsai_max_retries": None}, 1, False),
        ({"bonsai_max_retries": -1}, 1, False),
        ({"bonsai_max_retries": 5, "bonsai_failure_default": "abort"}, 1, False),
        ({"bonsai_max_retries": 5, "bonsai_failure_default": "proceed"}, 1, True),
        ({"bonsai_continue_on_failure": True}, 1, True),
    ],
)
def test_without_an_operator_the_parameters_decide(lab: Lab, more: dict[str, Any], calls: int, passes: bool) -> None:
    lab.bonsai.faults("fatal:2")
    if passes:
        lab.run(**more)
    else:
        lab.failure(**more)
    assert len(lab.bonsai.calls) == calls


def test_a_retry_waits(lab: Lab) -> None:
    lab.bonsai.faults("fatal:1")
    begun_s = time.monotonic()
    lab.run(bonsai_max_retries=1, bonsai_retry_delay_sec=0.5)
    assert time.monotonic() - begun_s >= 0.5


# Installation and packages ------------------------------------------------------------------------------------------

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="the setup scripts are shell scripts")


@pytest.fixture
def bare(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.bonsai.exe.unlink()
    return lab


def _setup(lab: Lab, text: str) -> str:
    path = lab.write("bonsai/setup.cmd", f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@posix_only
def test_a_missing_bonsai_is_set_up_from_the_scripts_folder(bare: Lab) -> None:
    install(bare.folder / "kept.exe")
    script = _setup(bare, "echo downloading; cp ../kept.exe Bonsai.exe")
    assert bare.check(dry_run=False, bonsai_setup_script=script)[0] == []
    assert bare.run(bonsai_setup_script=script).returncode == 0
    assert bare.lines[0] == "downloading"
    bare.run(bonsai_setup_script=script)
    assert bare.lines.count("downloading") == 1


@posix_only
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 3", "'setup of Bonsai' ended with exit code 3"),
        ("true", "there is still no"),
        ("sleep 60", "bonsai_setup_timeout_s"),
        (None, "no bonsai_setup_script that would bring it"),
    ],
)
def test_a_setup_that_brings_nothing(bare: Lab, script: str | None, words: str) -> None:
    more = {"bonsai_setup_script": _setup(bare, script)} if script else {}
    text = bare.failure(**more, bonsai_setup_timeout_s=0.5)
    assert words in text or (script == "sleep 60" and "ran longer than timeout_s = 0.5 s" in text)
    assert not bare.bonsai.calls


def test_a_bonsai_that_nothing_brings_is_told_before_the_session(bare: Lab) -> None:
    errors, _, _ = bare.check(dry_run=False)
    assert [error.key for error in errors] == ["bonsai_exe_path"]
    errors, _, _ = bare.check(dry_run=False, bonsai_setup_script=str(bare.folder / "no.cmd"))
    assert [error.key for error in errors] == ["bonsai_setup_script"]
    assert bare.check(dry_run=True)[0] == []


def test_package_versions(lab: Lab) -> None:
    lab.bonsai.packages(
        {"Bonsai.Core": "2.9.0", "Bonsai.Vision": "2.8.1", "OpenCV.Net": "3.4.2", "Bonsai.Vision.Design": "2.8.0-beta"},
        ["Bonsai.Core.2.9", "bonsai.vision.2.8.0", "Bonsai.Vision.Design.2.8.0-BETA"],
    )
    (warning,) = [one for one in lab.check(dry_run=False)[1] if "OpenCV" in one.problem]
    assert warning.problem == "OpenCV.Net 3.4.2 is not installed"
    lab.run()
    (notice,) = lab.notices
    assert notice.endswith("Bonsai.Vision is 2.8.0 instead of 2.8.1; OpenCV.Net 3.4.2 is not installed")
    assert "Bonsai's packages are not those of" in lab.failure(bonsai_package_mismatch="fail")
    assert len(lab.bonsai.calls) == 1


def test_a_package_list_of_the_lab(lab: Lab) -> None:
    other = lab.write("rig/Bonsai.config", '<PackageConfiguration><Packages><Package id="A" version="1" /></Packages>')
    assert "cannot be read" in str(lab.check(dry_run=False, bonsai_config_path=str(other))[1])
    gone = str(lab.folder / "gone.config")
    assert "there is no" in str(lab.check(dry_run=False, bonsai_config_path=gone)[1])


# The dry run reads the workflow ---------------------------------------------------------------------------------------

BAD_INCLUDE = "<NotAWorkflow />"
FAULTS: dict[str, tuple[str, str, str]] = {
    "a writer that overwrites itself per trial": (
        workflow(timer(), per_trial(writer("trial.csv", "None", overwrite=True)), edges=[(0, 1)]),
        "error", "SILENT_OVERWRITE",
    ),
    "a writer that overwrites the last session": (
        workflow(timer(), writer("day.csv", "None", overwrite=True), edges=[(0, 1)]), "error", "SILENT_OVERWRITE",
    ),
    "a writer that fails at the second trial": (
        workflow(timer(), per_trial(writer("trial.csv", "None")), edges=[(0, 1)]), "error", "FAILS_ON_REPEAT",
    ),
    "two writers on one file": (
        workflow(timer(), writer("a.csv", "None"), writer("A.csv", "None"), edges=[(0, 1), (0, 2)]),
        "error", "DUPLICATE_OUTPUT",
    ),
    "a disabled writer": (workflow(timer(), writer("a.csv", disabled=True), edges=[(0, 1)]), "warning", "DISABLED_WRITER"),
    "a dangling subject": (
        workflow(timer(), subject("PublishSubject", "TrialEnd"), subject("SubscribeSubject", "TrialEnds"), edges=[(0, 1)]),
        "error", "DANGLING_SUBJECT",
    ),
    "two subjects of one name": (
        workflow(timer(), subject("PublishSubject", "A"), subject("PublishSubject", "A"), edges=[(0, 1), (0, 2)]),
        "error", "DUPLICATE_SUBJECT",
    ),
    "a subject without a name": (
        workflow(subject("SubscribeSubject"), writer("a.csv"), edges=[(0, 1)]), "error", "UNNAMED_SUBJECT",
    ),
    "two properties of one name": (
        workflow(timer(), externalized("Period", "P"), externalized("Period", "P"), edges=[(1, 0), (2, 0)]),
        "error", "DUPLICATE_PROPERTY",
    ),
    "an include that is not there": (workflow(include("gone.bonsai")), "error", "MISSING_INCLUDE"),
    "an include that includes itself": (workflow(include("day.bonsai")), "error", "RECURSIVE_INCLUDE"),
    "an include that is no workflow": (workflow(include("bad.bonsai")), "error", "INVALID_INCLUDE"),
    "no property RootFolder": (workflow(timer(), root_folder=False), "error", "-p RootFolder: Bonsai refuses it"),
    "no workflow at all": (BAD_INCLUDE, "error", "is no workflow that Bonsai can read"),
    "half a workflow": (SOUND[: len(SOUND) // 2], "error", "not well-formed XML"),
}  # fmt: skip


def test_a_sound_workflow_is_sound(lab: Lab) -> None:
    assert lab.check() == ([], [], [])
    assert lab.check(dry_run=False) == ([], [], [])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_workflow_with_one_fault_is_judged_rightly(lab: Lab, fault: str) -> None:
    text, severity, words = FAULTS[fault]
    lab.flow.write_text(text, encoding="utf-8")
    lab.write("flows/bad.bonsai", BAD_INCLUDE)
    errors, warnings, unknown = lab.check(script_parameters={})
    told = errors if severity == "error" else warnings
    assert [words in one.problem for one in told] == [True]
    assert (warnings if severity == "error" else errors) == unknown == []
    assert told[0].where == "day1.json"
    assert told[0].remedy or "INCLUDE" in words
    # A real session is not kept from starting by what only may lose data; what Bonsai cannot read or refuses is.
    real_errors, real_warnings, _ = lab.check(dry_run=False, script_parameters={})
    certain = words in ("-p RootFolder: Bonsai refuses it", "is no workflow that Bonsai can read", "not well-formed XML")
    assert bool(real_errors) == certain
    assert len(real_errors + real_warnings) == 1
    assert lab.check(dry_run=False, script_parameters={}, bonsai_check_workflow=False) == ([], [], [])


@pytest.mark.parametrize(
    ("more", "problem", "remedy"),
    [
        ({"script_parameters": {"Periode": "PT1S"}}, "-p Periode: Bonsai refuses it", "did you mean Period?"),
        ({"script_parameters": {"Zebra": 1}}, "it exposes Period, RootFolder, events_path", "correct script_parameters"),
        ({"script_parameters": {"RootFolder": "x"}}, "property 'RootFolder' is set twice", "correct script_parameters"),
        ({"script_arguments": ["other.bonsai"]}, "unrecognized command or argument 'other.bonsai'", ""),
        ({"script_arguments": ["-p", "Period"]}, "invalid property assignment 'Period'", ""),
        ({"script_arguments": ["-p", "Group.Period=1"]}, "no nested workflow named 'Group'", ""),
    ],
)
def test_what_bonsai_would_refuse_is_told(lab: Lab, more: dict[str, Any], problem: str, remedy: str) -> None:
    for dry_run in (True, False):
        (error,) = lab.check(dry_run=dry_run, **more)[0]
        assert problem in error.problem
        assert remedy in error.remedy
        assert error.key == "script_parameters"


def test_several_faults_are_told_at_once(lab: Lab) -> None:
    text, _, _ = FAULTS["two writers on one file"]
    lab.flow.write_text(text.replace("A.csv", "a.csv"), encoding="utf-8")
    errors, _, _ = lab.check(script_parameters={"Nothing": 1, "Nobody": 2})
    assert len(errors) == 3


def test_what_cannot_be_known_is_no_mistake(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "win32":
        assert lab.check(script_path="C:/rig/day.bonsai")[0] == []
    assert lab.check(script_path="{rig_param:flow}") == ([], [], [])
    values = {"events_path": "{output_session_folder}\\a.csv", "Period": "{rig_param:period}"}
    assert lab.check(script_parameters=values) == ([], [], [])
    monkeypatch.setitem(sys.modules, "baghban", None)
    _, _, (unknown,) = lab.check()
    assert "baghban is not installed" in unknown.problem
    _, (warning,), _ = lab.check(dry_run=False)
    assert "pytest-openscope[bonsai]" in warning.remedy
    assert lab.run().returncode == 0
    assert "baghban is not installed" in lab.saved["bonsai_provenance.json"]["not_read"]
    assert ["are not looked for, since it is not read: baghban is not installed" in notice for notice in lab.notices] == [True]


def test_a_large_folder_around_the_workflow_is_not_looked_through(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write(
        "flows/Lab.csproj", '<Project><EmbeddedResource Include="**\\*.bonsai" /><AssemblyName>Lab</AssemblyName></Project>'
    )
    lab.write("flows/Module.bonsai", workflow(timer(), root_folder=False))
    lab.flow.write_text(workflow(include("Lab:Nowhere.bonsai")), encoding="utf-8")
    (error,) = lab.check(script_parameters={})[0]
    assert "MISSING_INCLUDE" in error.problem
    monkeypatch.setattr("pytest_openscope.acquisition.workflow._MOST_ENTRIES", 2)
    assert lab.check(script_parameters={})[0] == []


def test_the_stand_in_agrees_on_what_bonsai_refuses(lab: Lab) -> None:
    """What the check calls refused, the stand-in, which builds the workflow as Bonsai does, refuses at run time."""
    assert "fatal error" in lab.failure(script_parameters={"Periode": "PT1S"})
    lab.flow.write_text(FAULTS["a dangling subject"][0], encoding="utf-8")
    assert "WorkflowBuildException" in lab.failure(script_parameters={})
