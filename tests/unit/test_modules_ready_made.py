"""The ready-made modules, run for real with an operator made of a list of answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.config import PipelineEntry
from pytest_openscope.modules import ModuleContext, ModuleFailed, check_entries, run_entry
from pytest_openscope.modules.failures import StepTimedOut
from pytest_openscope.modules.mouse_weight import parse
from pytest_openscope.records.phases import Phase

TOUCH = [sys.executable, "-c", "import sys, pathlib; pathlib.Path(sys.argv[-1] + '.seen').touch()"]
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


class FakeOperator:
    def __init__(self, *answers: str | bool) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def ask(self, prompt: str, default: str | None = None, /) -> str:
        self.asked.append(prompt)
        if not self.answers:
            raise EOFError
        return str(self.answers.pop(0))

    def confirm(self, prompt: str, /) -> bool:
        self.asked.append(prompt)
        return bool(self.answers.pop(0))


class Rig:
    """Runs ready-made modules and keeps what they hand to the session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "launcher_metadata").mkdir()
        self.records: dict[str, Any] = {}
        self.notes: list[str] = []
        self.experiment_notes: list[str] = []
        self.operator: FakeOperator | None = None

    def run(self, name: str, phase: Phase = Phase.PRE_ACQUISITION, /, **parameters: Any) -> None:
        context = ModuleContext(
            parameters,
            self.folder,
            operator=self.operator,
            note=self.notes.append,
            record=lambda key, value, unit: self.records.update({key: (value, unit)}),
            set_experiment_notes=self.experiment_notes.append,
        )
        run_entry(entry_of(name, phase, **parameters), context)


def entry_of(name: str, phase: Phase = Phase.PRE_ACQUISITION, /, **parameters: Any) -> Any:
    return PipelineEntry(
        name=name,
        phase=phase,
        module_path=name,
        module_parameters=parameters,
        where="x",
    )


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# disk_space_check


def _disk(monkeypatch: pytest.MonkeyPatch, free_gb: float) -> list[str]:
    asked: list[str] = []

    def usage(path: object) -> object:
        asked.append(str(path))
        return namedtuple("usage", "total used free")(2000 * 1024**3, 0, int(free_gb * 1024**3))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


def test_disk_space_is_measured(rig: Rig) -> None:
    rig.run("disk_space_check", required_free_gb=1e-6)
    value, unit = rig.records["disk_space_free"]
    assert value > 0
    assert unit == "GiB"
    with pytest.raises(ModuleFailed, match="not enough free disk space"):
        rig.run("disk_space_check", required_free_gb=1e9)


def test_disk_space_limit_is_inclusive_and_path_can_be_given(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _disk(monkeypatch, 10)
    rig.run("disk_space_check", Phase.POST_ACQUISITION, required_free_gb="10")
    rig.run("disk_space_check", required_free_gb=10, disk_space_check_path=str(rig.folder / "not" / "there"))
    with pytest.raises(ModuleFailed):
        rig.run("disk_space_check", required_free_gb=10.001)
    assert set(asked) == {str(rig.folder)}


@pytest.mark.parametrize("value", [None, "much", 0, -1, True, float("nan"), float("inf"), [1]])
def test_disk_space_requirement_must_be_a_number(rig: Rig, value: Any) -> None:
    with pytest.raises(ModuleFailed, match="required_free_gb"):
        rig.run("disk_space_check", required_free_gb=value)


def test_disk_space_override(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    _disk(monkeypatch, 1)
    rig.operator = FakeOperator("q", True, "q", False)
    rig.run("disk_space_check", required_free_gb=10, allow_override=True)
    with pytest.raises(ModuleFailed):
        rig.run("disk_space_check", required_free_gb=10, allow_override=True)
    rig.operator = FakeOperator(True)
    rig.run("disk_space_check", required_free_gb=10, allow_override=True, prompt_to_free_space=False)
    rig.operator = None
    with pytest.raises(ModuleFailed):
        rig.run("disk_space_check", required_free_gb=10, allow_override=True)


def test_the_operator_frees_space_and_it_looks_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    free_gb = iter([1, 2, 20])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2000 * 1024**3, 0, next(free_gb) * 1024**3))
    rig.operator = FakeOperator("", "")
    rig.run("disk_space_check", required_free_gb=10)
    assert len(rig.operator.asked) == 2
    assert all("press Enter to look again" in question and "10 GiB are required" in question for question in rig.operator.asked)
    assert rig.records["disk_space_free"] == (20.0, "GiB")


def test_a_disk_that_cannot_be_asked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(_: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(ModuleFailed, match="gone"):
        rig.run("disk_space_check", required_free_gb=1)


def test_the_write_speed_says_how_long_the_expected_data_take(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        rig.run("disk_space_check", expected_gb=0.01, reserve_gb=0, write_test_mb=64, expected_duration_s=3600)
    speed_mb_s, unit = rig.records["disk_write_speed"]
    assert speed_mb_s > 1
    assert unit == "MiB/s"
    assert f"takes {speed_mb_s:,.0f} MiB/s: 0.01 GiB in " in caplog.text
    assert sorted(path.name for path in rig.folder.iterdir()) == ["launcher_metadata"]


def test_a_disk_that_is_too_slow_for_the_expected_data(rig: Rig) -> None:
    with pytest.raises(ModuleFailed, match=r"too slow: .* MiB/s are required"):
        rig.run("disk_space_check", expected_gb=0.5, reserve_gb=0, expected_duration_s=1e-3, write_test_mb=64)
    with pytest.raises(ModuleFailed, match=r"too slow: .* 90,000,000 MiB/s are required"):
        rig.run("disk_space_check", required_free_gb=1e-6, minimum_write_mb_s=9e7, write_test_mb=64)
    assert sorted(path.name for path in rig.folder.iterdir()) == ["launcher_metadata"]


def test_a_killed_measurement_leaves_nothing_behind(tmp_path: Path) -> None:
    code = "import sys; from pytest_openscope import Steps\n"
    code += "from pytest_openscope.modules import disk_space_check as step\n"
    code += "real = step.os.fsync\ndef fsync(number):\n    real(number); print('written', flush=True)\nstep.os.fsync = fsync\n"
    code += "Steps(sys.argv[1]).disk_space_check(expected_gb=0.001, reserve_gb=0, write_test_mb=1e6, write_test_s=50)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"written"
        process.kill()
    assert list(tmp_path.iterdir()) == []


def test_the_expected_data_and_the_reserve_must_fit(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    _disk(monkeypatch, 12)
    rig.run("disk_space_check", expected_gb=7, write_test_mb=0)
    with pytest.raises(ModuleFailed, match=r"13 GiB are required \(8 GiB expected, 5 GiB in reserve\)"):
        rig.run("disk_space_check", expected_gb=8, write_test_mb=0)
    assert "disk_write_speed" not in rig.records


def test_a_disk_that_does_not_answer_is_not_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: answer.wait(30))
    began = time.monotonic()
    with pytest.raises(StepTimedOut, match=r"measuring the free space of .* took longer than 0.3 s"):
        rig.run("disk_space_check", required_free_gb=1, timeout_s=0.3)
    answer.set()
    assert time.monotonic() - began < 20


# Parameters


def test_a_parameter_may_be_text_and_may_stand_among_the_sessions(rig: Rig) -> None:
    context = ModuleContext({"required_free_gb": "1e-6", "timeout_s": 1e-9, "allow_override": "false"}, rig.folder)
    run_entry(entry_of("disk_space_check"), context)
    context.parameters["required_free_gb"] = "1e9"
    with pytest.raises(ModuleFailed, match="not enough"):
        run_entry(entry_of("disk_space_check"), context)
    with pytest.raises(ModuleFailed, match=r"required_free_gb: .*; allow_override: true or false expected"):
        run_entry(entry_of("disk_space_check", required_free_gb="much", allow_override=3), context)


def test_a_typo_is_a_mistake_before_the_session(rig: Rig) -> None:
    entries = [
        entry_of("disk_space_check", required_fre_gb=10),
        entry_of("experiment_notes_editor", experiment_notes_launch_editr=False, experiment_notes_encoding="utf-9"),
        entry_of("mouse_weight_pre_prompt", mouse_weight_minimum_g="low", lab_key_of_our_own=1, timeout_s=0),
        entry_of("disk_space_check", required_free_gb="{needed_gb}", output_session_folder="{output_session_folder}"),
        entry_of("wait_for_user_input"),
    ]
    texts = [str(mistake) for mistake in check_entries(entries, parameters={"prompt": ["a", "list"], "needed_gb": 3})]
    assert [text.split(": ", 2)[1] for text in texts] == [
        "module_parameters.required_fre_gb",
        "module_parameters.experiment_notes_launch_editr",
        "module_parameters.experiment_notes_encoding",
        "module_parameters.timeout_s",
        "module_parameters.mouse_weight_minimum_g",
        "(parameters) prompt",
    ]
    assert texts[0].endswith("unknown key -> did you mean required_free_gb?")
    assert check_entries(entries, parameters={"prompt": 1}, dry_run=True)


def test_a_key_that_a_step_does_not_know_is_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.run("mouse_weight_pre_prompt", mouse_weight_g=20, lab_key_of_our_own=1, output_session_folder=".")
    assert "module_parameters.lab_key_of_our_own: mouse_weight_pre_prompt does not know it" in caplog.text
    assert "output_session_folder" not in caplog.text


# wait_for_user_input


def test_the_pause_waits_for_the_operator(rig: Rig) -> None:
    rig.operator = FakeOperator("")
    rig.run("wait_for_user_input", prompt="Shutter open?")
    assert rig.operator.asked == ["Shutter open?"]


def test_the_pause_fails_without_operator_unless_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModuleFailed, match="Shutter open"):
        rig.run("wait_for_user_input", prompt="Shutter open?")
    rig.run("wait_for_user_input", prompt="Shutter open?", fail_if_no_input=False)
    assert "going on without" in caplog.text


# notes


def _eventually(path: Path) -> None:
    deadline = time.monotonic() + 15
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def test_notes_editor_creates_and_opens(rig: Rig) -> None:
    name = f"{rig.folder}\\notes\\experiment_notes.txt" if sys.platform == "win32" else "notes\\experiment_notes.txt"
    rig.run("experiment_notes_editor", experiment_notes_filename=name, experiment_notes_editor_command=TOUCH)
    path = rig.folder / "notes" / "experiment_notes.txt"
    assert path.read_text(encoding="utf-8").startswith("# Experiment Notes\n# Created: ")
    _eventually(path.with_name(path.name + ".seen"))
    kept = json.loads((rig.folder / "launcher_metadata" / "experiment_notes_editor.json").read_text(encoding="utf-8"))
    assert kept["command"] == [*TOUCH, str(path)]


def test_notes_are_never_overwritten(rig: Rig) -> None:
    path = rig.folder / "experiment_notes.txt"
    path.write_text("mine", encoding="utf-8")
    rig.run("experiment_notes_editor", experiment_notes_launch_editor=False)
    assert path.read_text(encoding="utf-8") == "mine"
    assert not (rig.folder / "launcher_metadata" / "experiment_notes_editor.json").exists()


def test_an_editor_command_can_be_one_text(rig: Rig) -> None:
    script = rig.folder / "my editor.py"
    script.write_text(TOUCH[-1], encoding="utf-8")
    command = f'"{sys.executable}" "{script}"'
    rig.run("experiment_notes_editor", experiment_notes_editor_command=command, experiment_notes_editor_args="--wide")
    _eventually(rig.folder / "experiment_notes.txt.seen")


@pytest.mark.parametrize("command", ["no-such-editor-anywhere", {"a": 1}, 5, 'half "quoted'])
def test_an_editor_that_does_not_start(rig: Rig, command: Any) -> None:
    with pytest.raises(ModuleFailed, match="editor"):
        rig.run("experiment_notes_editor", experiment_notes_editor_command=command)


@pytest.mark.skipif(sys.platform == "win32", reason="Notepad is the default there")
def test_the_editor_of_the_environment(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "touch-nothing-here --flag")
    with pytest.raises(ModuleFailed, match="touch-nothing-here"):
        rig.run("experiment_notes_editor")


def test_notes_reach_the_session(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.run("experiment_notes_editor", experiment_notes_launch_editor=False)
    path = rig.folder / "experiment_notes.txt"
    with open(path, "a", encoding="utf-8") as stream:
        stream.write("\n# of licks: µ-many\n\nsecond line \n\n")
    rig.operator = FakeOperator("")
    manifest = rig.folder / "launcher_metadata" / "routing_manifest.json"
    manifest.write_text('{"entries": [{"type": "stimuli"}], "other": 1}', encoding="utf-8")
    for _ in range(2):
        rig.run("experiment_notes_finalize", Phase.POST_ACQUISITION, manifest_path=str(manifest))
    assert rig.experiment_notes[-1] == "# of licks: µ-many\n\nsecond line"
    assert json.loads(manifest.read_text(encoding="utf-8")) == {
        "entries": [{"type": "stimuli"}, {"type": "notes", "files": ["experiment_notes.txt"]}],
        "other": 1,
    }


def test_notes_without_operator_are_taken_as_they_are(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.run("experiment_notes_finalize", Phase.POST_ACQUISITION)
    assert rig.experiment_notes == [""]
    assert "nobody is there to confirm" in caplog.text
    assert "there were no notes" in caplog.text


def test_a_prompt_that_wants_yes_gets_yes(rig: Rig) -> None:
    prompt = "Confirm experiment notes are saved; type 'yes' to finish."
    rig.operator = FakeOperator("", "no", "YES ")
    rig.run("experiment_notes_finalize", experiment_notes_confirm_prompt=prompt)
    assert rig.operator.asked == [prompt] * 3
    rig.operator = FakeOperator(*["no"] * 9)
    with pytest.raises(ModuleFailed, match="did not confirm"):
        rig.run("experiment_notes_finalize", experiment_notes_confirm_prompt=prompt)


@pytest.mark.parametrize("content", ["{", "[]", '{"entries": 5}', "{}"])
def test_a_broken_manifest_fails_and_stays(rig: Rig, content: str) -> None:
    manifest = rig.folder / "m.json"
    manifest.write_text(content, encoding="utf-8")
    with pytest.raises(ModuleFailed, match="manifest"):
        rig.run("experiment_notes_finalize", manifest_path="m.json")
    assert manifest.read_text(encoding="utf-8") == content


@pytest.fixture
def no_process_left() -> Iterator[None]:
    yield
    for child in psutil.Process().children():
        try:
            words = " ".join(child.cmdline())
        except psutil.Error:
            continue  # it has ended
        if "time.sleep(60)" in words:
            child.kill()
            pytest.fail("an editor was left open")


@pytest.mark.skipif(sys.platform == "win32", reason="asks by SIGTERM; on Windows windows are asked, and this has none")
@pytest.mark.usefixtures("no_process_left")
def test_the_editor_is_closed_on_request(rig: Rig) -> None:
    rig.run("experiment_notes_editor", experiment_notes_editor_command=SLEEP)
    rig.operator = FakeOperator("")
    rig.run("experiment_notes_finalize", experiment_notes_autoclose_editor=True)
    rig.run("experiment_notes_finalize", experiment_notes_autoclose_editor=True)


def test_another_process_with_the_editors_number_is_not_closed(rig: Rig) -> None:
    with subprocess.Popen(SLEEP) as other:
        facts = {"pid": other.pid, "create_time": 1.0, "command": []}
        (rig.folder / "launcher_metadata" / "experiment_notes_editor.json").write_text(json.dumps(facts), encoding="utf-8")
        rig.run("experiment_notes_finalize", experiment_notes_autoclose_editor=True)
        assert other.poll() is None
        other.kill()


def test_closing_notes_are_appended(rig: Rig) -> None:
    (rig.folder / "experiment_notes.txt").write_text("before", encoding="utf-8")
    rig.operator = FakeOperator("the animal slept", "")
    rig.run("experiment_notes_post_prompt", Phase.POST_ACQUISITION)
    rig.run("experiment_notes_post_prompt", Phase.POST_ACQUISITION)
    rig.run("experiment_notes_post_prompt", Phase.POST_ACQUISITION)
    lines = (rig.folder / "experiment_notes.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before"
    assert lines[1].endswith("] the animal slept")
    assert rig.notes == ["the animal slept"]
    assert len(rig.experiment_notes) == 1


# mouse weight


def test_weights_are_recorded(rig: Rig) -> None:
    rig.operator = FakeOperator("heavy", "245", "24,5 g", "23.9")
    rig.run("mouse_weight_pre_prompt")
    rig.run("mouse_weight_post_prompt", Phase.POST_ACQUISITION)
    assert rig.records == {"mouse_weight_pre": (24.5, "g"), "mouse_weight_post": (23.9, "g")}
    rows = (rig.folder / "mouse_weight.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "timestamp,stage,weight_g"
    assert [row.split(",")[1:] for row in rows[1:]] == [["pre", "24.5"], ["post", "23.9"]]
    assert "is no number" in rig.operator.asked[1]
    assert "245 g is not between" in rig.operator.asked[2]


def test_a_weight_needs_an_operator_or_a_value(rig: Rig) -> None:
    with pytest.raises(ModuleFailed, match="mouse_weight_g"):
        rig.run("mouse_weight_pre_prompt")
    rig.run("mouse_weight_pre_prompt", mouse_weight_g=20)
    rig.run("mouse_weight_pre_prompt", mouse_weight_g="300 g", mouse_weight_maximum_g=500)
    with pytest.raises(ModuleFailed, match="not between"):
        rig.run("mouse_weight_pre_prompt", mouse_weight_g=500)
    with pytest.raises(ModuleFailed, match="mouse_weight_minimum_g"):
        rig.run("mouse_weight_pre_prompt", mouse_weight_g=50, mouse_weight_minimum_g="low")
    rig.operator = FakeOperator(*["?"] * 9)
    with pytest.raises(ModuleFailed, match="no plausible weight"):
        rig.run("mouse_weight_pre_prompt")


@given(st.floats(5, 100), st.sampled_from(["", " g", "g", " grams", " "]), st.booleans())
def test_every_plausible_weight_is_understood(weight_g: float, unit: str, comma: bool) -> None:
    text = f"{weight_g:.3f}"
    assert parse((text.replace(".", ",") if comma else text) + unit, 4, 101) == (float(text), "")


@given(st.text())
def test_no_answer_breaks_the_question(answer: str) -> None:
    weight_g, problem = parse(answer, 5, 100)
    assert problem or 5 <= weight_g <= 100


def test_the_examples(rig: Rig) -> None:
    rig.run("example_pre_acquisition_module", subject_id="m1")
    rig.run("example_post_acquisition_module", Phase.POST_ACQUISITION, subject_id="m1")
