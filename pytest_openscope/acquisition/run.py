"""Running one acquisition: started, watched and stopped from a thread of its own.

What is run is a child process, or a call within this process (:class:`.calls.Call`); only their start and their stop differ.
The process is started by that thread, not by the caller: only the main thread ever gets a KeyboardInterrupt, so none can fall
between the start of a process and the moment from which it is known and can be stopped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typing_extensions import Self

from ..records import AcquisitionFacts
from ..system import Latch, StopReport, awake_s, command_line
from .calls import CallWork
from .failures import Ending, last_line, reason_of
from .output import BLOCK_BYTES, Sink, StreamFollower
from .process import Child, OutputFiles, explain
from .spec import LOGGER, AcquisitionSpec, output_logger

logger = logging.getLogger(LOGGER)

OnEvent = Callable[..., Any]
Echo = Callable[[str, list[bytes]], Any]

#: Children that outlive the main process have this long to end by themselves before they are stopped.
NATURAL_END_S = 0.5
_LONGEST_PAUSE_S = 0.05
_SHORTEST_PAUSE_S = 0.002
_READING_PAUSE_S = 0.01
_LEFTOVER_POLL_S = 0.1
_YOUNG_S = 0.5


class AcquisitionRun:
    """One run of an acquisition process, and a context manager: leaving the block stops it.

    Args:
        spec: what to run.
        folder: the session folder.
        sink: gets the output lines, from the watching thread (see :data:`.output.Sink`).
        on_event: gets the journal's events, from it too.
        echo: gets the lines too, when the spec asks for it.
        on_done: called once when all is over, from the watching thread.

    Attributes:
        name: unique in the session folder.
        stdout_path, stderr_path: the raw output, once started.
    """

    def __init__(
        self,
        spec: AcquisitionSpec,
        folder: Path,
        sink: Sink,
        on_event: OnEvent,
        *,
        echo: Echo | None = None,
        on_done: Callable[[Any], Any] | None = None,
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.name = spec.name
        self.stdout_path: Path | None = None
        self.stderr_path: Path | None = None
        self._sink, self._on_event, self._on_done = sink, on_event, on_done
        self._echo = echo if spec.echo else None
        self._child: Child | CallWork | None = None
        self._followers: list[StreamFollower] = []
        self._stderr_s: float | None = None
        self._fatal_s: float | None = None  # since when its end is overdue
        self._ending = Ending(spec.good_exit_codes)
        self._requests: list[tuple[str, str]] = []  # (kind, reason), the first counts
        self._stopper: threading.Thread | None = None
        self._report: StopReport | None = None
        self._looked_s = float("-inf")
        self._guarded: set[str] = set()
        self._judged = False
        self._spawned, self._done = Latch(), Latch()
        self._thread = threading.Thread(target=self._main, name=f"acquisition {spec.name}", daemon=True)

    # What callers do -------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the process; returns when it runs.

        Raises:
            AcquisitionFailed: it could not be started; the message says why and what to do.
        """
        self._thread.start()
        self._spawned.wait()
        if self._ending.start_error is not None:
            self._done.wait()
            self.check()
        return self

    @property
    def pid(self) -> int | None:
        """The main process's number, once it was started; None for a call within this process."""
        return self._child.pid if self._child else None

    @property
    def create_time(self) -> float | None:
        """When the main process started, in seconds since the epoch."""
        return self._child.create_time if self._child else None

    @property
    def returncode(self) -> int | None:
        """The main process's exit code once it has ended, negative for a signal; None when it could not be had."""
        return self._child.returncode if self._child else None

    @property
    def done(self) -> bool:
        """True when the process and its tree have ended and all output has been handed on."""
        return self._done.is_open

    @property
    def stop_reason(self) -> str:
        """Why it was stopped before it ended by itself; else ""."""
        return self._ending.reason

    @property
    def was_asked_to_stop(self) -> bool:
        """True when somebody stopped it, rather than one of its limits."""
        return self._ending.kind == "asked" or any(kind == "asked" for kind, _ in self._requests)

    def poll(self) -> int | None:
        """Return the exit code of the main process, or None while it runs."""
        return self.returncode

    def wait(self, timeout_s: float | None = None, *, check: bool = True) -> AcquisitionFacts:
        """Wait until the process and its tree have ended and all output is in the log.

        A KeyboardInterrupt ends the wait and leaves the process running: :meth:`stop` it.

        Args:
            timeout_s: stop the process when it has not ended by then.
            check: False returns the facts of a failed process too.

        Raises:
            AcquisitionTimeout: it ran into ``timeout_s`` here or in the spec.
            AcquisitionFailed: it failed, see :meth:`check`.
        """
        if not self._done.wait(timeout_s):
            self._ask("timeout", f"it did not end within {timeout_s:g} s")
            self._done.wait()
        if check:
            self.check()
        return self.facts()

    def ends_within(self, seconds: float | None) -> bool:
        """Wait at most so long (None: without limit) for the end of all, and tell whether it has come; stops nothing."""
        return self._done.wait(seconds)

    def stop(self, reason: str = "asked to stop", wait: bool = True) -> None:
        """Stop the process and its whole tree; may be called from any thread, and again.

        Args:
            reason: for the log.
            wait: False returns at once; the stop goes on by itself.
        """
        self._ask("asked", reason)
        if wait and self._thread.ident is not None:
            self._done.wait()

    def facts(self) -> AcquisitionFacts:
        """Return what is known by now."""
        child = self._child
        end_s = child.ended_s if child and child.ended_s is not None else awake_s()
        tails = {follower.stream: follower.tail_text() for follower in self._followers}
        return AcquisitionFacts(
            name=self.name,
            command=list(self.spec.command),
            pid=self.pid,
            returncode=self.returncode,
            duration_s=round(end_s - child.started_s, 3) if child else None,
            **(child.used() if child else {}),
            stdout_tail=tails.get("stdout", []),
            stderr_tail=tails.get("stderr", []),
            stop_reason=self.stop_reason,
            survivors=list(self._report.survivors) if self._report else [],
        )

    def check(self, *, stopped_is_failure: bool = True) -> None:
        """Raise for a failure; a second time does nothing.

        Raises:
            AcquisitionTimeout: it was stopped at a limit of time.
            AcquisitionFailed: it did not start, ended with another exit code than 0, wrote to stderr where that counts, was
                silent for too long, or was stopped by another one (unless ``stopped_is_failure`` is False).
        """
        ending, child = self._ending, self._child
        error = ending.failure(
            self.facts(),
            ended=child is not None and child.ended_s is not None,
            stderr_counts=self.spec.stderr_fails and self._stderr_bytes() > 0,
            stopped_is_failure=stopped_is_failure,
        )
        if error is not None and not self._judged:
            self._judged = True
            raise error from (ending.start_error[1] if ending.start_error else ending.call_error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.stop(reason_of(error) if error is not None else "the step no longer needs it")
        if error is None:
            self.check(stopped_is_failure=False)

    # What the watching thread does -----------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            child = self._spawn()
            if child is not None:
                self._spawned.open()
                self._watch(child)
        except Exception:
            logger.exception("watching acquisition %r failed", self.name)
            if self._child is not None and self._report is None:
                self._stop_tree(self._child)
        finally:
            if self._child is not None:
                self._guard("end", self._finish, self._child)
            if self._on_done is not None:
                # First: who waited must find the run among those that have ended.
                self._guard("on_done", self._on_done, self)
            self._done.open()
            self._spawned.open()

    def _spawn(self) -> Child | CallWork | None:
        """Start the process and make it known; None, with the reason kept, when it did not start."""
        files = None
        try:
            if self._requests:
                raise RuntimeError(f"it was stopped before: {self._requests[0][1]}")
            files = OutputFiles(self.folder, self.spec.name)
            self.name = files.name
            facts = {
                "command": list(self.spec.command),
                "cwd": str(self.spec.cwd or Path.cwd()),
                "stdout": files.stdout.relative_to(self.folder).as_posix(),
                "stderr": files.stderr.relative_to(self.folder).as_posix(),
            }
            # Before the process: should this one die in between, the witness looks for what it started by its mark.
            self._event("acquisition_starting", **facts)
            call = self.spec.call
            child = Child(self.spec, self.folder, files) if call is None else CallWork(call, files.fds, self.name)
            self._child = child
        except Exception as error:
            text = explain(self.spec, error)
            self._ending.start_error = (text, error)
            if files is not None:
                self._event("acquisition_not_started")
                files.discard()
            logger.error("acquisition %r did not start: %s", self.name, text)
            return None
        self.stdout_path, self.stderr_path = files.stdout, files.stderr
        self._event("acquisition_started", pid=child.pid, create_time=child.create_time, **facts)
        files.close()
        self._guard("job", child.attach)
        self._followers = [
            StreamFollower(stream, f"{self.name}.{stream}", path, self._mark, self._deliver)
            for stream, path in (("stdout", files.stdout), ("stderr", files.stderr))
        ]
        where = "in this process" if child.pid is None else f"pid {child.pid}"
        logger.info("acquisition %r started: %s: %s", self.name, where, command_line(self.spec.command))
        return child

    def _watch(self, child: Child | CallWork) -> None:
        pause_s = _SHORTEST_PAUSE_S
        while True:
            ended = child.reap()
            bytes_read = sum([follower.poll() for follower in self._followers])
            self._check_limits(child)
            self._serve_requests(child)
            if self._is_over(child):
                return
            if not ended:
                child.sample()
            pause_s = _READING_PAUSE_S if bytes_read else min(pause_s * 1.5, _LONGEST_PAUSE_S)
            if awake_s() - child.started_s < _YOUNG_S:
                # What a short program needs at most, it needs at its end.
                pause_s = min(pause_s, _READING_PAUSE_S / 2)
            if bytes_read < BLOCK_BYTES // 2:
                child.pause(pause_s)

    def _check_limits(self, child: Child | CallWork) -> None:
        spec = self.spec
        if child.ended_s is not None or self._requests:
            return
        now_s = awake_s()
        running_s = now_s - child.started_s
        if self._stderr_s is None and self._stderr_bytes():
            self._stderr_s = now_s
        if spec.timeout_s is not None and running_s >= spec.timeout_s:
            self._ask("timeout", f"it ran longer than timeout_s = {spec.timeout_s:g} s")
        elif (
            spec.stderr_fails
            and spec.stderr_stops
            and self._stderr_s is not None
            and now_s - self._stderr_s >= spec.stderr_grace_s
        ):
            self._ask("stderr", "it wrote to stderr, which counts as a failure")
        elif self._fatal_s is not None and now_s - self._fatal_s >= spec.fatal_grace_s:
            self._ask("fatal", "it did not end after a fatal error")
        elif (
            spec.process_start_timeout_s is not None
            and running_s >= spec.process_start_timeout_s
            and not any(follower.bytes_read for follower in self._followers)
        ):
            reason = f"it printed nothing within {spec.process_start_timeout_s:g} s of its start"
            explain = spec.explain_silence
            known = self._guard("explaining its silence", explain, child.pid) if explain is not None else ""
            self._ask("silent", f"{reason}: {known}" if known else reason)

    def _stderr_bytes(self) -> int:
        return sum(follower.bytes_read for follower in self._followers if follower.stream == "stderr")

    def _ask(self, kind: str, reason: str) -> None:
        if not self.done:
            self._requests.append((kind, reason))

    def _serve_requests(self, child: Child | CallWork) -> None:
        """Begin to stop the tree when that was asked for; what comes after the main process's own end changes nothing."""
        if not self._requests or self._stopper is not None:
            return
        if child.ended_s is None:
            ending = self._ending
            ending.kind, ending.reason = self._requests[0]
            ending.last_error = last_line(self._followers[-1].tail_text())
            logger.warning("acquisition %r is being stopped: %s", self.name, ending.reason)
        self._begin_stop(child)

    def _begin_stop(self, child: Child | CallWork) -> None:
        self._stopper = threading.Thread(target=self._stop_tree, args=(child,), name=f"stop {self.name}", daemon=True)
        self._stopper.start()

    def _stop_tree(self, child: Child | CallWork) -> None:
        try:
            self._report = child.stop(self.spec.stop)
        except Exception:
            logger.exception("stopping acquisition %r failed", self.name)
            self._report = StopReport(survivors=(f"perhaps {'the call' if child.pid is None else f'pid {child.pid}'}",))

    def _is_over(self, child: Child | CallWork) -> bool:
        """Tell whether nothing of the tree is left, or nothing that can be stopped; begin to stop what outlived its parent."""
        if self._stopper is not None:
            return not self._stopper.is_alive()
        now_s = awake_s()
        if child.ended_s is None or now_s - self._looked_s < _LEFTOVER_POLL_S:
            return False
        self._looked_s = now_s
        left = child.left()
        if left and now_s - child.ended_s >= NATURAL_END_S:
            text = "acquisition %r has ended, but not what it started, which is being stopped: %s"
            logger.warning(text, self.name, ", ".join(left))
            self._begin_stop(child)
        return not left

    def _finish(self, child: Child | CallWork) -> None:
        self._guard("closing", child.close)
        for follower in self._followers:
            self._guard("final read", follower.finish)
        self._ending.call_error = child.error
        self._ending.log(self.facts(), child.ended_s is not None, self._report)
        self._event("acquisition_finished", returncode=child.returncode)

    # Guards to what is not ours --------------------------------------------------------------------------------------

    def _mark(self, stream: str, raw_from: int) -> None:
        self._event("acquisition_batch", stream=stream, raw_from=raw_from, logger=output_logger(self.name, stream))

    def _event(self, event: str, **fields: Any) -> None:
        self._guard("on_event", self._on_event, event, name=self.name, **fields)

    def _deliver(self, source: str, lines: list[bytes], raw_from: int, raw_to: int) -> Any:
        written = self._guard("sink", self._sink, source, lines, raw_from, raw_to)
        if self.spec.fatal is not None and self._fatal_s is None:
            self._guard("looking for fatal errors", self._look_for_fatal, self.spec.fatal, source.rpartition(".")[2], lines)
        if self._echo is not None:
            self._guard("echo", self._echo, source, lines)
        return written

    def _look_for_fatal(self, fatal: Callable[[str, list[bytes]], str], stream: str, lines: list[bytes]) -> None:
        found = fatal(stream, lines)
        if not found:
            return
        final = self.spec.fatal_is_final is None or self.spec.fatal_is_final(found)
        if final:
            self._fatal_s = awake_s()
        if final or not self._ending.fatal:
            self._ending.fatal = found
            logger.error("acquisition %r: fatal error: %s", self.name, found)

    def _guard(self, what: str, call: Callable[..., Any], *arguments: Any, **fields: Any) -> Any:
        """Call it; an exception costs the run nothing, is logged the first time, and makes the answer False."""
        try:
            return call(*arguments, **fields)
        except Exception:
            if what not in self._guarded:
                self._guarded.add(what)
                logger.exception("%s of acquisition %r failed; the acquisition goes on", what, self.name)
            return False
