"""The git program: bounded in time, asking nobody anything, ended together with what it started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .process_tree import MARK_NAME, ProcessTree, StopPolicy
from .processes import create_time, spawn_detached

#: For what needs no network.
GIT_TIMEOUT_S = 20.0
_POLL_S = 0.05
#: git removes what it had begun to clone when it is asked to end.
_STOP = StopPolicy(graceful_s=0.0, terminate_s=2.0, kill_s=2.0)
_LAST_LINES = 8
#: Progress of the same kind is told no more often than this.
_PROGRESS_S = 5.0
#: What a git hook or another git that runs this program has set for itself.
_FOREIGN = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
)
_SETTINGS = (
    "core.fsmonitor=false",
    "core.quotePath=false",
    "core.longpaths=true",
    "advice.detachedHead=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "credential.interactive=never",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
)


class GitFailed(Exception):  # noqa: N818 - it says what happened
    """Git is not there, failed, took too long or was stopped; the message is for the operator.

    ``kind`` is ``missing``, ``failed``, ``timeout`` or ``stopped``, ``said`` what git wrote to stderr, masked.
    """

    def __init__(self, message: str, kind: str, said: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.said = said


@dataclass(frozen=True)
class Git:
    """How git is run.

    Attributes:
        mask: hides secrets in what is told.
        settings: ``name=value`` pairs of git's configuration, for these calls alone.
        environment: further environment variables; the place for secrets, since other users can read a command line.
        stopped: asked while git runs; True ends it.
        say: gets a line now and then of what a long call does.
    """

    mask: Callable[[str], str] = str
    settings: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stopped: Callable[[], bool] = bool
    say: Callable[[str], None] | None = None

    def __call__(self, folder: Path, *arguments: str, timeout_s: float = GIT_TIMEOUT_S, good: Collection[int] = (0,)) -> str:
        """Return what git wrote to stdout.

        Raises:
            GitFailed: it did not end with one of the ``good`` exit codes, and in time.
        """
        returncode, output, said = self._run(folder, arguments, timeout_s)
        if returncode not in good:
            words = "; ".join(_essence(said)) or f"it ended with exit code {returncode}"
            raise GitFailed(f"git {arguments[0]} failed: {words}", "failed", said)
        return output

    def answers(self, folder: Path, *arguments: str) -> str | None:
        """Return stdout without its last line end, or None where git says no by its exit code; raises for all else."""
        returncode, output, _ = self._run(folder, arguments, GIT_TIMEOUT_S)
        return None if returncode else output.rstrip("\r\n")

    def _run(self, folder: Path, arguments: tuple[str, ...], timeout_s: float) -> tuple[int, str, str]:
        settings = [part for setting in (*_SETTINGS, *self.settings) for part in ("-c", setting)]
        # Files, not pipes: a program that git leaves behind can keep a pipe open.
        with tempfile.TemporaryDirectory(prefix="openscope-git-", ignore_cleanup_errors=True) as place:
            out, err = Path(place, "out"), Path(place, "err")
            with out.open("wb") as stdout, err.open("wb") as stderr:
                streams = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
                try:
                    # No Ctrl-C of the terminal reaches it, and no program of its own finds a terminal to ask on.
                    process = spawn_detached(["git", *settings, *arguments], cwd=folder, env=self._environment(), **streams)
                except FileNotFoundError as error:
                    if not folder.is_dir():
                        raise GitFailed(f"{folder} does not exist", "failed") from error
                    raise GitFailed("git is not installed, or not on the PATH", "missing") from error
                except OSError as error:
                    raise GitFailed(f"git cannot be started: {error}", "missing") from error
            with err.open("rb") as stream:
                follower = _Follower(stream, self.mask, self.say)
                self._wait(process, arguments[0], timeout_s, follower)
            return process.returncode, os.fsdecode(out.read_bytes()), follower.text

    def _wait(self, process: subprocess.Popen[bytes], what: str, timeout_s: float, follower: _Follower) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                process.wait(_POLL_S)
                follower.read(final=True)
                return
            except subprocess.TimeoutExpired:
                follower.read()
            stopped = self.stopped()
            if not stopped and time.monotonic() < deadline:
                continue
            started = create_time(process.pid)
            pgid = process.pid if sys.platform != "win32" else None
            ProcessTree(process.pid, started, pgid).stop(_STOP, graceful=False)
            process.poll()
            follower.read(final=True)
            said = f": {follower.last}" if follower.last else ""
            if stopped:
                raise GitFailed(f"git {what} was stopped", "stopped", follower.text)
            raise GitFailed(f"git {what} did not end within {timeout_s:g} s and was ended{said}", "timeout", follower.text)

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name not in (*_FOREIGN, MARK_NAME)}
        # Empty programs that ask for passwords keep git from asking with any other.
        quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "GCM_INTERACTIVE": "never"}
        return {**environment, **quiet, "GIT_OPTIONAL_LOCKS": "0", "LANGUAGE": "en", **self.environment}


class _Follower:
    """Reads stderr while it grows: keeps it, and tells its lines, of its progress a line now and then."""

    def __init__(self, stream: IO[bytes], mask: Callable[[str], str], say: Callable[[str], None] | None) -> None:
        self._stream, self._mask, self._say = stream, mask, say
        self._rest = ""
        self._lines: list[str] = []
        self._told_at = time.monotonic()
        self.last = ""

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    def read(self, final: bool = False) -> None:
        self._rest += self._stream.read().decode("utf-8", "replace")
        *whole, self._rest = re.split(r"(?<=[\r\n])", self._rest)
        for line in (*whole, self._rest) if final else whole:
            text = self._mask(line.rstrip())
            if not text.strip():
                continue
            self.last = text.strip()
            if not line.endswith("\r"):
                self._lines.append(text)
            if self._say is not None and (not line.endswith("\r") or time.monotonic() - self._told_at > _PROGRESS_S):
                self._told_at = time.monotonic()
                self._say(text)
        if final:
            self._rest = ""


def _essence(said: str) -> list[str]:
    """Return the lines that say what went wrong, else the last ones."""
    lines = [line for line in said.splitlines() if not re.match(r"(?:hint:|remote: (?:Count|Compress|Enumer|Total))", line)]
    telling = [line for line in lines if re.match(r"(?:fatal|error|remote|ssh|warning):", line) or line.startswith("\t")]
    return (telling or lines)[-_LAST_LINES:]
