"""Finding and stopping every process of an acquisition; shared by the session and by the sidecar, which is not its parent.

A process belongs to the tree when it is the main process or a descendant, is in its process group or session (POSIX), or
carries the acquisition's mark in its environment, which finds daemons that left both. Processes are known by pid *and*
start time, so one that got a recycled pid is never touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from .processes import running_processes, runs, same_process, start_of
from .windows import send_break

_POLL_S = 0.1
#: After this time, processes that ignore SIGINT and have lost the main process are not waited for any longer.
_DEAF_S = 0.5
#: Environment variables that mark every process of an acquisition, so that those which leave its tree are found again.
MARK_SESSION = "OPENSCOPE_SESSION_UUID"
MARK_FOLDER = "OPENSCOPE_SESSION_FOLDER"
MARK_NAME = "OPENSCOPE_ACQUISITION"


@dataclass(frozen=True)
class StopPolicy:
    """How long the processes of an acquisition have to end, in seconds, after each kind of request; 0 leaves a kind out.

    First Ctrl-C (SIGINT; on Windows CTRL_BREAK), on which recorders close their files; then SIGTERM; then SIGKILL (on
    Windows both are TerminateProcess). A session's come from ``stop_graceful_s`` and its neighbours in config/models.py.
    """

    graceful_s: float = 10.0
    terminate_s: float = 5.0
    kill_s: float = 5.0

    @property
    def longest_s(self) -> float:
        """How long stopping may take."""
        return self.graceful_s + self.terminate_s + self.kill_s


@dataclass(frozen=True)
class StopReport:
    """What became of a tree: ``stopped`` and ``survivors`` name processes (``ffmpeg (pid 812)``).

    ``request`` is the last kind of request that was needed: ``graceful``, ``terminate`` or ``kill``; "" when nothing ran.
    """

    stopped: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    request: str = ""


@dataclass(frozen=True)
class ProcessTree:
    """The processes of an acquisition.

    Attributes:
        pid, create_time: the main process, which may be dead, and its start time where it is known.
        pgid: its process group (POSIX), which it leads.
        session_mark: session folder (better, since unique) or session UUID in the environment of its processes.
        name: the acquisition's in their environment; None takes every name.
        members: gives the pids of a job object (Windows).
    """

    pid: int
    create_time: float | None
    pgid: int | None = None
    session_mark: str | None = None
    name: str | None = None
    members: Callable[[], Iterable[int]] = tuple

    def find(self) -> list[psutil.Process]:
        """Return what lives, the main process first."""
        found: list[psutil.Process] = []
        root = same_process(self.pid, self.create_time)
        if root is not None:
            found.append(root)
            with contextlib.suppress(psutil.Error, OSError):
                found += root.children(recursive=True)
        # A group keeps its number from being given out: where another process has it, nothing of the group is left.
        if self.pgid is not None and (root is not None or same_process(self.pid, None) is None):
            found += _group(self.pgid)
        found += [process for member in self.members() if (process := same_process(member, None))]
        if self.session_mark:
            found += _marked(self.session_mark, self.name)
        # Of two for one pid the first, which was found by its start time.
        return list({process.pid: process for process in reversed(_living(found))}.values())[::-1]

    def stop(self, policy: StopPolicy = StopPolicy(), *, graceful: bool = True) -> StopReport:
        """Stop every process, as gently as it allows (without ``graceful`` by SIGTERM at once), until all are gone.

        Processes that appear meanwhile are stopped too. Never raises for a process that cannot be stopped: it is named in
        ``survivors``, with the reason where known.
        """
        hunt = _Hunt(self)
        request = ""
        for kind, wait_s in (
            ("graceful", policy.graceful_s if graceful else 0.0),
            ("terminate", policy.terminate_s),
            ("kill", max(policy.kill_s, 0.5)),
        ):
            if wait_s <= 0:
                continue
            if not hunt.look():
                break
            request = kind
            if hunt.ask(kind, wait_s):
                break
        survivors = hunt.look()
        names = tuple(hunt.describe(process) for process in survivors)
        left = {process.pid for process in survivors}
        return StopReport(tuple(text for number, text in hunt.seen.items() if number not in left), names, request)


def _group(pgid: int) -> Iterator[psutil.Process]:
    """Yield the members of a process group and of the session of the same number."""
    if sys.platform == "win32":
        return
    if os.getpgid(0) == pgid:
        return
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == pgid or os.getsid(pid) == pgid:
                yield psutil.Process(pid)
        except (OSError, psutil.Error):
            continue


def find_main(session_mark: str, name: str) -> psutil.Process | None:
    """Return the main process of an acquisition of which only mark and name are known; None when none carries them."""
    found = {process.pid: process for process in _living(_marked(session_mark, name))}
    return min(found.values(), key=lambda process: (process.ppid() in found, start_of(process)), default=None)


def _marked(mark: str, name: str | None) -> Iterator[psutil.Process]:
    """Yield the processes whose environment names this session and, where given, this acquisition."""
    for process in running_processes():
        try:
            environ = process.environ()
        except (OSError, psutil.Error):
            continue
        ours = mark in (environ.get(MARK_SESSION), environ.get(MARK_FOLDER)) and MARK_NAME in environ
        if ours and name in (None, environ[MARK_NAME]):
            yield process


def _living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Leave out what is dead, this process and its ancestors: a session within an acquisition carries marks too."""
    spared = {os.getpid()}
    with contextlib.suppress(psutil.Error, OSError):
        spared.update(parent.pid for parent in psutil.Process().parents())
    return [process for process in processes if process.pid not in spared and runs(process)]


def _ignores_interrupt(pid: int) -> bool:
    """Tell whether the process ignores SIGINT, as background jobs of a shell do; False where the system does not say."""
    try:
        _, _, rest = Path(f"/proc/{pid}/status").read_bytes().partition(b"SigIgn:")
        return bool(int(rest.split()[0], 16) >> (signal.SIGINT - 1) & 1)
    except (OSError, ValueError, IndexError):
        return False


def name_of(process: psutil.Process) -> str:
    """Return ``ffmpeg (pid 812)``."""
    try:
        return f"{process.name()} (pid {process.pid})"
    except (psutil.Error, OSError):
        return f"pid {process.pid}"


class _Hunt:
    """One tree that is being stopped; remembers every process that it has seen, since dead parents hide their children."""

    def __init__(self, tree: ProcessTree) -> None:
        self.pid, self.find = tree.pid, tree.find
        self.seen: dict[int, str] = {}
        self._known: dict[int, psutil.Process] = {}
        self._asked: dict[int, str] = {}
        self._refused: dict[int, str] = {}
        self._reached = False  # a group got CTRL_BREAK (Windows)

    def look(self) -> list[psutil.Process]:
        """Return what is alive of the tree now."""
        for process in self.find():
            self._remember(process)
        for process in list(self._known.values()):
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != self.pid and process.ppid() not in self._known:
                    for child in process.children(recursive=True):
                        self._remember(child)
        self._known = {pid: process for pid, process in self._known.items() if runs(process)}
        return list(self._known.values())

    def _remember(self, process: psutil.Process) -> None:
        if process.pid not in self._known and process.pid != os.getpid():
            self._known[process.pid] = process
            self.seen[process.pid] = name_of(process)

    def ask(self, kind: str, wait_s: float) -> bool:
        """Send the signal of this kind to each process, to what is born meanwhile too, until all are gone; True then."""
        begun = time.monotonic()
        while True:
            alive = self.look()
            for process in alive:
                if self._asked.get(process.pid) != kind:
                    self._asked[process.pid] = kind
                    self._signal(process, kind)
            if not alive and not self.look():
                return True
            passed_s = time.monotonic() - begun
            if passed_s >= wait_s or (kind == "graceful" and passed_s > _DEAF_S and self._all_deaf(alive)):
                return False
            time.sleep(min(_POLL_S, wait_s))

    def _all_deaf(self, alive: list[psutil.Process]) -> bool:
        """Tell whether waiting is in vain: the main process, which could have ended them, is gone, and none hears SIGINT.

        On Windows: nobody got CTRL_BREAK.
        """
        if sys.platform == "win32":
            return not self._reached
        return all(process.pid != self.pid and _ignores_interrupt(process.pid) for process in alive)

    def _signal(self, process: psutil.Process, kind: str) -> None:
        try:
            if kind == "kill":
                process.kill()
            elif kind == "terminate":
                process.terminate()
                if sys.platform != "win32":
                    process.send_signal(signal.SIGCONT)
            elif sys.platform != "win32":
                process.send_signal(signal.SIGINT)
            elif process.pid == self.pid:
                send_break(process.pid)
                self._reached = True
            self._refused.pop(process.pid, None)
        except psutil.NoSuchProcess:
            return
        except (psutil.AccessDenied, PermissionError):
            self._refused[process.pid] = "permission denied"
        except OSError as error:
            self._refused[process.pid] = str(error)

    def describe(self, process: psutil.Process) -> str:
        """Name a survivor, and why it survived."""
        reason = self._refused.get(process.pid)
        return name_of(process) + (f": {reason}" if reason else "")
