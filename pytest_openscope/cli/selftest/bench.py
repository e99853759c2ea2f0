"""A rig in a temporary folder, whose sessions are real: each in processes of its own, started as an operator starts them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil

from ...log import LogEntry, read_log
from ...mirror import LOG_NAME, audit_day_log
from ...records import DEBUG_STATE, END_STATE, JOURNAL, METADATA, WITNESS_JOURNAL, JournalReader
from ...system import running_processes

FoundT = TypeVar("FoundT")

#: A session takes a few seconds; a computer that needs so long for one cannot run experiments.
SESSION_S = 120.0
WAIT_S = 60.0
LINES = 50
_LAST_RECORDS = 5
#: Of a command line that is long; its end tells most.
_SHOWN = 120
SUBJECT = "selftest"
#: Prints a number of lines, or goes on until it is stopped.
PROGRAM = (
    "import itertools, sys, time\n"
    "for n in range({lines}) if {lines} else itertools.count():\n"
    "    print('line', n, flush=True)\n"
    "    time.sleep(0.01)\n"
)
_HEAD = """
import ctypes, logging, os, signal, sys, time
import pytest

LINES = [sys.executable, "-u", "-c", {program!r}]
ENDLESS = [sys.executable, "-u", "-c", {endless!r}]

def wait_for(name):
    open("ready", "w").close()
    until = time.monotonic() + 120
    while not os.path.exists(name) and time.monotonic() < until:
        time.sleep(0.02)
"""


class CheckError(Exception):
    """This computer does not do what it must."""


class SkipError(Exception):
    """It cannot be tried here; the text says why."""


def require(found: object, problem: str) -> None:
    """Raise CheckError with ``problem`` unless ``found`` is true."""
    if not found:
        raise CheckError(problem)


def wait_for(what: Callable[[], FoundT], problem: str, timeout_s: float = WAIT_S) -> FoundT:
    """Return what ``what`` gives once it is true.

    Raises:
        CheckError: it did not come in time.
    """
    until = time.monotonic() + timeout_s
    while True:
        try:
            found = what()
        except (OSError, ValueError, KeyError, IndexError):
            found = None
        if found:
            return found
        require(time.monotonic() < until, f"{problem} (waited {timeout_s:g} s)")
        time.sleep(0.05)


def environment(folder: Path) -> dict[str, str]:
    """Return the caller's environment without what would change what a session does here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENSCOPE_")}
    for name in ("PYTEST_ADDOPTS", "CI"):
        kept.pop(name, None)
    # Proxies lead nowhere from loopback; a page for each session takes time and shows nothing new.
    kept.update(NO_PROXY="127.0.0.1,localhost", no_proxy="127.0.0.1,localhost", OPENSCOPE_NO_SESSION_REPORT="1")
    kept.update(PYTHONIOENCODING="utf-8:backslashreplace", PYTEST_DEBUG_TEMPROOT=str(folder))
    return kept


class Ended(NamedTuple):
    """How a session's process ended, and what it printed."""

    code: int
    text: str


class Bench:
    """One rig with its experiment.

    Args:
        folder: made here, and the only place that is written to (the share apart).
        keys: of ``rig.yaml``.
    """

    def __init__(self, folder: Path, **keys: object) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.share = folder / "share"
        self.share.mkdir()
        rig: dict[str, object] = {
            "rig_id": "selftest-rig",
            "output_root_folder": "sessions",
            "state_directory": "state",
            "centralized_log_directory": str(self.share),
            "low_disk_gb": 0.001,
            **keys,
        }
        self.share, self.rig_id = Path(str(rig["centralized_log_directory"])), str(rig["rig_id"])
        # JSON is YAML, whatever signs a path has.
        (folder / "rig.yaml").write_text(json.dumps(rig, indent=2), encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="ascii")
        self.write("def test_acquire(acquisition):\n    acquisition.run(command=LINES)\n")
        self._number = 0

    def write(self, body: str) -> None:
        """Write the experiment."""
        head = _HEAD.format(program=PROGRAM.format(lines=LINES), endless=PROGRAM.format(lines=0))
        (self.folder / "test_experiment.py").write_text(head + "\n" + body, encoding="utf-8")

    def start(self, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> Running:
        """Start a session; what it prints goes to a file, since what it leaves behind would hold a pipe open."""
        self._number += 1
        output = self.folder / f"printed{self._number}.txt"
        command = [sys.executable, "-m", "pytest", *_plugin(), "-p", "no:cacheprovider", "--rig-config", "rig.yaml"]
        command += ["--subject-id", SUBJECT, "--user-id", "selftest", "--no-input", *arguments]
        with open(output, "wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**environment(self.folder), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                **options,
            )
        return Running(process, output)

    def run(self, *arguments: str, code: int | None = None, env: dict[str, str] | None = None) -> Ended:
        """Run a session to its end.

        Raises:
            CheckError: it hangs, or ends with another exit code than ``code``.
        """
        ended = self.start(*arguments, env=env).end()
        if code is not None and ended.code != code:
            last = " | ".join(line.strip() for line in ended.text.splitlines()[-6:] if line.strip())
            raise CheckError(f"a session ended with exit code {ended.code} instead of {code}: {last[-400:]}")
        return ended

    def command(self, *arguments: str) -> Ended:
        """Run another command of this package."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest_openscope", *arguments],
            cwd=self.folder,
            env=environment(self.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=SESSION_S,
        )
        return Ended(done.returncode, done.stdout)

    # -- what sessions left ------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> list[Path]:
        """The session folders, in the order in which they were made."""
        roots = [self.folder / "sessions", self.folder / "sessions" / "dry_runs"]
        found = [path for root in roots if root.is_dir() for path in root.iterdir() if (path / METADATA / JOURNAL).exists()]
        return sorted(found, key=lambda path: self.events(path)[0]["mono"])

    def session(self, number: int = -1) -> Path:
        """Return one session folder.

        Raises:
            CheckError: there is none.
        """
        found = self.sessions
        require(found, "there is no session folder")
        return found[number]

    def state(self, folder: Path, name: str = END_STATE) -> dict[str, Any]:
        """Return ``end_state.json`` or ``debug_state.json``."""
        found: dict[str, Any] = json.loads((folder / METADATA / name).read_text(encoding="utf-8"))
        return found

    def events(self, folder: Path, journal: str = JOURNAL) -> list[dict[str, Any]]:
        """Return a journal."""
        return JournalReader(folder / METADATA / journal).read()

    def log(self, folder: Path) -> list[LogEntry]:
        """Return the session log."""
        return list(read_log(folder / METADATA / LOG_NAME))

    def pid(self, folder: Path) -> int:
        """Return the experiment's process; where a launcher (``venv\\Scripts\\python.exe``) starts it, not the one started."""
        return int(next(event for event in self.events(folder) if event["event"] == "session")["pid"])

    def sidecars(self, folder: Path) -> list[int]:
        """Return the sidecars that were started, the first one first."""
        found = self.events(folder, WITNESS_JOURNAL)
        return [int(event["pid"]) for event in found if event["event"] == "sidecar_started"]

    def start_waiting(self, **options: Any) -> tuple[Running, Path]:
        """Start a session whose program acquires until :meth:`go`, and return it with its folder once all its helpers run.

        A process that is killed while it starts another one may leave that one suspended for good, on Windows.
        """
        self.write("def test_acquire(acquisition):\n    acquisition.start(command=ENDLESS)\n    wait_for('go')\n")
        running = self.start(**options)
        wait_for((self.folder / "ready").exists, "the step that waits was not reached", SESSION_S)
        folder = self.session()
        wait_for(lambda: self.sidecars(folder), "no sidecar was started")
        wait_for(lambda: self.in_mirror(folder), "the mirror was not begun")
        return running, folder

    def in_mirror(self, folder: Path) -> list[Path]:
        """Return the folders that a session of this rig has in the mirror; another rig's may have its name."""
        return list(self.share.rglob(f"{self.rig_id}/{folder.name}"))

    def go(self) -> None:
        """Let the step go on."""
        (self.folder / "go").touch()

    def ended(self, folder: Path, outcome: str) -> dict[str, Any]:
        """Wait for a session's final state; check its outcome, its log's last line, and that what failed is described."""
        wait_for(lambda: not self.state(folder)["provisional"], f"no final {END_STATE} was written")
        end = self.state(folder)
        require(end["outcome"] == outcome, f"its outcome is {end['outcome']} instead of {outcome}")
        # On a slow computer a helper may have the very last word.
        last = [entry.message for entry in self.log(folder)[-_LAST_RECORDS:]]
        require(any(text.startswith(f"outcome: {outcome}") for text in last), f"the session log ends with {last[-1]!r}")
        if outcome != "passed":
            require(self.state(folder, DEBUG_STATE)["failure"], f"{DEBUG_STATE} describes no failure")
        return end

    def assert_mirrored(self, count: int) -> None:
        """Check that all sessions have a verified copy, and each of their lines once in the day's log."""
        for folder in self.sessions:
            wait_for(partial(self._is_verified, folder), f"the mirror of {folder.name} was not verified")
            copies = [path for path in self.in_mirror(folder) if (path / LOG_NAME).exists()]
            require(len(copies) == 1, f"{folder.name} has {len(copies)} folders in the mirror")
            same = (copies[0] / LOG_NAME).read_bytes() == (folder / METADATA / LOG_NAME).read_bytes()
            require(same, f"the copy of {folder.name}'s log differs from it")
        require(len(self.sessions) == count, f"there are {len(self.sessions)} sessions instead of {count}")
        days = {path.parent.parent for folder in self.sessions for path in self.in_mirror(folder)}
        for day in days:
            report = audit_day_log(day / LOG_NAME, WAIT_S)
            clean = report.clean and not report.blanked and not report.appended
            require(clean, f"the day's log had to be mended: {report}".replace("\n", " "))

    def _is_verified(self, folder: Path) -> bool:
        return bool(self.state(folder)["mirror"]["status"] == "verified")

    def assert_gone(self, problem: str) -> None:
        """Wait until no process of this rig is left.

        Raises:
            CheckError: ``problem``, and what runs.
        """
        until = time.monotonic() + WAIT_S
        while left := processes_of(self.folder):
            require(time.monotonic() < until, f"{problem} (waited {WAIT_S:g} s): {described(left)}")
            time.sleep(0.05)


class Running(NamedTuple):
    """A session that was started."""

    process: subprocess.Popen[bytes]
    output: Path

    def end(self) -> Ended:
        """Wait for its end.

        Raises:
            CheckError: it hangs; it is killed then.
        """
        try:
            code = self.process.wait(SESSION_S)
        except subprocess.TimeoutExpired:
            kill(self.process.pid)
            raise CheckError(f"a session did not end within {SESSION_S:g} s") from None
        return Ended(code, self.output.read_text(encoding="utf-8", errors="replace"))


def _plugin() -> list[str]:
    """Where plugins are not loaded by themselves, name those that an experiment needs."""
    if not os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        return []
    return ["-p", "pytest_openscope.plugin", "-p", "pytest_timeout"]


def kill(pid: int) -> None:
    """End a process and all that it started, at once."""
    tree: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        tree.append(process)
        tree += process.children(recursive=True)
    # The one itself first, so that it starts no other.
    for one in tree:
        with contextlib.suppress(psutil.Error, OSError):
            one.kill()


def kill_all(*pids: int) -> None:
    """End processes at once, as the task manager does, all before any of them is waited for.

    Raises:
        CheckError: one stays.
    """
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.kill()
            processes.append(process)
    stay = psutil.wait_procs(processes, WAIT_S)[1]
    require(not stay, f"{', '.join(f'process {one.pid}' for one in stay)} did not end when it was killed")


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the living processes that name ``folder`` or work in it, but for this one."""
    found = []
    # On a command line a path may stand as JSON, its backslashes doubled.
    texts = (str(folder), json.dumps(str(folder))[1:-1])
    for process in running_processes():
        # Others' processes tell nothing; under Wine psutil raises a plain OSError.
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            line = " ".join(process.cmdline())
            if any(text in line for text in texts) or process.cwd().startswith(str(folder)):
                found.append(process)
    return found


def described(processes: list[psutil.Process]) -> str:
    """Return what tells processes apart: the ends of their command lines."""
    lines = []
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            lines.append(" ".join(process.cmdline())[-_SHOWN:])
    return "; ".join(lines)
