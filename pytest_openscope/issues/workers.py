"""Worker processes that are killed at a deadline, since no timeout of a socket operation ends a server that drips."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .settings import Timing
from .wording import shortened

#: What the worker process runs: nothing of the user's site is read before it has its path.
BOOT = (
    "import sys,json;j=json.loads(sys.stdin.readline());sys.path[:]=j['sys_path'];"
    "from pytest_openscope.issues.worker import main;main()"
)


class AttemptFailedError(Exception):
    """The worker died, was killed at the deadline, or met a fault of its own."""


class Workers:
    """Runs attempts in a worker process, a new one whenever the last one was killed; usable as an :data:`Attempt`."""

    def __init__(self, state_directory: Path, timing: Timing, halted: Callable[[], bool] = lambda: False) -> None:
        self.state_directory = Path(state_directory)
        self.timing = timing
        self.halted = halted
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._token = ""

    def __call__(self, path: Path, token: str, limit_s: float) -> dict[str, Any] | None:
        """Attempt a report.

        Raises:
            AttemptFailedError: no answer within ``limit_s``; the worker is dead then.
        """
        reply = self.ask({"do": "attempt", "path": str(path), "state_directory": str(self.state_directory)}, token, limit_s)
        answer = reply.get("answer")
        return answer if isinstance(answer, dict) else None

    def ask(self, job: Mapping[str, Any], token: str, limit_s: float) -> dict[str, Any]:
        """Give a job to the worker and return its reply."""
        if self._process is None or self._token != token:
            self.close()
            self._start()
            self._token = token
        line = json.dumps({**job, "token": token, "limit_s": limit_s, "timing": asdict(self.timing)})
        try:
            self._write(line)
            reply = json.loads(self._read(limit_s))
        except (OSError, ValueError) as problem:
            self.close()
            raise AttemptFailedError(f"the sending process died ({type(problem).__name__})") from problem
        except AttemptFailedError:
            self.close()
            raise
        if "problem" in reply:
            self.close()
            raise AttemptFailedError(
                f"the sending process failed: {shortened(str(reply['problem']).strip().splitlines()[-1], 300)}"
            )
        return dict(reply)

    def _start(self) -> None:
        self._lines = queue.Queue()
        flags, executable = 0, sys.executable
        if sys.platform == "win32":
            flags = subprocess.CREATE_NO_WINDOW
            # A virtual environment's python.exe only starts this one and waits: a kill would hit the wrong process.
            executable = getattr(sys, "_base_executable", None) or executable
        self._process = subprocess.Popen(
            [executable, "-I", "-S", "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=flags,
            start_new_session=sys.platform != "win32",
        )
        threading.Thread(target=self._pump, args=(self._process, self._lines), daemon=True).start()
        package = str(Path(__file__).resolve().parents[2])
        self._write(json.dumps({"sys_path": [package, *[entry for entry in sys.path if entry and entry != package]]}))

    @staticmethod
    def _pump(process: subprocess.Popen[bytes], lines: queue.Queue[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(b"")

    def _write(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _read(self, limit_s: float) -> bytes:
        deadline = time.monotonic() + limit_s
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or self.halted():
                raise AttemptFailedError(f"no answer within {limit_s:.0f} s" if left_s <= 0 else "stopped")
            try:
                line = self._lines.get(timeout=min(left_s, 0.2))
            except queue.Empty:
                continue
            if not line:
                raise AttemptFailedError("the sending process died")
            return line

    def close(self) -> None:
        """Kill the worker, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue
        process.wait()
