"""Sessions whose sidecar died as well: found, finished once, and only when nobody else sees to them."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sidecar_kit import HOW_KILLED, KILLED, Run, Start, children_marked, eventually

from pytest_openscope.cli import main
from pytest_openscope.log.writer import LogWriter
from pytest_openscope.records.folder import METADATA
from pytest_openscope.records.journal import JOURNAL, Journal
from pytest_openscope.sidecar.notes import mark_unfinished
from pytest_openscope.sidecar.reconstruct import SessionView
from pytest_openscope.sidecar.recovery import recover
from pytest_openscope.sidecar.witness import Witness

CAMERA = "import time\nfor n in range(5): print('frame', n, flush=True)\ntime.sleep(60)"
STEP = ["step", "acquisition", "video"]


def kill_both(run: Run) -> None:
    """Kill the sidecar first and the experiment at once, as a power cut would."""
    assert eventually(lambda: (run.metadata / "resource_usage.json").exists())
    psutil.Process(run.process.pid).suspend()
    run.kill_sidecars()
    run.process.kill()
    run.process.wait()


def state_of(run: Run) -> Path:
    return run.folder.parent / "state"


def test_a_session_without_sidecar_is_finished_by_the_next_one(start: Start) -> None:
    run = start(["ready"], ["log", "x"], STEP, ["acquire", CAMERA], ["batch", ["frame 0"], 0], ["sleep", 30])
    assert eventually(lambda: run.view.acquisitions)
    kill_both(run)
    assert list(children_marked(run.folder))
    lines = recover(state_of(run))
    assert lines == ["session s1 had no ending and was finished as crashed"]
    assert not list(children_marked(run.folder))
    run.finished()
    end = run.json("end_state.json")
    assert (end["outcome"], end["written_by"]) == ("crashed", "recovery")
    frames = [entry.message for entry in run.entries() if entry.message.startswith("frame")]
    assert frames == [f"frame {number}" for number in range(len(frames))]
    assert run.json("resource_usage.json")
    assert eventually(lambda: not list((run.folder / METADATA).glob("*.spare")))
    assert recover(state_of(run)) == []


def test_living_sessions_are_left_alone(start: Start) -> None:
    run = start(["ready"], ["sleep", 30])
    assert eventually(lambda: list(state_of(run).glob("unfinished/*.json")))
    assert recover(state_of(run), run.folder.parent) == []
    psutil.Process(run.process.pid).suspend()
    run.kill_sidecars()
    assert recover(state_of(run), run.folder.parent) == []
    assert run.view.died is None


def test_a_session_that_its_sidecar_still_finishes_is_left_alone(start: Start) -> None:
    slow = "import signal,time\nsignal.signal(signal.SIGINT,lambda *_: (time.sleep(0.8), exit(0)))\ntime.sleep(60)"
    run = start(["ready"], STEP, ["acquire", slow], ["sleep", 0.4], ["die"])
    run.wait()
    assert eventually(lambda: run.view.died)
    assert recover(state_of(run)) == []
    assert run.finished().json("end_state.json")["written_by"] == "sidecar"


def test_other_rigs_and_other_computers_are_left_alone(start: Start, tmp_path: Path) -> None:
    run = start(["log", "x"], ["die"], sidecar=False)
    foreign = start(["log", "x"], ["die"], name="s2", sidecar=False, host="another-pc")
    run.wait()
    foreign.wait()
    (tmp_path / "other").mkdir()
    assert recover(tmp_path / "other", run.folder.parent) == []
    state_of(run).mkdir(exist_ok=True)
    assert recover(state_of(run), run.folder.parent) == ["session s1 had no ending and was finished as crashed"]
    assert foreign.view.died is None
    run.finished()


def test_recovery_by_hand_tells_of_a_wrong_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", "--rig-config", str(tmp_path / "rg.yaml")]) == 4
    said = capsys.readouterr().err
    assert said.startswith("ERROR: ")
    assert "there is no such file -> " in said
    assert main(["recover", "--nonsense"]) == 4
    assert re.search("ERROR: No such option.*--nonsense", capsys.readouterr().err)


def test_recovery_by_hand(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    run = start(["log", "x"], ["die"], sidecar=False)
    run.wait()
    state_of(run).mkdir(exist_ok=True)
    assert main(["recover", "--output-root", str(run.folder.parent)]) == 0
    assert "session s1 had no ending and was finished as crashed" in capsys.readouterr().out
    run.finished()
    assert main(["recover", "--output-root", str(run.folder.parent)]) == 0
    assert capsys.readouterr().out == "nothing to recover\n"


def test_a_deleted_folder_is_forgotten_and_a_missing_disk_is_not(tmp_path: Path) -> None:
    state = tmp_path / "state"
    mark_unfinished(state, "gone", tmp_path / "gone")
    unplugged = mark_unfinished(state, "unplugged", tmp_path / "disk" / "unplugged")
    assert recover(state) == []
    assert list((state / "unfinished").iterdir()) == [unplugged]


def test_a_damaged_session_does_not_keep_the_others(start: Start, tmp_path: Path) -> None:
    run = start(["log", "x"], ["die"], sidecar=False)
    run.wait()
    broken = tmp_path / "data" / "broken"
    (broken / METADATA).mkdir(parents=True)
    session = {**(run.view.session or {}), "session_uuid": "broken"}
    (broken / METADATA / JOURNAL).write_text(json.dumps(session) + "\n\0\0garbage\n{\n")
    (broken / METADATA / "launcher.log").mkdir()
    state_of(run).mkdir(exist_ok=True)
    lines = recover(state_of(run), tmp_path / "data")
    assert any("session s1 had no ending" in line for line in lines)
    assert json.loads((broken / METADATA / "end_state.json").read_text())["outcome"] == "crashed"
    run.wait_gone()


def test_a_damaged_note_does_not_keep_the_others(start: Start, tmp_path: Path) -> None:
    run = start(["log", "x"], ["die"], sidecar=False)
    run.wait()
    broken = tmp_path / "data" / "broken"
    broken.mkdir()
    note = {"host": socket.gethostname(), "pid": None, "create_time": None, "state_directory": 5}
    mark_unfinished(state_of(run), "broken", broken, session=note)
    mark_unfinished(state_of(run), "s1", run.folder)
    lines = recover(state_of(run))
    assert any(line.startswith("session broken could not be recovered: TypeError") for line in lines)
    assert any("session s1 had no ending" in line for line in lines)
    run.wait_gone()


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("survived_writes", range(0, 14))
def test_a_witness_that_is_killed_is_repeated_without_doubling(tmp_path: Path, survived_writes: int, monkeypatch: Any) -> None:
    folder = tmp_path / "s1"
    (folder / METADATA).mkdir(parents=True)
    (folder / "raw.log").write_bytes(b"".join(b"line %d\n" % number for number in range(10)))
    journal = Journal(folder / METADATA / JOURNAL)
    journal.write(
        "session", session_uuid="s1", subject_id="m", user_id="u", rig_id="r", started="2026-01-01T10:00:00+00:00", pid=1
    )
    journal.write("step_started", phase="acquisition", step="video")
    log = LogWriter(folder / METADATA / "launcher.log")
    journal.write("acquisition_started", name="camera", pid=0, stdout="raw.log")
    journal.write("acquisition_batch", name="camera", stream="stdout", raw_from=0, log_size=log.size)
    log.record("INFO", "acquisition.camera.stdout", "line 0")
    log.write(b"2026-01-01T10:00:00.000000+00:00 INFO - - torn li")
    journal.close()
    writes = 0
    real_log, real_journal = LogWriter.write, Journal.write

    def counted(real: Any) -> Any:
        def write(self: Any, *args: Any, **fields: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes > survived_writes:
                raise Interrupted
            return real(self, *args, **fields)

        return write

    monkeypatch.setattr(LogWriter, "write", counted(real_log))
    monkeypatch.setattr(Journal, "write", counted(real_journal))
    witness_path = folder / METADATA / "witness.jsonl"
    view = SessionView.of(folder)
    try:
        Witness(view, Journal(witness_path), ()).finish(KILLED)
    except Interrupted:
        pass
    monkeypatch.setattr(LogWriter, "write", real_log)
    monkeypatch.setattr(Journal, "write", real_journal)
    run = Run.__new__(Run)
    run.folder, run.metadata = folder, folder / METADATA
    if run.view.ended is None:
        Witness(run.view, Journal(witness_path), (), recovered=True).finish()
    lines = [entry.message for entry in run.entries() if entry.logger == "acquisition.camera.stdout"]
    assert lines == [f"line {number}" for number in range(10)]
    assert len(run.messages("pytest_openscope.session")) == 2
    assert len(run.messages("pytest_openscope.witness")) == 1
    assert HOW_KILLED in run.json("debug_state.json")["exception"] or survived_writes == 0
    assert run.json("end_state.json")["outcome"] == "crashed"


def test_a_damaged_journal_still_gives_an_ending(tmp_path: Path) -> None:
    folder = tmp_path / "s1"
    (folder / METADATA).mkdir(parents=True)
    journal = Journal(folder / METADATA / JOURNAL)
    journal.write("session", session_uuid="s1", started=[1], pid=1, stop={"graceful_s": "soon"}, mirror_directory=None)
    journal.write("step_started", phase="lunch", step=None)
    journal.write("acquisition_started", name="camera", pid="?")
    journal.write("kept", field="failures", values=[{"outcome": "nonsense"}])
    (folder / METADATA / "end_state.json").write_text('{"experiment_data": [1], "lost_records": "many", "notes": 5}')
    view = SessionView.of(folder)
    Witness(view, Journal(folder / METADATA / "witness.jsonl"), ()).finish(KILLED)
    assert json.loads((folder / METADATA / "end_state.json").read_text())["outcome"] == "crashed"
    assert json.loads((folder / METADATA / "debug_state.json").read_text())["failure"]["message"].startswith(
        ("the experiment process was ended by SIGKILL", "the experiment process ended with exit code 9")
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal of POSIX; the sidecar writes to no console of Windows")
def test_the_operator_is_told_on_the_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "s1"
    (folder / METADATA).mkdir(parents=True)
    journal = Journal(folder / METADATA / JOURNAL)
    journal.write("session", session_uuid="s1", started="2026-01-01T10:00:00+00:00", pid=1)
    view = SessionView.of(folder)
    controller, terminal = os.openpty()
    Witness(view, Journal(folder / METADATA / "witness.jsonl"), ()).finish(-11, terminal=os.ttyname(terminal))
    shown = os.read(controller, 4096).decode()
    os.close(controller)
    os.close(terminal)
    assert "the experiment process was ended by SIGSEGV before the first step" in shown
    assert f"session folder: {folder}" in shown
