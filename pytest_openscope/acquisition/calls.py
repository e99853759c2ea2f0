"""An acquisition that is a call within this process: an engine that runs already (MATLAB) is asked to do the work.

Its output takes the same way as that of a process: into the two raw files, and from there into the session log.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from ..system import StopPolicy, StopReport, awake_s

logger = logging.getLogger("pytest_openscope.acquisition")

_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": "\n", "buffering": 1}


class Call(Protocol):
    """Work within this process.

    Where a process of its own does the work, the call may have attributes ``pid`` and ``create_time`` (seconds since the
    epoch): it is then sampled, and stopped if this process dies.
    """

    def run(self, stdout: TextIO, stderr: TextIO) -> int | None:
        """Do the work, in a thread of its own, and return an exit code (None: 0).

        What is written to ``stdout`` and ``stderr`` stands in the session log within 50 ms. An exception fails the acquisition,
        and is the cause of the error that the step raises.
        """

    def cancel(self) -> None:
        """Ask the work to end, and return; called from another thread, perhaps more than once.

        What does not end within the times of the stop policy is left behind, and named as a survivor.
        """


class CallWork:
    """One call that runs, with the face of :class:`.process.Child`.

    Args:
        call: the work.
        output_fds: descriptors of the raw files for stdout and stderr; duplicated.
        name: the acquisition's.

    Attributes:
        pid, create_time: those of the call's process, if it has one.
        returncode: what the call returned; 1 when it raised ``error``.
        started_s, ended_s: times of :func:`.awake_s`; ``ended_s`` is None before the end.
    """

    def __init__(self, call: Call, output_fds: Sequence[int], name: str) -> None:
        self.started_s = awake_s()
        self.pid: int | None = getattr(call, "pid", None)
        self.create_time: float | None = getattr(call, "create_time", None)
        self.returncode: int | None = None
        self.ended_s: float | None = None
        self.error: BaseException | None = None
        self._call, self._name = call, name
        self._over = threading.Event()
        fds = [os.dup(fd) for fd in output_fds]
        self._thread = threading.Thread(target=self._run, args=fds, name=f"call of acquisition {name}", daemon=True)
        self._thread.start()

    def _run(self, stdout_fd: int, stderr_fd: int) -> None:
        returncode = 1
        try:
            with os.fdopen(stdout_fd, "w", **_TEXT) as stdout, os.fdopen(stderr_fd, "w", **_TEXT) as stderr:
                returncode = self._call.run(stdout, stderr) or 0
        except BaseException as error:
            self.error = error
        finally:
            self.returncode = returncode
            self._over.set()

    def attach(self) -> None:
        """Nothing: it can be stopped from its first moment on."""

    def reap(self) -> bool:
        if self.ended_s is None and self._over.is_set():
            self.ended_s = awake_s()
        return self.ended_s is not None

    def sample(self) -> None:
        """Nothing: its memory is that of this process, which the sidecar samples."""

    def used(self) -> dict[str, Any]:
        """Nothing is known of its memory and CPU."""
        return {}

    def left(self) -> list[str]:
        """Nothing outlives a call that has returned."""
        return []

    def stop(self, policy: StopPolicy) -> StopReport:
        """Cancel it, and wait as long as the policy waits for a process."""
        if not self._over.is_set():
            canceller = threading.Thread(target=self._cancel, name=f"cancel acquisition {self._name}", daemon=True)
            canceller.start()
        if self._over.wait(policy.longest_s):
            return StopReport()
        return StopReport(survivors=(f"the call of {self._name}, which does not end",))

    def _cancel(self) -> None:
        try:
            self._call.cancel()
        except Exception:
            logger.exception("cancelling acquisition %r failed", self._name)

    def pause(self, seconds: float) -> None:
        self._over.wait(seconds)

    def close(self) -> None:
        self.reap()
