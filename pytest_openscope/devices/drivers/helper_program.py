"""``driver: subprocess``: a helper program that takes and gives lines on its standard streams."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..peer import LinePeer, Script
from .base import LineTalker, ScriptSource

#: On Windows a signal is handled only between two waits.
_SLICE_S = 0.2


class SubprocessDevice(LineTalker):
    """One helper program, started at ``open`` and ended at ``close`` (or by end of file, should the experiment die).

    Args:
        command: program and arguments (a list, or one text without arguments).
        cwd: working directory.
        env: environment variables added to the session's.
        timeout_s: longest wait for an answer.
        ready_line: a line that the program prints when it is ready; ``open`` waits for it.
        quit_command: line that asks the program to end.
        encoding: of its lines.
        check_query, check_answer: what ``check()`` asks, and a regular expression that the answer must match.
        safe_command: line that ``safe_state()`` sends.
    """

    def __init__(
        self,
        command: list[str] | str,
        *,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        timeout_s: float = 5.0,
        ready_line: str | None = None,
        quit_command: str | None = None,
        encoding: str = "utf-8",
        check_query: str | None = None,
        check_answer: str | None = None,
        safe_command: str | None = None,
        _script: Script | None = None,
    ) -> None:
        super().__init__(check_query, check_answer, safe_command)
        self.command = [command] if isinstance(command, str) else list(command)
        self.timeout_s = timeout_s
        self._cwd, self._env, self._encoding = cwd, dict(env or {}), encoding
        self._ready_line, self._quit_command = ready_line, quit_command
        self._script = _script
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._stdin: Any = None
        self.process: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start the program and wait for its ``ready_line``."""
        if self._script is not None:
            self._stdin = _ScriptedInput(self._script, self._take)
            if self._ready_line is not None:
                self._lines.put(self._ready_line)
        else:
            self._start()
        if self._ready_line is not None:
            while self._ready_line not in self.read_line():
                pass

    def _start(self) -> None:
        environment = {**os.environ, **self._env}
        pipe = subprocess.PIPE
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        # In a group of its own: a Ctrl-C for the experiment must not end it before it got its safe_command.
        process = subprocess.Popen(
            self.command,
            cwd=self._cwd,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            creationflags=flags,
            start_new_session=not flags,
        )
        self.process, self._stdin = process, process.stdin
        threading.Thread(target=self._log_stderr, args=(process.stderr,), name="helper-stderr", daemon=True).start()
        threading.Thread(target=self._read, args=(process.stdout,), name="helper-stdout", daemon=True).start()

    def close(self) -> None:
        """Ask it to end, close its input, then terminate and at last kill it."""
        try:
            if self._quit_command is not None and self._stdin is not None:
                self.write(self._quit_command)
            if self._stdin is not None:
                self._stdin.close()
        except OSError:
            pass
        if self.process is None:
            return
        for wait_s, act in ((1.0, self.process.terminate), (1.0, self.process.kill), (1.0, lambda: None)):
            try:
                self.process.wait(wait_s)
                return
            except subprocess.TimeoutExpired:
                act()

    def write(self, text: str) -> None:
        with self._lock:
            self._stdin.write((text + "\n").encode(self._encoding))
            self._stdin.flush()

    def read_line(self, timeout_s: float | None = None) -> str:
        """Return the next line.

        Raises:
            TimeoutError: none came in time.
            RuntimeError: the program has ended.
        """
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + wait_s
        while True:
            left_s = deadline - time.monotonic()
            try:
                line = self._lines.get(timeout=max(0.0, min(_SLICE_S, left_s)))
                break
            except queue.Empty:
                if left_s <= _SLICE_S:
                    raise TimeoutError(f"{self.command[0]} printed no line within {wait_s:g} s") from None
        if line is None:
            self._lines.put(None)
            raise RuntimeError(f"{self.command[0]} has ended{self._how()}")
        return line

    def check(self) -> str:
        """Find the program alive, then ask as the other drivers do."""
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"{self.command[0]} has ended{self._how()}")
        return super().check()

    def read_state(self) -> dict[str, Any]:
        process = self.process
        return {"command": self.command, "pid": process and process.pid, "returncode": process and process.poll()}

    def _how(self) -> str:
        if self.process is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)
        return f" with exit code {self.process.returncode}"

    def _read(self, stream: Any) -> None:
        try:
            for line in stream:
                self._take(line)
        except (OSError, ValueError):
            pass
        self._lines.put(None)

    def _take(self, line: bytes) -> None:
        self._lines.put(line.decode(self._encoding, "replace").rstrip("\r\n"))

    def _log_stderr(self, stream: Any) -> None:
        log = logging.getLogger(f"pytest_openscope.devices.{Path(self.command[0]).stem}")
        for line in stream:
            log.warning("%s", line.decode(self._encoding, "replace").rstrip("\r\n"))

    @classmethod
    def simulate(cls, options: dict[str, Any], script: ScriptSource) -> tuple[dict[str, Any], Any, str]:
        """A scripted peer in place of the program, without a process."""
        played = Script.read(script) if script else Script({"echo": True}, "echo")
        return {**options, "_script": played}, None, f"scripted peer {played.name}"


class _ScriptedInput:
    """Stands for the program's standard input: a scripted peer hears what is written."""

    def __init__(self, script: Script, take: Callable[[bytes], None]) -> None:
        heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.write = heard.put
        threading.Thread(target=LinePeer(script, heard.get, take).play, name="peer", daemon=True).start()

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.write(b"")
