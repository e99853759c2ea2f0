"""The sidecar and the mirror together: what a session is told, what its files say, and who finishes what is left."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from sidecar_kit import Start

from pytest_openscope.records.folder import METADATA
from pytest_openscope.sidecar.recovery import recover


def copy_of(share: Path) -> Path:
    return next(share.glob("*/*/*/rig1/s1"))


def test_a_verified_mirror_is_told_written_down_and_copied(start: Start, tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    run = start(["ready"], ["log", "x", 100], ["end"], mirror_directory=str(share))
    assert run.wait() == 0
    assert run.told[-1]["done"] is True
    assert run.told[-1]["mirror"]["status"] == "verified"
    run.finished()
    mirror = run.json("end_state.json")["mirror"]
    assert (mirror["status"], mirror["bytes_behind"]) == ("verified", 0)
    copy = copy_of(share)
    assert (copy / "launcher.log").read_bytes() == (run.metadata / "launcher.log").read_bytes()
    assert json.loads((copy / "end_state.json").read_text())["mirror"]["status"] == "verified"


def test_a_crashed_session_is_mirrored_with_its_ending(start: Start, tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    run = start(["ready"], ["log", "x", 100], ["step", "acquisition", "video"], ["die"], mirror_directory=str(share))
    run.wait()
    run.finished()
    copy = copy_of(share)
    assert (copy / "launcher.log").read_bytes() == (run.metadata / "launcher.log").read_bytes()
    assert b"outcome: crashed" in (copy / "launcher.log").read_bytes()
    assert json.loads((copy / "debug_state.json").read_text())["failure"]["kind"] == "crash"


def test_a_missing_share_is_pending_and_the_next_session_finishes_it(start: Start, tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.write_text("in the way")
    plan = [["ready"], ["log", "x", 100], ["end", "passed", 10.0, "mirror"]]
    run = start(*plan, mirror_directory=str(share), mirror_finish_s=2.0)
    assert run.wait() == 0
    assert run.told[-1]["done"] is False
    assert run.told[-1]["mirror"]["status"] == "pending"
    assert run.told[-1]["mirror"]["bytes_behind"] == (run.metadata / "launcher.log").stat().st_size
    run.wait_gone()
    mirror = run.json("end_state.json")["mirror"]
    assert mirror["status"] == "pending"
    assert mirror["reason"]
    state = run.folder.parent / "state"
    assert [path.name for path in (state / "unfinished").iterdir()] == ["s1.json"]
    share.unlink()
    share.mkdir()
    assert recover(state) == ["session s1 had ended (passed) without its sidecar; its mirror is being completed"]
    run.finished()
    assert run.json("end_state.json")["mirror"]["status"] == "verified"
    assert (copy_of(share) / "launcher.log").read_bytes() == (run.folder / METADATA / "launcher.log").read_bytes()
    assert not list((state / "unfinished").iterdir())
