"""The main process of an acquisition: started, waited for, and stopped with its whole tree; why it did not start.

How hard a tree is stopped is decided in :mod:`..system.process_tree`.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from ..records import METADATA, safe_name
from ..system import (
    MARK_FOLDER,
    MARK_NAME,
    MARK_SESSION,
    Job,
    ProcessTree,
    ProcessWatch,
    StopPolicy,
    StopReport,
    TreeUsage,
    awake_s,
    create_time,
    name_of,
    remove_file,
    start_of_now,
)
from .spec import OUTPUT_FOLDER, AcquisitionSpec

#: Windows' errors that no other system has, by ``winerror``, and what to do.
_REFUSALS = {
    32: "is held by another program, a virus scanner or an installer; try again in a minute",
    225: "was refused by the virus scanner; have its folder exempted, if it is what it should be",
    740: "wants an administrator; have that switched off in its compatibility settings, since a session's programs get none",
    1260: "is blocked by a policy of this PC (AppLocker); have its folder allowed",
    4551: "is blocked by a policy of this PC (App Control); have its folder allowed",
}


class OutputFiles:
    """The two raw files of one run, which no other run has; ``name`` is the run's, with ``[2]`` when it was taken.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        directory = folder / METADATA / "acquisition"
        directory.mkdir(parents=True, exist_ok=True)
        stem = safe_name("".join(char if char.isprintable() else "-" for char in name)[:80], "_")
        for number in count(1):
            suffix = f"[{number}]" if number > 1 else ""
            self.name = name + suffix
            self.stdout = directory / f"{stem}{suffix}.stdout.log"
            self.stderr = directory / f"{stem}{suffix}.stderr.log"
            with suppress(FileExistsError):
                self.fds = [_create(self.stdout)]
                break
        try:
            self.fds.append(_create(self.stderr))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close this process's descriptors; the child has its own."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def discard(self) -> None:
        """Remove the files of a process that did not start."""
        self.close()
        for path in (self.stdout, self.stderr):
            with suppress(OSError):
                remove_file(path)


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    return os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0), 0o644)


def environment(spec: AcquisitionSpec, folder: Path, name: str) -> dict[str, str]:
    """Return the child's environment: this one, the marks, the spec's own changes.

    ``OPENSCOPE_RIG_CONFIG`` is left out: a pytest run that the acquisition starts is not another experiment. On Windows names
    do not differ by their case: a ``Path`` beside ``PATH`` may go unseen.
    """
    marks = {MARK_SESSION: folder.name, MARK_FOLDER: str(folder), MARK_NAME: name, OUTPUT_FOLDER: str(folder)}
    changes = {key.upper() if sys.platform == "win32" else key: value for key, value in spec.env.items()}
    changed = {**os.environ, "OPENSCOPE_RIG_CONFIG": None, **marks, **changes}
    return {key: value for key, value in changed.items() if value is not None}


def program_on_windows(program: str, cwd: Path | None, path: str | None) -> str:
    """Return the file to start, as the child's working directory and PATH have it.

    Windows itself looks in this process's folder and PATH only, and for ``.exe`` only.
    """
    if Path(program).name == program:
        return shutil.which(program, path=path) or program
    return shutil.which(str((cwd or Path()).absolute() / program)) or program


def spawn(spec: AcquisitionSpec, folder: Path, files: OutputFiles) -> subprocess.Popen[bytes]:
    """Start the process: nothing on stdin, output into the files, in a process group and session of its own.

    Raises:
        OSError: it did not start; see :func:`explain`.
        ValueError: a NUL character in the command.
    """
    arguments: dict[str, Any] = {}
    command, environ = list(spec.command), environment(spec, folder, files.name)
    if sys.platform == "win32":
        arguments["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
        command[:1] = [program_on_windows(part, spec.cwd, environ.get("PATH")) for part in command[:1]]
    else:
        arguments["start_new_session"] = True
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=files.fds[0],
        stderr=files.fds[1],
        cwd=spec.cwd,
        env=environ,
        **arguments,
    )


def explain(spec: AcquisitionSpec, error: BaseException) -> str:
    """Say why a command did not start and what to do about it."""
    if isinstance(error, RuntimeError):
        return str(error)
    if not spec.command or not spec.command[0]:
        return "no command was given; give the program and its arguments as `command`"
    if spec.cwd is not None and not spec.cwd.is_dir():
        return f"its working directory {str(spec.cwd)!r} is not a folder; create it or correct `cwd`"
    program = spec.command[0]
    path = Path(program)
    winerror = getattr(error, "winerror", None) or 0
    number = getattr(error, "errno", 0)
    if winerror in _REFUSALS:
        return f"{program!r} {_REFUSALS[winerror]}"
    if winerror == 206 or number == errno.E2BIG:
        return "the command or its environment is too long for this system; pass long values in a file"
    if isinstance(error, FileNotFoundError):
        if path.name == program:
            return f"there is no program {program!r} on PATH; install it, or give its full path"
        if ((spec.cwd or Path()) / path).is_file():
            return f"the interpreter that the first line of {program!r} names is missing"
        return f"there is no file {program!r}; correct the path"
    if isinstance(error, PermissionError):
        if path.is_dir():
            return f"{program!r} is a folder; name a program"
        if winerror:
            why = "Windows refuses it, for a virus scanner, a policy or the file's own rights"
            return f"{program!r} may not be executed: {why}; ask who looks after this PC"
        return f"{program!r} may not be executed; give it execute permission"
    if winerror == 193 or number == errno.ENOEXEC:
        return f"{program!r} is not a program of this system; start a script with its interpreter (python {program})"
    return f"{type(error).__name__}: {error}"


class Child:
    """Starts the process and takes its exit code; the attributes are those of :class:`.calls.CallWork`.

    ``returncode`` is negative for a signal, and None also when something else took it.

    Raises:
        OSError, ValueError: it did not start.
    """

    error: BaseException | None = None

    def __init__(self, spec: AcquisitionSpec, folder: Path, files: OutputFiles) -> None:
        self.started_s = awake_s()
        self._popen = spawn(spec, folder, files)
        self.pid = self._popen.pid
        self.create_time = create_time(self.pid) or start_of_now()
        self.returncode: int | None = None
        self.ended_s: float | None = None
        self.usage = TreeUsage(self.pid)
        self._job = Job()
        pgid = None if sys.platform == "win32" else self.pid  # It leads its group and session.
        self.tree = ProcessTree(self.pid, self.create_time, pgid, str(folder), files.name, self._job.pids)
        self._watch: ProcessWatch | None = None

    def attach(self) -> None:
        """Take hold of it, once it is known to the journal.

        Raises:
            OSError: Windows has no job for it.
        """
        self._watch = ProcessWatch(self.pid, self.create_time)
        self._job.add(self.pid)

    def sample(self) -> None:
        """Look at its memory and CPU."""
        self.usage.sample()

    def used(self) -> dict[str, Any]:
        """Return its memory and CPU as fields of the facts."""
        return self.usage.facts()

    def left(self) -> list[str]:
        """Return the names of what is left of its tree."""
        return [name_of(process) for process in self.tree.find()]

    def stop(self, policy: StopPolicy) -> StopReport:
        """Stop its whole tree."""
        return self.tree.stop(policy)

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond its end where the system can tell."""
        if self.ended_s is None and self._watch is not None:
            self._watch.wait(seconds)
        else:
            time.sleep(seconds)

    def reap(self) -> bool:
        """Take its exit code; True when it has ended."""
        if sys.platform == "win32":
            if self.ended_s is None and self._popen.poll() is not None:
                self.usage.look()
                self.usage.counted(self._job.cpu_s() or 0.0)
                self._end(self._popen.returncode)
        elif self.ended_s is None:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._end(None)
            else:
                if pid:
                    self.usage.reaped(usage)
                    self._end(os.waitstatus_to_exitcode(status))
        return self.ended_s is not None

    def _end(self, returncode: int | None) -> None:
        self.returncode = returncode
        self.ended_s = awake_s()

    def close(self) -> None:
        """Let go of everything but the process."""
        self.reap()
        self._job.close()
        if self._watch is not None:
            self._watch.close()
        if self._popen.returncode is None:  # or its destructor would warn, and wait where others may have taken the pid
            self._popen.returncode = self.returncode if self.returncode is not None else 0
