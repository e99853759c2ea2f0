"""Worker processes that may hang in a share or a server: started, told, heard and ended without waiting for them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, NoReturn

from .processes import lines_of, spawn_detached

_BEAT_S = 0.4
_FAREWELL_S = 0.5


class WorkerProcess:
    """One worker: it takes lines on stdin, whose end ends it, and reports JSON objects on stdout, one a line.

    A thread takes the reports, since pipes cannot be polled on Windows.

    Attributes:
        heard_mono: when the last report that was taken had come.
        listener: the thread, which ends when the worker is gone.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.process = spawn_detached(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.reports: deque[tuple[float, dict[str, Any]]] = deque()
        self.heard_mono = time.monotonic()
        self.listener = Thread(target=self._listen, name="worker's reports", daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        # A worker that is killed may leave half a report.
        with contextlib.suppress(OSError, ValueError), self.process.stdout as stream:
            for line in lines_of(stream.fileno()):
                self.reports.append((time.monotonic(), json.loads(line)))

    def take_reports(self) -> Iterator[dict[str, Any]]:
        """Yield what it has reported since the last call."""
        while self.reports:
            self.heard_mono, report = self.reports.popleft()
            yield report

    def send(self, line: bytes) -> None:
        """Write a line, which it may never read."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            os.write(self.process.stdin.fileno(), line + b"\n")

    def close(self) -> None:
        """Say goodbye: the end of its stdin ends the worker."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def stop(self, grace_s: float) -> None:
        """Say goodbye, and kill it after ``grace_s``; one that is stuck in the kernel is left behind."""
        self.close()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Reporter:
    """The worker's end of :class:`WorkerProcess`.

    A supervisor that does not read loses reports instead of holding up a worker that may hold a lock.
    """

    def __init__(self) -> None:
        self._next_beat = 0.0
        if sys.platform != "win32":
            os.set_blocking(1, False)

    def due(self) -> bool:
        """Tell whether a sign of life is due."""
        return time.monotonic() >= self._next_beat

    def send(self, **report: Any) -> None:
        """Send one report."""
        self._next_beat = time.monotonic() + _BEAT_S
        try:
            os.write(1, json.dumps(report).encode("ascii") + b"\n")
        except BlockingIOError:
            return
        except OSError:
            os._exit(0)

    def listen(self, take: Callable[[bytes], object]) -> None:
        """Hand on each line in a thread; the end of stdin ends the process at once, wherever it is."""
        Thread(target=self._listen, args=(take,), daemon=True).start()

    def _listen(self, take: Callable[[bytes], object]) -> None:
        with contextlib.suppress(OSError):
            for line in lines_of(0):
                take(line)
        os._exit(0)

    @contextlib.contextmanager
    def crashes_told(self) -> Iterator[None]:
        """Report an error of the program itself."""
        try:
            yield
        except Exception:
            self.send(crash=traceback.format_exc()[-3000:])


class UnansweredError(Exception):
    """A process died, failed, or gave no answer in time."""


def ask(command: Sequence[str], job: Mapping[str, Any], limit_s: float) -> Any:
    """Return the answer of a process that may hang, which gets ``job`` on stdin and calls :func:`answer_with`.

    It is killed after ``limit_s``; one that is stuck in a dead share cannot always be killed, and is left behind.

    Raises:
        UnansweredError: the process cannot be started, or there was no answer within ``limit_s``.
    """
    try:
        worker = WorkerProcess(command)
    except OSError as error:
        raise UnansweredError(f"its process cannot be started: {error.strerror}") from error
    # A process that hangs while it starts reads nothing.
    sender = Thread(target=worker.send, args=(json.dumps(job).encode("ascii"),), daemon=True)
    try:
        sender.start()
        worker.listener.join(limit_s)
        late = worker.listener.is_alive()
    finally:
        worker.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(_FAREWELL_S)
            sender.join(_FAREWELL_S)
            worker.close()
    for report in worker.take_reports():
        if "crash" in report:
            raise UnansweredError(report["crash"].strip().splitlines()[-1][:300])
        return report["answer"]
    if late:
        raise UnansweredError(f"no answer within {round(limit_s, 2):g} s")
    raise UnansweredError(f"its process ended with {worker.process.returncode}")


def answer_with(reply: Callable[..., Any]) -> NoReturn:
    """Answer :func:`ask` with what ``reply`` returns for the job, and end."""
    jobs: SimpleQueue[bytes] = SimpleQueue()
    reporter = Reporter()
    reporter.listen(jobs.put)
    # What a library prints is no answer.
    with contextlib.redirect_stdout(sys.stderr), reporter.crashes_told():
        reporter.send(answer=reply(**json.loads(jobs.get())))
    os._exit(0)


class Retry:
    """When to try again after an error: the delay doubles from ``first_s`` to ``most_s`` (``urgent_s`` if somebody waits)."""

    def __init__(self, first_s: float = 1.0, most_s: float = 60.0, urgent_s: float = 4.0) -> None:
        self.first_s = first_s
        self.most_s = most_s
        self.urgent_s = urgent_s
        self.delay_s = 0.0
        self.due_mono = 0.0

    def failed(self, urgent: bool = False) -> None:
        """Note a failure."""
        self.delay_s = min(max(self.first_s, self.delay_s * 2), self.urgent_s if urgent else self.most_s)
        self.due_mono = time.monotonic() + self.delay_s

    def succeeded(self) -> None:
        """Start again from the shortest delay."""
        self.delay_s = self.due_mono = 0.0

    def soon(self) -> None:
        """Try at once."""
        self.due_mono = 0.0
        self.delay_s = min(self.delay_s, self.first_s)
