"""Endings that only a nasty operator, a strange step or a strange system thinks of; each in a session of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from share_kit import assert_mirrored, json_of, mirror_status, processes_of, session_log, start, use_share
from step_kit import KILL, PACE

held_open = pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no file that a program has open")
needs_forks = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")

#: A laser that a fixture switches on, an acquisition step, and two steps that save.
EXPERIMENT = """
LOG = open("laser.txt", "a", buffering=1)

@pytest.fixture(scope="session")
def laser():
    LOG.write("on\\n")
    yield
    LOG.write("off\\n")

CAMERA = [sys.executable, "-u", "-c", "import time\\nfor i in range(3000): print('frame', i); time.sleep(0.01)"]

def watched(experiment):
    while not (experiment.session_folder / "launcher_metadata/resource_usage.json").exists():
        time.sleep(0.01)

def test_acquire(acquisition, laser, experiment):
    {body}

def test_acquire_more(laser):
    logging.info("more")

@pytest.mark.post_acquisition
def test_save(laser):
    {post}

@pytest.mark.post_acquisition
def test_save_again(laser):
    logging.info("saved again")
"""


def write_steps(bench: Any, body: str = "pass", post: str = "pass") -> None:
    bench.steps(EXPERIMENT.format(body=body, post=post))


def laser(bench: Any) -> list[str]:
    return (bench.path / "laser.txt").read_text(encoding="utf-8").split()


def printed(bench: Any) -> str:
    return (bench.path / "output.txt").read_text(encoding="utf-8", errors="replace")


def footers(bench: Any) -> int:
    return sum(entry.message.startswith("outcome: ") for entry in bench.log)


def assert_whole(bench: Any, outcome: str) -> None:
    """One footer, at the end; the states are JSON and agree; nobody is left."""
    bench.wait_for(lambda: not processes_of(bench.path))
    assert bench.end["outcome"] == outcome
    # The mirror may say later that it was slow.
    last = [entry.message for entry in bench.log if entry.logger != "pytest_openscope.mirror"][-1]
    assert last.startswith(f"outcome: {outcome}")
    assert footers(bench) == 1
    assert bench.has_debug == (outcome != "passed")
    for path in (bench.folder / "launcher_metadata").glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))


# -- steps that do not stay what they were ----------------------------------------------------------------------------


@needs_forks
def test_a_fork_that_leaves_its_step_is_ended(bench: Any) -> None:
    """Otherwise it runs all other steps too and switches the laser off under its parent."""
    share = use_share(bench, bench.path / "share")
    share.mkdir()
    write_steps(bench, "pid = os.fork()\n    if pid: os.waitpid(pid, 0)\n    logging.info('one of two')")
    assert bench.run().ret == 0
    assert_whole(bench, "passed")
    assert laser(bench) == ["on", "off"]
    assert bench.messages.count("one of two") == 2
    assert "a fork of the experiment process" in bench.messages
    assert bench.messages.count("saved again") == 1
    assert mirror_status(bench.folder) == "verified"


@needs_forks
def test_a_fork_that_outlives_its_parent_writes_no_second_ending(bench: Any) -> None:
    use_share(bench, bench.path / "share")
    (bench.path / "share").mkdir()
    body = (
        "watched(experiment)\n    parent = os.getpid()\n    if os.fork():\n        os.kill(parent, signal.SIGKILL)\n"
        "    while 'outcome: crashed' not in (experiment.session_folder / 'launcher_metadata/launcher.log').read_text():\n"
        "        time.sleep(0.02)\n    logging.info('a voice from the grave')"
    )
    write_steps(bench, body)
    assert start(bench).wait(100) == -signal.SIGKILL
    bench.wait_for(lambda: bench.end["outcome"] is not None)
    assert_whole(bench, "crashed")
    assert "a voice from the grave" not in bench.messages
    assert_mirrored(bench.path / "share", ("bench", bench.folder))


def test_a_signal_that_a_step_took_is_taken_back(bench: Any) -> None:
    takers = [(name, taken) for name in ("SIGINT", "SIGTERM") for taken in ("signal.SIG_IGN", "lambda *_: None")]
    bench.at_once(a_signal_that_a_step_took_is_taken_back, takers)


def a_signal_that_a_step_took_is_taken_back(bench: Any, taker: tuple[str, str]) -> None:
    name, taken = taker
    write_steps(bench, f"signal.signal(signal.{name}, {taken})", f"signal_me(signal.{name}); time.sleep(20)")
    assert bench.run().ret == 2
    assert_whole(bench, "interrupted")
    assert f"{name} had been given another handler" in bench.messages
    assert bench.outcomes()["test_save"] == "interrupted"
    assert laser(bench) == ["on", "off"]


@needs_forks
def test_a_fork_hears_signals_as_without_a_session(bench: Any) -> None:
    """A pool ends its workers by SIGTERM and waits for them."""
    body = (
        "child = os.fork()\n    if not child:\n        lock = threading.Lock(); lock.acquire()\n        while True:\n"
        "            try:\n                lock.acquire()\n            except BaseException:\n                pass\n"
        "    os.kill(child, signal.SIGTERM)\n    assert os.waitpid(child, 0)[1] == signal.SIGTERM"
    )
    write_steps(bench, body)
    assert bench.run("--timeout=20").ret == 0
    assert_whole(bench, "passed")
    assert "SIGTERM" not in "\n".join(bench.messages)


POOL = "spawn" if sys.platform == "win32" else "fork"
STRANGE = {
    "sys.settrace": "sys.settrace(lambda *_: None)",
    "gc": "import gc; gc.disable(); gc.set_threshold(0)",
    # Windows keeps a folder in which a process works.
    "removed cwd": "pass" if sys.platform == "win32" else "os.mkdir('sub'); os.chdir('sub'); os.rmdir('../sub')",
    "cancelled tasks": (
        "import asyncio\n    async def main():\n        tasks = [asyncio.ensure_future(asyncio.sleep(50)) for _ in range(9)]\n"
        "        await asyncio.sleep(0.01)\n        [task.cancel() for task in tasks]\n    asyncio.run(main())"
    ),
    "an open pool": (
        f"import multiprocessing\n    experiment.pool = multiprocessing.get_context({POOL!r}).Pool(2)\n"
        "    assert experiment.pool.map(len, ['ab', 'c']) == [2, 1]"
    ),
    "odd characters": r"logging.info('a\udc80b\0c\ud800 \r\n\x1b[31m \u2028 end')",
    "fifty threads": (
        "log = lambda i: [logging.info('%d %d', i, j) for j in range(40)]\n"
        "    threads = [threading.Thread(target=log, args=(i,)) for i in range(50)]\n"
        "    [thread.start() for thread in threads]; [thread.join() for thread in threads]"
    ),
}


def test_strange_steps_change_nothing(bench: Any) -> None:
    share = use_share(bench, bench.path / "share")
    share.mkdir()
    steps = "".join(f"\ndef test_{number}(experiment):\n    {body}\n" for number, body in enumerate(STRANGE.values()))
    bench.steps(EXPERIMENT.format(body="pass", post="pass") + steps)
    assert bench.run().ret == 0
    assert_whole(bench, "passed")
    assert len(session_log(bench.folder).splitlines()) > 2000
    assert b"\0" not in session_log(bench.folder)
    assert_mirrored(share, ("bench", bench.folder))


# -- timeouts and signals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["pass", "raise ValueError('hidden')"])
def test_a_timeout_that_a_step_swallows_is_a_timeout(bench: Any, then: str) -> None:
    write_steps(bench, f"try:\n        time.sleep(20)\n    except BaseException:\n        {then}")
    assert bench.run("--timeout=0.4").ret == 1
    assert_whole(bench, "timeout")
    assert bench.outcomes()["test_acquire"] == "timeout"
    assert "took longer than 0.4 s" in bench.debug["exception"]


def test_a_call_that_held_the_gil_beyond_its_timeout_has_timed_out(bench: Any) -> None:
    """No thread could interrupt it, and it came back before the sidecar had to end it."""
    write_steps(bench, "hang(0.9)")
    assert bench.run("--timeout=0.4").ret == 1
    assert_whole(bench, "timeout")
    assert bench.outcomes()["test_acquire"] == "timeout"


def test_the_session_timeout_counts_during_a_teardown(bench: Any) -> None:
    """There no step can be interrupted; the acquisition steps that follow are left out."""
    write_steps(bench, "pass")
    path = bench.path / "test_experiment.py"
    text = path.read_text(encoding="utf-8").replace('scope="session"', 'scope="function"')
    path.write_text(text.replace('LOG.write("off', f'time.sleep({PACE + 0.4}); LOG.write("off'), encoding="utf-8")
    bench.write("rig.yaml", f"rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\nsession_timeout: {PACE}\n")
    assert bench.run().ret == 1
    assert_whole(bench, "timeout")
    assert bench.debug["kind"] == "timeout"
    assert bench.outcomes()["test_acquire_more"].startswith("skipped: session timeout")
    assert bench.outcomes()["test_save_again"] == "passed"


def test_the_session_timeout_in_post_acquisition(bench: Any) -> None:
    write_steps(bench, post="time.sleep(90)")
    assert bench.run(f"--session-timeout={2 * PACE}").ret == 1
    assert_whole(bench, "timeout")
    assert (bench.outcomes()["test_save"], bench.outcomes()["test_save_again"]) == ("timeout", "passed")
    assert laser(bench)[-1] == "off"


def test_both_timeouts_at_once(bench: Any) -> None:
    write_steps(bench, "time.sleep(20)")
    assert bench.run(f"--timeout={PACE}", f"--session-timeout={PACE}").ret == 1
    assert_whole(bench, "timeout")
    assert (bench.outcomes()["test_acquire"], bench.outcomes()["test_save"]) == ("timeout", "passed")


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no SIGHUP; its twin is test_windows_endings.py, where a console is closed"
)
def test_signals_of_a_system_that_closes_are_one_request(bench: Any) -> None:
    """A terminal sends SIGHUP twice when it is closed, a service manager SIGTERM and SIGHUP."""
    bench.at_once(two_signals_are_one_request, [("SIGHUP", "SIGHUP"), ("SIGTERM", "SIGHUP"), ("SIGINT", "SIGTERM")])


def two_signals_are_one_request(bench: Any, signals: tuple[str, str]) -> None:
    body = "try:\n        open('ready', 'w').close(); time.sleep(20)\n    finally:\n        open('asked', 'w').close()"
    body += "; time.sleep(0.3)"
    write_steps(bench, body)
    bench.steps(
        (bench.path / "test_experiment.py").read_text().replace("    try:\n", "    open('ready', 'w').close()\n    try:\n")
    )
    process = start(bench)
    bench.wait_for((bench.path / "ready").exists)
    process.send_signal(getattr(signal, signals[0]))
    bench.wait_for((bench.path / "asked").exists)
    process.send_signal(getattr(signal, signals[1]))
    assert process.wait(100) == 2
    assert_whole(bench, "interrupted")
    assert bench.outcomes()["test_save"] == "passed"
    assert laser(bench) == ["on", "off"]


def test_ctrl_c_again_and_again_in_a_teardown(bench: Any) -> None:
    write_steps(bench, "pass")
    path = bench.path / "test_experiment.py"
    text = path.read_text(encoding="utf-8").replace('scope="session"', 'scope="module"')
    hits = "for _ in range(3): signal_me(); time.sleep(0.05)"
    path.write_text(text.replace('    LOG.write("off', f'    {hits}\n    LOG.write("off'), encoding="utf-8")
    assert bench.run().ret == 2
    assert_whole(bench, "interrupted")
    assert laser(bench) == ["on", "off"]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals of POSIX; Windows has none that a test could type into")
@pytest.mark.parametrize(
    "keys", [[b"\x03"], [b"\x03\x03\x03"], [b"the mouse slept\n", b"\x03"]], ids=["once", "thrice", "after a line"]
)
def test_ctrl_c_at_the_question_for_notes(bench: Any, keys: list[bytes]) -> None:
    """Everything has been done by then: the session is as good as its steps."""
    bench.write("rig.yaml", "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\nask_notes: true\n")
    write_steps(bench)
    assert on_a_terminal(bench, list(zip([b"Notes on this session", b"..."], keys, strict=False))) == 0
    assert_whole(bench, "passed")
    assert "the session is ending already" in bench.messages
    notes = bench.end["experiment_data"]["experiment_notes"]
    assert notes == "".join(key.decode().strip() for key in keys if b"\x03" not in key)


def on_a_terminal(bench: Any, answers: list[tuple[bytes, bytes]], *arguments: str) -> int:
    """Run an experiment whose terminal this is; type each answer after its question, in this order."""
    import pty
    import select
    import shlex

    pid, master = pty.fork()
    if pid == 0:
        os.chdir(bench.path)
        command = [part for part in bench.command(*arguments) if part != "--no-input"]
        os.execv("/bin/sh", ["sh", "-c", "exec " + shlex.join(command)])
    shown, unread, last, deadline = b"", b"", b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 1.0)[0]:
            # A Ctrl-C between Python's prompt and its read takes effect with the next key only.
            os.write(master, last)
            continue
        try:
            block = os.read(master, 4096)
        except OSError:
            break
        if not block:
            break
        shown, unread = shown + block, unread + block
        if answers and answers[0][0] in unread:
            last, unread = answers.pop(0)[1], b""
            os.write(master, last)
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(master)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert b"Traceback" not in shown, shown.decode(errors="replace")
    return code


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Ctrl-Z, and tells of no process that it is stopped")
def test_a_stopped_process_is_not_killed_for_its_timeout(bench: Any) -> None:
    """Ctrl-Z or a debugger: it did not hang, and can end its step by itself when it goes on."""
    write_steps(bench, "open('ready', 'w').close()\n    acquisition.run(command=CAMERA)")
    process = start(bench, "--timeout=0.5", "--param", "grace_s=1.5", start_new_session=True)
    bench.wait_for((bench.path / "ready").exists)
    sidecar_log = bench.folder / "launcher_metadata" / "sidecar.log"
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        time.sleep(2.5)  # deadline, grace period and some ticks of the sidecar
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    assert process.wait(100) == 1, sidecar_log.read_text(encoding="utf-8")
    assert_whole(bench, "timeout")
    assert bench.outcomes()["test_save"] == "passed"
    assert laser(bench)[-1] == "off"
    assert "the experiment process is stopped" in bench.messages


def test_a_sidecar_that_was_killed_twice_is_told(bench: Any) -> None:
    """The experiment goes on without it; the next session on the rig sees to its mirror."""
    share = use_share(bench, bench.path / "share")
    share.mkdir()
    body = "watched(experiment)\n    open('ready', 'w').close()\n    while not os.path.exists('go'): time.sleep(0.01)"
    write_steps(bench, body)
    process = start(bench)
    bench.wait_for((bench.path / "ready").exists)
    witness = bench.folder / "launcher_metadata" / "witness.jsonl"

    def sidecars() -> list[int]:
        return [event["pid"] for event in map(json.loads, witness.read_text(encoding="utf-8").splitlines()) if "pid" in event]

    os.kill(sidecars()[0], KILL)
    bench.wait_for(lambda: len(sidecars()) == 2)
    os.kill(sidecars()[1], KILL)
    bench.wait_for(lambda: "the sidecar is gone" in bench.messages)
    (bench.path / "go").touch()
    assert process.wait(100) == 0
    assert "mirror: pending (the sidecar is gone" in printed(bench)
    assert "None bytes" not in printed(bench)
    first = bench.folder
    assert "the sidecar is gone" in json_of(first, "end_state.json")["mirror"]["reason"]
    bench.wait_for(lambda: not processes_of(bench.path))
    assert start(bench).wait(100) == 0
    bench.wait_for(lambda: not processes_of(bench.path))
    assert [mirror_status(folder) for folder in bench.folders] == ["verified", "verified"]
    assert_mirrored(share, *(("bench", folder) for folder in bench.folders))


# -- files that go away -----------------------------------------------------------------------------------------------


def run_with(bench: Any, harm: Any, mirror_finish_s: float = 60) -> int:
    """Do ``harm`` to the metadata folder while a program runs."""
    share = use_share(bench, bench.path / "share", mirror_finish_s=mirror_finish_s)
    share.mkdir()
    run = "acquisition.run(command=[sys.executable, '-u', '-c', 'import time\\nfor i in range(80): print(i); time.sleep(.01)'])"
    write_steps(bench, f"watched(experiment)\n    open('ready', 'w').close()\n    {run}")
    process = start(bench)
    bench.wait_for((bench.path / "ready").exists)
    harm(bench.folder / "launcher_metadata")
    return process.wait(100)


def test_a_journal_that_goes_away(bench: Any) -> None:
    """The sidecar must not take a session for dead whose ending it could not read."""
    bench.at_once(a_journal_goes_away, ["emptied"] if sys.platform == "win32" else ["deleted", "emptied"])


def a_journal_goes_away(bench: Any, how: str) -> None:

    def harm(metadata: Path) -> None:
        journal = metadata / "journal.jsonl"
        journal.unlink() if how == "deleted" else os.truncate(journal, 0)

    assert run_with(bench, harm) == 0, printed(bench)
    assert_whole(bench, "passed")
    assert_mirrored(bench.path / "share", ("bench", bench.folder))


@held_open
def test_a_deleted_session_log_is_written_once_more(bench: Any) -> None:
    assert run_with(bench, lambda metadata: (metadata / "launcher.log").unlink()) == 0, printed(bench)
    assert_whole(bench, "passed")
    assert bench.log[0].message.startswith(f"session {bench.folder.name} started")
    assert_mirrored(bench.path / "share", ("bench", bench.folder))


@held_open
def test_another_file_in_the_place_of_the_session_log_is_left_alone(bench: Any) -> None:
    def harm(metadata: Path) -> None:
        (metadata / "launcher.log").unlink()
        (metadata / "launcher.log").write_bytes(b"mine\n")

    assert run_with(bench, harm, mirror_finish_s=1) == 1
    assert (bench.folder / "launcher_metadata" / "launcher.log").read_bytes() == b"mine\n"
    assert bench.end["outcome"] == "error"
    assert "another file has taken its place" in bench.debug["exception"]
    bench.wait_for(lambda: not processes_of(bench.path))


@held_open
def test_a_deleted_session_folder_is_no_success(bench: Any) -> None:
    use_share(bench, bench.path / "share", mirror_finish_s=0.5, mirror_wait_s=0.5)
    write_steps(bench, "import shutil; watched(experiment); shutil.rmtree(experiment.session_folder)")
    assert start(bench).wait(100) == 1
    assert "log records were lost" in printed(bench)
    assert "outcome: error" in printed(bench)
    bench.wait_for(lambda: not processes_of(bench.path))


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows closes no descriptor from which another thread reads: the step would wait for good"
)
def test_no_line_lands_in_a_file_of_the_step(bench: Any) -> None:
    """The step closes descriptors that are not its own, then opens files: they must not get the session's numbers."""
    body = (
        "LOG.close(); os.closerange(3, 1000)\n    files = [open(f'mine-{n}.txt', 'w') for n in range(40)]\n"
        "    logging.info('still here')\n    acquisition.run(command=[sys.executable, '-c', 'print(1)'])"
    )
    write_steps(bench, body)
    # pytest's own plugin keeps a file open (the null device), into whose number it goes on writing.
    assert bench.run("-s", "-p", "no:logging").ret == 1
    bench.wait_for(lambda: not processes_of(bench.path))
    assert "still here" in bench.messages
    assert bench.log[-1].message.startswith("outcome: ")
    assert [path.stat().st_size for path in bench.path.glob("mine-*.txt")] == [0] * 40


def test_a_record_of_60_mb(bench: Any) -> None:
    share = use_share(bench, bench.path / "share")
    share.mkdir()
    write_steps(bench, "logging.info('x' * 60_000_000)")
    assert bench.run().ret == 0
    assert_whole(bench, "passed")
    assert mirror_status(bench.folder) == "verified"
    assert_mirrored(share, ("bench", bench.folder))


def test_a_recovery_that_fails_does_not_keep_the_session(bench: Any) -> None:
    """It fails before there is a record or a log: both learn of it all the same."""
    (bench.path / "state" / "unfinished").mkdir(parents=True)
    broken = "import pytest_openscope.session.rig as recovery\ndef recover(*_, **__): raise OSError('bad sectors')\n"
    bench.write("conftest.py", f"{broken}recovery.recover = recover\n")
    write_steps(bench, "pass")
    result = bench.run()
    assert result.ret == 0
    assert "earlier sessions could not be looked after: OSError: bad sectors" in result.stdout.str()
    (told,) = [entry.message for entry in bench.log if entry.message.startswith("recovering earlier sessions failed")]
    assert "Traceback" in told
    bench.wait_for(lambda: not processes_of(bench.path))


@pytest.mark.parametrize("limit_s", [20.0, pytest.param(1.0, marks=pytest.mark.stress)])
def test_a_session_exits_soon_after_its_last_step(bench: Any, limit_s: float) -> None:
    """With a healthy share, whose copy is verified by then; within a second (the best of a few) on a computer that is free."""
    share = use_share(bench, bench.path / "share")
    share.mkdir()
    write_steps(bench, "[logging.info('record %d', n) for n in range(2000)]")
    path = bench.path / "test_experiment.py"
    path.write_text(
        path.read_text(encoding="utf-8") + "    open('last', 'w').write(repr(time.monotonic()))\n", encoding="utf-8"
    )
    took_s = []
    for _ in range(4):
        assert start(bench).wait(100) == 0
        took_s.append(time.monotonic() - float((bench.path / "last").read_text(encoding="utf-8")))
        if took_s[-1] < limit_s:
            break
    assert min(took_s) < limit_s, took_s
    bench.wait_for(lambda: not processes_of(bench.path))
    assert {mirror_status(folder) for folder in bench.folders} == {"verified"}


# -- what finished steps left is there after any death -----------------------------------------------------------------


def test_a_crash_leaves_all_that_the_session_knew(bench: Any) -> None:
    """Whatever the record can hold is in the journal: what the process knew when it died stands in ``end_state.json``."""
    bench.write("lab.py", "class Laser:\n    def close(self): pass\n")
    bench.write("rig.yaml", (bench.path / "rig.yaml").read_text() + "devices: {laser: {driver: 'lab:Laser'}}\n")
    bench.steps(
        """
import json
from dataclasses import MISSING, fields
from pytest_openscope.records import SessionRecord, end_state

@pytest.fixture
def stage():
    yield

@pytest.mark.pre_acquisition
def test_weight(experiment):
    experiment.note("the animal was restless")
    experiment.attach(experiment.session_folder / "launcher_metadata" / "input_parameters.json")
    experiment.measure("weight", 24.5, unit="g", minimum=10)

@pytest.mark.pre_acquisition(on_failure="continue", attempts=2)
def test_water(experiment):
    experiment.measure("water", 3, minimum=10)

@pytest.mark.pre_acquisition
def test_left_out(): pass

@pytest.mark.pre_acquisition
def test_skipped(): pytest.skip("no camera")

@pytest.mark.acquisition
def test_record(acquisition, stage):
    acquisition.run(command=[sys.executable, "-c", "print(1)"], name="camera")

@pytest.mark.post_acquisition
def test_end(experiment):
    session = experiment._session
    session.keep("operator_notes", "a good day")
    session.keep("lost_records", 2)
    session.keep("not_checked", "a script of the rig")
    session.keep("clock_changes", {"at": session.record.started, "set_by_s": 0.0, "slept_s": 60.0, "text": "it slept"})
    session.simulate("nothing", "do nothing")
    session.guard("plotting", lambda: 1 / 0)
    record = session.record
    optional = [one for one in fields(SessionRecord) if one.default is not MISSING or one.default_factory is not MISSING]
    default = [one.name for one in optional if not getattr(record, one.name)]
    with open("known.json", "w") as file:
        json.dump({"default": default, "state": end_state(record, rig_config=session.rig_config())}, file)
    kill_me()
"""
    )
    bench.run("--deselect", "test_experiment.py::test_left_out")
    bench.wait_for(lambda: not processes_of(bench.path))
    known, end = json.loads((bench.path / "known.json").read_text()), bench.end
    # A field that is new must be given a value above.
    at_the_end = ["dry_run", "stopped", "duration_s", "exit_code", "readiness_override", "continues", "session_sync"]
    assert known["default"] == at_the_end
    before = known["state"]
    death = end["failures"].pop()
    assert (death["kind"], end.pop("written_by")) == ("crash", "sidecar")
    running, died = before["steps"].pop(), end["steps"].pop()
    assert (died.pop("outcome"), running.pop("outcome")) == ("crashed", None)
    assert died.pop("duration_s") >= running.pop("duration_s") == 0
    assert died == running
    for changed in ("stop_time", "duration_s", "outcome", "exit_code", "mirror"):
        before.pop(changed), end.pop(changed)
    assert end == before
