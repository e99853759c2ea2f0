"""The central mirror of real sessions: healthy, missing, late, shared by many, and after a kill."""

from __future__ import annotations

import json
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import warm
from share_kit import assert_mirrored, json_of, mirror_status, own_folder, processes_of, session_log, start, use_share
from step_kit import PACE

CHATTY = """
@pytest.mark.pre_acquisition
def test_check():
    logging.getLogger("lab").info("shutter closed\\nand locked")

def test_acquire(acquisition):
    for number in range(300):
        logging.getLogger("lab").info("record %d", number)
    acquisition.run(command=[sys.executable, "-c", "for i in range(200): print('frame', i)"])

@pytest.mark.post_acquisition
def test_save():
    open("last_step", "w").write(repr(time.time()))
"""
#: The last step, once the session log has a warning of the mirror.
SAVE_WARNED = """
def test_save(experiment):
    log = experiment.session_folder / "launcher_metadata" / "launcher.log"
    until = time.monotonic() + 60
    while "Central mirror" not in log.read_text(encoding="utf-8") and time.monotonic() < until:
        time.sleep(0.05)
"""
#: How long a session and its sidecar go on for a share that is not there: a mirror worker of its own must have started by then.
WAIT_S, FINISH_S = (0.5, 1) if sys.platform != "win32" else (2, 30)
#: Chats until the file ``stop`` appears.
UNTIL_STOP = """
def test_acquire():
    number = 0
    until = time.monotonic() + 60
    while not os.path.exists("stop") and time.monotonic() < until:
        logging.getLogger("lab").info("record %d", number)
        number += 1
        time.sleep(0.01)
"""


def ended_after_s(bench: Any) -> float:
    return time.time() - float((bench.path / "last_step").read_text())


def warnings_of(bench: Any) -> list[str]:
    return [entry.message for entry in bench.log if entry.level == "WARNING" and entry.message.startswith("Central mirror")]


@pytest.fixture
def share(bench: Any) -> Path:
    path = use_share(bench, bench.path / "share", mirror_wait_s=60)
    path.mkdir()
    return path


def test_a_healthy_share(bench: Any, share: Path) -> None:
    bench.steps(CHATTY)
    result = bench.run()
    took_s = ended_after_s(bench)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["mirror: verified"])
    mirror = bench.end["mirror"]
    assert (mirror["status"], mirror["bytes_behind"]) == ("verified", 0)
    assert not warnings_of(bench)
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, ("bench", bench.folder))
    assert json.loads((own_folder(share, bench.folder) / "end_state.json").read_text())["mirror"]["status"] == "verified"
    assert (own_folder(share, bench.folder) / "resource_usage.json").exists()
    assert took_s < 50


def test_the_folder_is_named_after_the_day_of_the_start(bench: Any, share: Path) -> None:
    bench.steps("def test_acquire(): pass\n")
    bench.run_here()
    day = datetime.fromisoformat(bench.end["start_time"])
    assert own_folder(share, bench.folder) == share / day.strftime("%Y/%m/%d") / "bench" / bench.folder.name
    assert (share / day.strftime("%Y/%m/%d") / "launcher.log").exists()


def test_two_sessions_of_a_day(bench: Any, share: Path) -> None:
    bench.steps(CHATTY)
    assert [bench.run_here().ret, bench.run_here().ret] == [0, 0]
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, *(("bench", folder) for folder in bench.folders))


def test_a_failed_session_leaves_its_debug_state_in_the_mirror(bench: Any, share: Path) -> None:
    bench.steps("def test_acquire():\n    assert False, 'no signal'\n")
    assert bench.run_here().ret == 1
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, ("bench", bench.folder))
    copy = own_folder(share, bench.folder) / "debug_state.json"
    assert copy.read_bytes() == (bench.folder / "launcher_metadata" / "debug_state.json").read_bytes()


def test_a_dry_run_writes_nothing_there(bench: Any, share: Path) -> None:
    bench.steps(CHATTY)
    result = bench.run_here("--dry-run")
    assert result.ret == 0
    assert bench.end["mirror"]["status"] == "off"
    assert not list(share.iterdir())
    result.stdout.no_fnmatch_line("mirror:*")
    bench.wait_for(lambda: not processes_of(bench.path))


def test_without_a_central_directory_the_mirror_is_off(bench: Any) -> None:
    bench.steps(CHATTY)
    assert bench.run_here().ret == 0
    assert bench.end["mirror"]["status"] == "off"


def test_the_parameters_name_the_share_too(bench: Any) -> None:
    share = bench.path / "elsewhere"
    share.mkdir()
    bench.steps("def test_acquire(): pass\n")
    assert bench.run_here("--param", f"centralized_log_directory={share}").ret == 0
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, ("bench", bench.folder))


def spoil(path: Path, how: str) -> None:
    if how == "a file is in its place":
        path.parent.mkdir()
        path.write_text("not a directory")
    elif how == "read-only":
        path.mkdir(parents=True)
        # The root user may write everywhere, but not into a folder that is a file.
        path.joinpath(time.strftime("%Y")).write_text("not a directory")


def mend(path: Path, how: str) -> None:
    if path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)


def test_no_share_at_the_start(bench: Any) -> None:
    """The experiment does not notice; the sidecar, which is still there, finishes the copy when the share comes.

    The warning comes while the session runs, or (``missing``) while it waits for the mirror, its log being complete.
    """
    # By itself, since it has little more time than it waits for the mirror.
    no_share_at_the_start(bench.beside("missing"), "missing")


def test_no_usable_share_at_the_start(bench: Any) -> None:
    bench.at_once(no_share_at_the_start, ["a file is in its place", "read-only"])


def no_share_at_the_start(bench: Any, how: str) -> None:
    late = how == "missing"
    share = use_share(bench, bench.path / "server" / "share", mirror_wait_s=4 * PACE if late else 1)
    spoil(share, how)
    bench.steps(CHATTY if late else CHATTY.replace("def test_save():", SAVE_WARNED))
    result = bench.run()
    took_s = ended_after_s(bench)
    assert result.ret == 0
    assert (bench.end["outcome"], bench.end["lost_records"]) == ("passed", 0)
    assert took_s < 50
    assert len(warnings_of(bench)) == 1
    assert str(share) in warnings_of(bench)[0]
    assert result.stdout.str().count("Central mirror: ") + result.stderr.str().count("Central mirror: ") == 1
    result.stdout.fnmatch_lines(["mirror: pending (* bytes behind: *)"])
    mirror = bench.wait_for(lambda: "not confirmed" not in bench.end["mirror"]["reason"] and bench.end["mirror"])
    assert mirror["status"] == "pending"
    assert mirror["bytes_behind"] == len(session_log(bench.folder))
    assert str(share) in mirror["reason"]
    mend(share, how)
    bench.wait_for(lambda: mirror_status(bench.folder) == "verified")
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, ("bench", bench.folder))


def test_the_next_session_finishes_the_copy(bench: Any) -> None:
    share = use_share(bench, bench.path / "server" / "share", mirror_wait_s=WAIT_S, mirror_finish_s=FINISH_S)
    bench.steps(CHATTY)
    assert bench.run().ret == 0
    (first,) = bench.folders
    bench.wait_for(lambda: not processes_of(bench.path))
    assert mirror_status(first) == "pending"
    share.mkdir(parents=True)
    use_share(bench, share)
    result = bench.run()
    assert result.ret == 0
    assert first.name in result.stdout.str()
    bench.wait_for(lambda: [mirror_status(folder) for folder in bench.folders] == ["verified", "verified"])
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, *(("bench", folder) for folder in bench.folders))
    assert not list((bench.path / "state" / "unfinished").iterdir())


def test_recover_finishes_the_copy_by_hand(bench: Any) -> None:
    share = use_share(bench, bench.path / "server" / "share", mirror_wait_s=WAIT_S, mirror_finish_s=FINISH_S)
    bench.steps(CHATTY)
    assert bench.run().ret == 0
    bench.wait_for(lambda: not processes_of(bench.path))
    share.mkdir(parents=True)
    command = [sys.executable, "-m", "pytest_openscope", "recover", "--rig-config", "rig.yaml"]
    result = warm.run(command, cwd=bench.path)
    assert result.returncode == 0
    assert bench.folder.name in result.stdout
    bench.wait_for(lambda: mirror_status(bench.folder) == "verified")
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, ("bench", bench.folder))


def test_the_share_comes_and_goes(bench: Any) -> None:
    bench.at_once(lambda rig, check: check(rig), [the_share_appears_in_the_middle, the_share_goes_and_comes_back])


def the_share_appears_in_the_middle(bench: Any) -> None:
    share = use_share(bench, bench.path / "server" / "share")
    bench.steps(UNTIL_STOP)
    process = start(bench)
    bench.wait_for(lambda: warnings_of(bench))
    share.mkdir(parents=True)
    bench.wait_for(lambda: any("answers again" in entry.message for entry in bench.log))
    (bench.path / "stop").touch()
    assert process.wait(100) == 0
    assert mirror_status(bench.folder) == "verified"
    assert len(warnings_of(bench)) == 1
    assert "mirror: verified" in (bench.path / "output.txt").read_text()
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, ("bench", bench.folder))


def the_share_goes_and_comes_back(bench: Any) -> None:
    share = use_share(bench, bench.path / "share")
    share.mkdir()
    bench.steps(UNTIL_STOP)
    process = start(bench)
    bench.wait_for(lambda: own_folder(share, bench.folder) / "launcher.log")
    away = share.rename(bench.path / "away")
    bench.wait_for(lambda: warnings_of(bench))
    assert not share.exists()
    away.rename(share)
    bench.wait_for(lambda: any("answers again" in entry.message for entry in bench.log))
    (bench.path / "stop").touch()
    assert process.wait(100) == 0
    assert mirror_status(bench.folder) == "verified"
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, ("bench", bench.folder))


def test_three_sessions_at_once(bench: Any) -> None:
    """Three rigs, each with a state directory of its own, append to one day's log; `tests/stress` has more of them."""
    share = bench.path / "share"
    share.mkdir()
    bench.steps(CHATTY)
    processes = []
    for number in range(3):
        use_share(bench, share, f"rig{number}", f"sessions{number}", state_directory=f"state{number}", mirror_wait_s=30)
        rig = (bench.path / "rig.yaml").rename(bench.path / f"rig{number}.yaml")
        processes.append(start(bench, "--rig-config", rig, output=f"output{number}.txt"))
    assert [process.wait(120) for process in processes] == [0] * 3
    sessions = [(f"rig{number}", next((bench.path / f"sessions{number}").iterdir())) for number in range(3)]
    assert [mirror_status(folder) for _, folder in sessions] == ["verified"] * 3
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, *sessions)


def test_a_killed_experiment_is_mirrored_to_its_footer(bench: Any, share: Path) -> None:
    bench.steps(UNTIL_STOP)
    process = start(bench)
    bench.wait_for(lambda: "record 20" in bench.messages)
    process.kill()
    process.wait()
    bench.wait_for(lambda: mirror_status(bench.folder) == "verified")
    bench.wait_for(lambda: not processes_of(bench.path))
    assert bench.log[-1].message.startswith("outcome: crashed")
    assert_mirrored(share, ("bench", bench.folder))
    assert json_of(bench.folder, "debug_state.json")["kind"] == "crash"


def test_a_foreign_file_is_left_alone(bench: Any, share: Path) -> None:
    """Somebody else's ``launcher.log`` lies where the copies belong: the session's and the day's."""
    bench.steps(CHATTY.replace("def test_save():", "def test_save():\n    time.sleep(1)"))
    uuid = "mouse7_of_another_pc"
    folder = share / time.strftime("%Y/%m/%d") / "bench" / uuid
    folder.mkdir(parents=True)
    (folder / "launcher.log").write_text("somebody else's\n")
    (folder.parent.parent / "launcher.log").write_text("not a day's log of ours\n")
    result = bench.run_here("--param", f"session_uuid={uuid}")
    assert result.ret == 0
    bench.wait_for(lambda: not processes_of(bench.path))
    assert (folder / "launcher.log").read_text() == "somebody else's\n"
    assert (folder / "launcher-2.log").read_bytes() == session_log(bench.folder)
    assert (folder.parent.parent / "launcher.log").read_text().startswith("not a day's log of ours\n")
    assert bench.end["mirror"]["status"] == "verified"
    assert "launcher-2.log" in " ".join(warnings_of(bench))
