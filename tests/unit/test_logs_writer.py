"""Writing the log: whole records or nothing, and the truth about what was lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_openscope.log.lines import Damage, encode_record, read_log
from pytest_openscope.log.writer import LogWriter, repair_tail

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, fork and limits of POSIX")


class Disk:
    """Stands in for ``os.write``: takes ``free`` bytes, then fails as a full or broken disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: float = float("inf")
        self.error = errno.ENOSPC
        #: How much of a failing write lands in the file although the call fails.
        self.lands = 0
        self.real = os.write
        self.calls = 0
        monkeypatch.setattr("pytest_openscope.log.writer.os.write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        self.calls += 1
        if self.free >= len(data):
            self.free -= len(data)
            return self.real(fd, data)
        if self.free > 0:
            count, self.free = self.real(fd, data[: int(self.free)]), 0
            return count
        if self.lands:
            self.real(fd, data[: self.lands])
        raise OSError(self.error, os.strerror(self.error))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "launcher.log"


def messages(path: Path) -> list[str]:
    damage: list[Damage] = []
    found = [entry.message for entry in read_log(path, damage.append)]
    assert damage == []
    return found


def test_records_are_in_the_file_when_write_returns(path: Path) -> None:
    writer = LogWriter(path)
    assert writer.record("INFO", "a", "one")
    assert writer.record("INFO", "a", "two\nlines")
    assert messages(path) == ["one", "two\nlines"]
    assert writer.size == path.stat().st_size
    writer.close()
    writer.close()
    assert writer.size == path.stat().st_size
    assert not writer.record("INFO", "a", "too late")
    assert writer.lost_records == 0


def test_an_existing_file_is_continued(path: Path) -> None:
    path.write_bytes(encode_record("INFO", "a", "before"))
    writer = LogWriter(path)
    writer.record("INFO", "a", "after")
    writer.close()
    assert messages(path) == ["before", "after"]


def test_a_full_disk_is_told_once_and_counted(path: Path, disk: Disk) -> None:
    told: list[OSError] = []
    writer = LogWriter(path, told.append)
    writer.record("INFO", "a", "kept")
    disk.free = 20
    for number in range(100):
        assert not writer.record("INFO", "a", f"lost {number}")
    assert writer.lost_records == 100
    assert [error.errno for error in told] == [errno.ENOSPC]
    assert writer.first_error is told[0]
    assert messages(path) == ["kept"]
    assert not writer.retry()
    disk.free = float("inf")
    assert writer.record("INFO", "a", "space again")
    note = messages(path)[1]
    assert note.startswith("100 log records (")
    assert "No space left" in note
    assert messages(path)[2:] == ["space again"]
    assert writer.retry()
    assert len(messages(path)) == 3
    writer.close()


def test_losses_are_noted_by_retry_and_by_close(path: Path, disk: Disk) -> None:
    writer = LogWriter(path)
    disk.free = 0
    writer.write(b"x\n" * 3, records=3)
    disk.free = float("inf")
    assert writer.retry()
    disk.free = 0
    writer.record("INFO", "a", "lost")
    disk.free = float("inf")
    writer.close()
    assert [text.split(" (")[0] for text in messages(path)] == ["3 log records", "1 log records"]
    assert writer.lost_records == 4


@pytest.mark.parametrize("lands", [0, 1, 30, 10_000])
def test_an_error_after_part_or_all_was_written_leaves_whole_records(path: Path, disk: Disk, lands: int) -> None:
    writer = LogWriter(path)
    writer.record("INFO", "a", "kept")
    disk.free, disk.error, disk.lands = 0, errno.EIO, lands
    assert not writer.record("INFO", "a", "lost")
    assert messages(path) == ["kept"]
    disk.free = float("inf")
    writer.record("INFO", "a", "after")
    assert [text.split(" (")[0] for text in messages(path)] == ["kept", "1 log records", "after"]


def test_a_write_cut_short_goes_on_where_it_stopped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr("pytest_openscope.log.writer.os.write", lambda fd, data: real(fd, data[:7]))
    writer = LogWriter(path)
    assert writer.record("INFO", "a", "a long record\nof two lines")
    assert messages(path) == ["a long record\nof two lines"]
    assert writer.lost_records == 0


def test_what_another_process_appended_is_never_cut_off(path: Path, disk: Disk) -> None:
    writer = LogWriter(path)
    writer.record("INFO", "a", "mine")
    other = LogWriter(path)
    other.record("INFO", "b", "other's")
    disk.free = 10
    assert not writer.record("INFO", "a", "lost")
    disk.free = float("inf")
    assert writer.record("INFO", "a", "after")
    damage: list[Damage] = []
    found = [entry.message.split(" (")[0] for entry in read_log(path, damage.append)]
    assert found == ["mine", "other's", "1 log records", "after"]
    assert [part.length for part in damage] == [11]
    assert writer.size == path.stat().st_size


def test_a_file_that_cannot_be_cut_keeps_its_torn_line_apart(path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr("pytest_openscope.log.writer.os.ftruncate", refuse)
    writer = LogWriter(path)
    disk.free = 10
    writer.record("INFO", "a", "torn")
    disk.free = float("inf")
    writer.record("INFO", "a", "after")
    damage: list[Damage] = []
    assert [entry.message for entry in read_log(path, damage.append)][-1] == "after"
    assert [part.kind for part in damage] == ["foreign line"]


def test_a_descriptor_that_somebody_closed_is_opened_again(path: Path) -> None:
    writer = LogWriter(path)
    writer.record("INFO", "a", "before")
    os.close(writer._fd)
    assert writer.record("INFO", "a", "after")
    assert messages(path) == ["before", "after"]
    assert writer.lost_records == 0
    writer.close()


def test_on_lost_may_log_itself(path: Path, disk: Disk) -> None:
    def on_lost(error: OSError) -> None:
        writer.record("WARNING", "a", str(error))

    writer = LogWriter(path, on_lost)
    disk.free = 0
    writer.record("INFO", "a", "x")
    assert writer.lost_records == 2


def test_a_full_disk_costs_little(path: Path, disk: Disk) -> None:
    writer = LogWriter(path)
    disk.free = 0
    for _ in range(1000):
        writer.record("INFO", "a", "x")
    assert disk.calls == 1000


@posix
def test_a_real_limit_of_the_file_size(path: Path) -> None:
    """The kernel's own short write: RLIMIT_FSIZE lets a part of the record through and then says EFBIG."""
    code = f"""
        import resource
        from pytest_openscope.log.writer import LogWriter
        writer = LogWriter({str(path)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, -1))
        for number in range(200):
            writer.record("INFO", "a", f"record {{number}} " + "x" * 90)
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        writer.record("INFO", "a", "the end")
        print(writer.lost_records)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    found = messages(path)
    lost = int(done.stdout)
    assert done.stderr == ""
    assert lost > 0
    assert len(found) == 200 - lost + 2
    assert found[-2].startswith(f"{lost} log records")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device() -> None:
    told: list[OSError] = []
    writer = LogWriter("/dev/full", told.append)
    assert not writer.record("INFO", "a", "x")
    assert told[0].errno == errno.ENOSPC
    writer.close()


@posix
def test_a_forked_child_logs_too_and_never_waits_for_a_lock_of_its_parent(path: Path) -> None:
    writer = LogWriter(path)
    held = threading.Event()
    go_on = threading.Event()

    def hold() -> None:
        with writer._lock:
            held.set()
            go_on.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if not child:
        writer.record("INFO", "a", "child")
        os._exit(0)
    deadline = time.monotonic() + 10
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hung")
        time.sleep(0.01)
    go_on.set()
    thread.join()
    writer.record("INFO", "a", "parent")
    assert messages(path) == ["child", "parent"]
    assert writer.size == path.stat().st_size


@posix
def test_a_signal_handler_may_log_while_a_record_is_written(path: Path) -> None:
    writer = LogWriter(path)
    before = signal.signal(signal.SIGALRM, lambda *_: writer.record("INFO", "signal", "tick"))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(20_000):
            writer.record("INFO", "main", "work\nof two lines")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    loggers = [entry.logger for entry in read_log(path)]
    assert loggers.count("main") == 20_000
    assert "signal" in loggers
    messages(path)


def test_threads_do_not_tear_each_others_records(path: Path) -> None:
    writer = LogWriter(path)

    def work(name: int) -> None:
        for number in range(500):
            writer.record("INFO", f"t{name}", f"{number}\n" + "x" * 200)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(messages(path)) == 4000


KILLED = """
    import sys
    from pytest_openscope.log.writer import LogWriter
    writer = LogWriter(sys.argv[1])
    number = 0
    while True:
        writer.record("INFO", "a", f"{number} " + "x\\n" * (number % 50))
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        number += 1
"""


def killed_after(path: Path, delay_s: float) -> int:
    """Let a process log until SIGKILL; return the number of the last record whose call had returned."""
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED), str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    reader = threading.Timer(delay_s, child.kill)
    child.stdout.readline()
    reader.start()
    lines = child.stdout.read().split(b"\n")
    child.wait()
    return int(lines[-2]) if len(lines) > 1 else 0


def check_killed(path: Path, delay_s: float) -> None:
    last = killed_after(path, delay_s)
    repair_tail(path)
    numbers = [int(entry.message.split()[0]) for entry in read_log(path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > last


def test_records_survive_sigkill(path: Path) -> None:
    check_killed(path, 0.2)


@pytest.mark.stress
@pytest.mark.parametrize("turn", range(30))
def test_records_survive_sigkill_at_any_moment(path: Path, turn: int) -> None:
    check_killed(path, 0.01 + turn * 0.007)


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", b""),
        (b"one\n", b"one\n"),
        (b"one\ntw", b"one\n"),
        (b"tw", b""),
        (b"one\n" + b"\0" * 200_000, b"one\n"),
        (b"one\n" + b"x" * 65_535, b"one\n"),
        (b"x" * 65_536 + b"\n" + b"y" * 65_536, b"x" * 65_536 + b"\n"),
    ],
)
def test_repair_tail(path: Path, content: bytes, kept: bytes) -> None:
    path.write_bytes(content)
    assert repair_tail(path) == content[len(kept) :]
    assert path.read_bytes() == kept
    assert repair_tail(path) == b""


def test_repair_tail_creates_nothing(path: Path) -> None:
    assert repair_tail(path) == b""
    assert not path.exists()


def test_the_disk_may_refuse_at_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "late")

    monkeypatch.setattr("pytest_openscope.log.writer.os.fsync", refuse)
    writer = LogWriter(path)
    writer.record("INFO", "a", "x")
    writer.close()
    assert writer.first_error is not None
    assert writer.first_error.errno == errno.EIO


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    opened: Callable[[], LogWriter] = lambda: LogWriter(tmp_path / "no" / "a.log")  # noqa: E731
    with pytest.raises(FileNotFoundError):
        opened()
