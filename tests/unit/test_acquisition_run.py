"""Acquisition processes, on real ones: output, limits, endings, and that nothing of a tree is left."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_openscope.acquisition import (
    AcquisitionFailed,
    AcquisitionRun,
    AcquisitionSpec,
    AcquisitionTimeout,
)
from pytest_openscope.acquisition.output import CONTINUES, replay
from pytest_openscope.system import start_of_now
from pytest_openscope.system.process_tree import StopPolicy

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
QUICK = StopPolicy(graceful_s=0.5, terminate_s=0.5, kill_s=2.0)


class Rig:
    """Starts runs and keeps what they hand on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.log: list[object] = []
        self.runs: list[AcquisitionRun] = []

    def sink(self, source: str, lines: list[bytes], raw_from: int, raw_to: int) -> None:
        self.lines[source.rpartition(".")[2]] += lines
        self.log.append((source, lines))

    def on_event(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))
        self.log.append(event)

    def start(self, code: str, **settings: Any) -> AcquisitionRun:
        return self.start_command([sys.executable, "-u", "-c", code], **settings)

    def start_command(self, command: list[str], **settings: Any) -> AcquisitionRun:
        settings = {"stop": QUICK, "name": "camera", **settings}
        run = AcquisitionRun(AcquisitionSpec(command=tuple(command), **settings), self.folder, self.sink, self.on_event)
        self.runs.append(run)
        return run.start()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    folder = tmp_path / "mouse_2025-01-01_10-00-00"
    folder.mkdir()
    rig = Rig(folder)
    yield rig
    for run in rig.runs:
        run.stop()


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_output_is_whole_and_in_order_and_the_journal_tells_it(rig: Rig) -> None:
    code = "import sys; print('one'); sys.stderr.write('bad\\nlast'); print('two')"
    facts = rig.start(code).wait()
    assert rig.lines == {"stdout": [b"one", b"two"], "stderr": [b"bad", b"last"]}
    assert facts.returncode == 0
    assert facts.stdout_tail == ["one", "two"]
    assert facts.duration_s is not None
    assert 0 < facts.duration_s < 10
    names = [event for event, _ in rig.events]
    assert names[:2] == ["acquisition_starting", "acquisition_started"]
    assert names[-1] == "acquisition_finished"
    started = rig.events[1][1]
    assert started["stdout"] == "launcher_metadata/acquisition/camera.stdout.log"
    assert (rig.folder / started["stderr"]).read_bytes() == f"bad{os.linesep}last".encode()
    assert started["create_time"] == pytest.approx(start_of_now(), abs=60)
    json.dumps(rig.events)
    for index, entry in enumerate(rig.log):
        if entry == "acquisition_batch":
            assert isinstance(rig.log[index + 1], tuple)


def test_a_name_that_is_taken_gets_a_number_and_no_file_is_written_over(rig: Rig) -> None:
    for number in (1, 2):
        rig.start(f"print({number})", name="a/b: c").wait()
    assert [run.name for run in rig.runs] == ["a/b: c", "a/b: c[2]"]
    directory = rig.folder / "launcher_metadata" / "acquisition"
    assert (directory / "a-b- c.stdout.log").read_bytes().strip() == b"1"
    assert (directory / "a-b- c[2].stdout.log").read_bytes().strip() == b"2"


def test_the_environment_names_the_session(rig: Rig) -> None:
    code = (
        "import os; print(os.environ['OPENSCOPE_SESSION_UUID']); print(os.environ['OUTPUT_FOLDER']); print(os.getenv('GONE'))"
    )
    rig.start(code, env={"GONE": None, "OPENSCOPE_X": "1"}).wait()
    assert [line.decode() for line in rig.lines["stdout"]] == [rig.folder.name, str(rig.folder), "None"]


def test_stdin_is_empty(rig: Rig) -> None:
    rig.start("import sys; print(repr(sys.stdin.read()))").wait()
    assert rig.lines["stdout"] == [b"''"]


def test_a_line_is_handed_on_while_the_process_runs(rig: Rig) -> None:
    run = rig.start("import time; print('hello'); time.sleep(60)")
    until(lambda: rig.lines["stdout"])
    assert run.poll() is None
    run.stop()
    assert run.done


def test_hard_output(rig: Rig) -> None:
    code = r"""
import os, time
os.write(1, b"\xff\xfe caf\xe9\r\n")
for n in range(0, 101, 10):
    os.write(1, b"\r%3d%%" % n)
os.write(1, b"\n" + b"z" * 10_000_000 + b"\nend")
"""
    rig.start(code).wait()
    lines = rig.lines["stdout"]
    assert lines[0] == b"\xff\xfe caf\xe9"
    progress = lines[1 : lines.index(b"100%") + 1]
    assert progress[-1] == b"100%"
    assert len(progress) <= 2
    assert lines[-1] == b"end"
    pieces = lines[len(progress) + 1 : -1]
    assert b"".join(piece.removesuffix(CONTINUES) for piece in pieces) == b"z" * 10_000_000
    assert replayed(rig) == lines


def replayed(rig: Rig) -> list[bytes]:
    """Return what a recovery would make of stdout, from the last mark on, behind the lines before it."""
    index = max(n for n, entry in enumerate(rig.log) if entry == "acquisition_batch" and is_stdout(rig.log[n + 1]))
    before = [line for entry in rig.log[:index] if is_stdout(entry) for line in entry[1]]  # type: ignore[index]
    marks = [fields for event, fields in rig.events if event == "acquisition_batch" and fields["stream"] == "stdout"]
    raw = rig.folder / rig.events[0][1]["stdout"]
    return before + [line for lines in replay(raw, marks[-1]["raw_from"]) for line in lines]


def is_stdout(entry: object) -> bool:
    return isinstance(entry, tuple) and entry[0].endswith(".stdout")


def test_a_progress_bar_is_shown_now_and_then_and_at_its_end(rig: Rig) -> None:
    code = r"""
import os, time
for n in range(25):
    os.write(2, b"frame=%d\r" % n); time.sleep(0.05)
os.write(2, b"done\n")
"""
    rig.start(code).wait()
    assert rig.lines["stderr"][-1] == b"done"
    assert 2 <= len(rig.lines["stderr"]) <= 4


def test_many_lines(rig: Rig) -> None:
    count = 200_000
    code = f"import sys\nfor n in range({count}): sys.stdout.write('%079d\\n' % n)"
    rig.start_command([sys.executable, "-c", code]).wait()
    assert len(rig.lines["stdout"]) == count
    assert rig.lines["stdout"][-1] == b"%079d" % (count - 1)
    assert sum(event == "acquisition_batch" for event, _ in rig.events) < 20


def test_a_sink_that_fails_costs_the_run_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk full")

    rig.sink = broken  # type: ignore[method-assign,assignment]
    facts = rig.start("import time\nfor n in range(3): print(n); time.sleep(0.1)").wait()
    assert facts.stdout_tail == ["0", "1", "2"]
    assert [record.levelname for record in caplog.records if "sink" in record.getMessage()] == ["ERROR"]


def test_a_process_that_closes_its_output_is_waited_for(rig: Rig) -> None:
    facts = rig.start("import os, time; print('x'); os.close(1); os.close(2); time.sleep(0.5); os._exit(4)").wait(check=False)
    assert facts.returncode == 4
    assert facts.duration_s is not None
    assert facts.duration_s > 0.4


def test_a_failure_names_code_and_last_line(rig: Rig) -> None:
    with pytest.raises(AcquisitionFailed, match=r"'camera' ended with exit code 3; last line on stderr: no camera") as caught:
        rig.start("import sys; print('no camera', file=sys.stderr); sys.exit(3)").wait()
    assert caught.value.facts.returncode == 3
    assert caught.value.facts.stderr_tail == ["no camera"]


@posix_only
def test_a_signal_is_named(rig: Rig) -> None:
    with pytest.raises(AcquisitionFailed, match="was killed by SIGKILL"):
        rig.start("import os; os.kill(os.getpid(), 9)").wait()


def test_timeout_of_the_spec(rig: Rig) -> None:
    started = time.monotonic()
    with pytest.raises(AcquisitionTimeout, match=r"longer than timeout_s = 0.3 s") as caught:
        rig.start("import time; time.sleep(60)", timeout_s=0.3).wait()
    assert time.monotonic() - started < 5
    assert "timeout_s" in caught.value.facts.stop_reason


def test_timeout_of_the_wait_stops_the_process(rig: Rig) -> None:
    run = rig.start("import time; time.sleep(60)")
    with pytest.raises(AcquisitionTimeout, match=r"did not end within 0.2 s"):
        run.wait(0.2)
    assert run.done


def test_silence_is_a_failure_where_output_is_expected(rig: Rig) -> None:
    with pytest.raises(AcquisitionFailed, match=r"printed nothing within 0.3 s"):
        rig.start("import time; time.sleep(60)", process_start_timeout_s=0.3).wait()


def test_stderr_is_a_failure_where_asked(rig: Rig) -> None:
    code = "import sys, time; sys.stderr.write('oops\\n'); time.sleep({})"
    started = time.monotonic()
    with pytest.raises(AcquisitionFailed, match=r"wrote to stderr.*oops"):
        rig.start(code.format(60), stderr_fails=True, stderr_grace_s=0.3).wait()
    assert 0.3 < time.monotonic() - started < 10
    with pytest.raises(AcquisitionFailed, match="wrote to stderr"):
        rig.start(code.format(0), stderr_fails=True, stderr_grace_s=5).wait()


@pytest.mark.parametrize(
    ("command", "settings", "message"),
    [
        (["no-such-program"], {}, "no program 'no-such-program' on PATH; install it"),
        (["./no/such/file"], {}, "there is no file"),
        ([], {}, "no command was given"),
        ([sys.executable], {"cwd": Path("no/such/folder")}, "is not a folder"),
        (["a\0b"], {}, "null|NUL"),
    ],
)
def test_what_does_not_start_says_why(rig: Rig, command: list[str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AcquisitionFailed, match=message) as caught:
        rig.start_command(command, **settings)
    assert caught.value.facts.pid is None
    assert [event for event, _ in rig.events] in ([], ["acquisition_starting", "acquisition_not_started"])
    assert list((rig.folder / "launcher_metadata" / "acquisition").iterdir()) == []


@posix_only
def test_a_file_that_is_no_program_says_so(rig: Rig, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("print(1)")
    with pytest.raises(AcquisitionFailed, match="may not be executed"):
        rig.start_command([str(script)])
    script.chmod(0o755)
    with pytest.raises(AcquisitionFailed, match="not a program of this system; start a script with its interpreter"):
        rig.start_command([str(script)])
    script.write_text("#!/no/such/python\n")
    with pytest.raises(AcquisitionFailed, match="interpreter that the first line"):
        rig.start_command([str(script)])


def test_an_unwritable_folder_is_a_failure_to_start(rig: Rig) -> None:
    (rig.folder / "launcher_metadata").write_text("a file")
    with pytest.raises(AcquisitionFailed, match="did not start"):
        rig.start("pass")


def test_stop_may_be_called_from_any_thread_and_again(rig: Rig) -> None:
    run = rig.start("import time; print('x'); time.sleep(60)")
    threads = [threading.Thread(target=run.stop, args=(f"reason {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    run.stop("late")
    assert run.done
    assert run.stop_reason.startswith("reason ")
    with pytest.raises(AcquisitionFailed, match="was stopped: reason"):
        run.check()
    run.check()


@posix_only
def test_an_interrupt_ends_the_wait_and_the_process_can_be_stopped(rig: Rig) -> None:
    run = rig.start("import signal, time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('closed my files')")
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run.wait()
    assert time.monotonic() - started < 20
    assert run.poll() is None
    run.stop("interrupted")
    assert rig.lines["stdout"] == [b"closed my files"]


GRANDCHILD = (
    "import subprocess, sys; p = subprocess.Popen([sys.executable, '-u', '-c', {code!r}], {more}); print(p.pid, flush=True)"
)


def test_the_whole_tree_is_stopped(rig: Rig) -> None:
    code = GRANDCHILD.format(code="import time; time.sleep(60)", more="") + "; p.wait()"
    run = rig.start(code)
    until(lambda: rig.lines["stdout"])
    child = int(rig.lines["stdout"][0])
    assert not gone(child)
    run.stop()
    assert gone(child)
    assert run.facts().survivors == []


@posix_only
@pytest.mark.parametrize("more", ["", "start_new_session=True"])
def test_what_outlives_the_main_process_is_read_then_stopped(rig: Rig, more: str, caplog: pytest.LogCaptureFixture) -> None:
    grandchild = "import time\nfor n in range(600): print('still here', flush=True); time.sleep(0.1)"
    started = time.monotonic()
    facts = rig.start(GRANDCHILD.format(code=grandchild, more=more)).wait()
    assert facts.returncode == 0
    assert facts.duration_s is not None
    assert facts.duration_s < 1.0
    assert time.monotonic() - started < 5
    assert rig.lines["stdout"].count(b"still here") >= 3
    # It may speak before the one that started it tells its process ID.
    (child,) = [int(line) for line in rig.lines["stdout"] if line.isdigit()]
    assert gone(child)
    assert "has ended, but not what it started" in caplog.text
    raw = (rig.folder / rig.events[0][1]["stdout"]).read_bytes()
    assert raw.split(b"\n")[:-1] == rig.lines["stdout"]


@posix_only
def test_a_tree_that_ignores_requests_is_killed(rig: Rig) -> None:
    deaf = "import signal, time\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)"
    run = rig.start(GRANDCHILD.format(code=deaf, more="start_new_session=True") + "\n" + deaf)
    until(lambda: rig.lines["stdout"].count(b"deaf") == 2)
    child = int(next(line for line in rig.lines["stdout"] if line.isdigit()))
    started = time.monotonic()
    run.stop()
    assert 0.9 < time.monotonic() - started < 30
    assert run.returncode == -signal.SIGKILL
    assert gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="adoption of orphans is Linux's")
def test_orphans_leave_no_zombies_behind(rig: Rig) -> None:
    before = set(psutil.Process().children())  # what other tests of this process have left
    rig.start("import os, time\nfor n in range(5):\n if os.fork() == 0:\n  time.sleep(0.1)\n  os._exit(0)\nos._exit(0)").wait()
    left = set(psutil.Process().children()) - before
    assert [child for child in left if child.status() == psutil.STATUS_ZOMBIE] == []


def test_who_waited_finds_the_run_registered(rig: Rig) -> None:
    told: list[object] = []

    def slow(run: object) -> None:
        time.sleep(0.2)
        told.append(run)

    spec = AcquisitionSpec(command=(sys.executable, "-c", ""), name="camera", stop=QUICK)
    run = AcquisitionRun(spec, rig.folder, rig.sink, rig.on_event, on_done=slow)
    run.start().wait()
    assert told == [run]


def test_memory_and_cpu_of_the_tree(rig: Rig) -> None:
    seen = rig.folder / "seen"
    burn = (
        "import os, time; x = bytearray(60_000_000)\nwhile time.process_time() < 0.5: pass\n"
        f"while not os.path.exists({str(seen)!r}): time.sleep(0.02)"
    )
    run = rig.start(GRANDCHILD.format(code=burn, more="") + "; p.wait()")
    until = time.monotonic() + 30
    # On a busy machine few samples are taken: the memory is held until one has seen it.
    while (run.facts().peak_memory_mb or 0.0) < 60 and time.monotonic() < until:
        time.sleep(0.02)
    seen.touch()
    facts = run.wait()
    assert facts.peak_memory_mb is not None
    assert facts.cpu_s is not None
    assert 60 < facts.peak_memory_mb < 1500
    assert 0.4 < facts.cpu_s < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX: the output is read from a pipe of POSIX")
def test_memory_of_the_session_stays_constant(rig: Rig) -> None:
    rig.sink = lambda *_: None  # type: ignore[method-assign]
    before = psutil.Process().memory_info().rss
    rig.start("import os; block = b'x' * 79 + b'\\n'\nfor n in range(1000): os.write(1, block * 1000)").wait()
    assert psutil.Process().memory_info().rss - before < 40e6


@pytest.mark.skipif(sys.platform != "linux", reason="POSIX: the system counts a peak here only for larger processes")
def test_a_short_program_has_the_peak_that_the_system_counts(rig: Rig) -> None:
    """A sample may come before the program has loaded, and none may come at its largest.

    The programs live for half a second: where every processor is busy, one that is gone at once may never be looked at.
    """
    life = "; import time; time.sleep(0.5)"
    code = "data = bytearray(30_000_000); del data; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    facts = rig.start(code + life).wait()
    own_mb = int(facts.stdout_tail[0]) * 1.024e-3
    assert own_mb > 35
    assert facts.peak_memory_main_mb == pytest.approx(own_mb, rel=0.1)
    assert facts.peak_memory_mb is not None
    assert facts.peak_memory_mb >= facts.peak_memory_main_mb
    assert facts.cpu_counted_s is not None
    assert facts.cpu_s == max(facts.cpu_counted_s, facts.cpu_sampled_s or 0.0)
    least_mb = [rig.start("pass" + life, name="short").wait().peak_memory_mb or 0.0 for _ in range(3)]
    assert min(least_mb) > 4, least_mb
