"""The measuring code of the rig validation: plain functions from requirements to results."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ..system import MARK_SESSION, Git, GitFailed, name_of, run_probe, running_processes
from .result import FAIL, PASS, SKIP, WARN, CheckResult, at_least, at_most, failed_all

Requirements = Mapping[str, Any]
#: Gets the ``github_issue`` block and how long it may take; returns findings with ``level``, ``what`` and ``text``.
Access = Callable[[Any, float], Sequence[Mapping[str, str]]]
T = TypeVar("T")
#: Longest wait for a disk, a share or a server, where the requirements do not say.
TIMEOUT_S = 20.0
DISK_PARTS = ("writable", "free_space", "write_speed", "fsync")
MIRROR_PARTS = ("writable", "latency", "clock_skew")
_HELPER = "pytest_openscope.sidecar"
#: Findings on GitHub that reports arrive in spite of.
_ADVICE = ("public", "privacy", "label")
#: Windows says EACCES for a port that another program holds for itself alone.
_TAKEN = {errno.EADDRINUSE, 10048} | ({errno.EACCES, 10013} if sys.platform == "win32" else set())
#: The Windows Time service does not run: nobody sets the clock.
_NO_SERVICE = "0x80070426"


def check_disk(root: Path, requirements: Requirements, *, size_mb: int = 64) -> dict[str, CheckResult]:
    """Measure the output disk: writable, free space, write speed, sync latency."""
    facts = run_probe("disk", _timeout_s(requirements), path=str(root), size_mb=size_mb, seconds=3.0)
    if "error" in facts:
        remedy = "is the disk there, its folder writable, output_root_folder right?"
        return failed_all("disk", DISK_PARTS, f"{root}: {facts['error']}", remedy)
    free, speed, sync = facts["free_gb"], facts["write_mb_per_s"], facts["fsync_ms"]
    words = f"wrote {facts['written_mb']} MB to {root}"
    slow = "close what else writes to this disk; look at its health (SMART) and at the virus scanner's exclusions"
    return {
        "writable": CheckResult(PASS, f"{root} can be written"),
        "free_space": at_least(free, requirements.get("free_gb"), "GB", f"free in {root}", "move finished sessions away"),
        "write_speed": at_least(speed, requirements.get("write_mb_per_s"), "MB/s", words, slow),
        "fsync": at_most(sync, requirements.get("fsync_ms"), "ms", "median of nine small synced writes", slow),
    }


def check_mirror(folder: str, requirements: Requirements) -> dict[str, CheckResult]:
    """Measure the central log directory: reachable and writable, its latency, the difference of its clock."""
    facts = run_probe("mirror", _timeout_s(requirements), path=folder)
    if "error" in facts:
        remedy = "is the share mounted and the server up? sessions still run: the sidecar copies when it is back"
        return failed_all("mirror", MIRROR_PARTS, f"{folder}: {facts['error']}", remedy)
    latency, skew = facts["latency_ms"], facts["clock_skew_s"]
    words = f"median of five small writes in {folder}"
    same = "let this PC and the server take their time from the same source"
    return {
        "writable": CheckResult(PASS, f"{folder} can be written"),
        "latency": at_most(latency, requirements.get("mirror_latency_ms"), "ms", words, "look at the network"),
        "clock_skew": at_most(skew, requirements.get("clock_skew_s"), "s", "against the mirror's clock", same),
    }


def _timeout_s(requirements: Requirements) -> float:
    return float(requirements.get("timeout_s") or TIMEOUT_S)


def check_python(specifier: str | None) -> CheckResult:
    """Hold the Python version against a PEP 440 specifier."""
    version = ".".join(map(str, sys.version_info[:3]))
    try:
        fits = SpecifierSet(specifier or "").contains(version)
    except InvalidSpecifier as error:
        return CheckResult(FAIL, str(error), "write e.g. python: '>=3.11,<3.13'")
    return CheckResult(PASS if fits else FAIL, f"Python {version}", f"use a Python that fits {specifier}")


def check_memory(limit_gb: float | None) -> CheckResult:
    """Measure the free memory."""
    return at_least(psutil.virtual_memory().available / 1e9, limit_gb, "GB", "free memory", "close other programs")


def check_environment(name: str) -> CheckResult:
    """Find an environment variable; its value is not shown."""
    if os.environ.get(name):
        return CheckResult(PASS, "set")
    return CheckResult(FAIL, "not set", f"set {name} for the account that runs the rig")


def check_clock(required: bool | None) -> CheckResult:
    """Ask the operating system whether its clock is synchronised; one that cannot tell is skipped, or a warning if required."""
    synchronised, words = clock_synchronised()
    remedy = "switch on time synchronisation (Windows: w32tm /resync; Linux: timedatectl set-ntp true)"
    if synchronised is None:
        return CheckResult(WARN if required else SKIP, f"the system cannot tell: {' '.join(words.split())}", remedy)
    if synchronised:
        return CheckResult(PASS, words)
    return CheckResult(FAIL if required else WARN, words, remedy)


def clock_synchronised() -> tuple[bool | None, str]:
    """Return whether the clock is synchronised (None: unknown), and the system's words."""
    if sys.platform == "win32":
        command = ["w32tm", "/query", "/status"]
    else:
        command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode and _NO_SERVICE in done.stdout + done.stderr:
        return False, "the Windows Time service does not run"
    return read_clock_status(done.stdout if not done.returncode else "", done.stderr.strip() or f"exit code {done.returncode}")


def read_clock_status(output: str, otherwise: str) -> tuple[bool | None, str]:
    """Read what ``timedatectl`` or ``w32tm`` printed; the latter's words are in the language of the system, not its numbers."""
    text = output.strip()
    if text in ("yes", "no"):
        return text == "yes", "synchronised" if text == "yes" else "not synchronised"
    stratum = re.search(r"stratum\s*:\s*(\d+)", text, re.IGNORECASE)
    if stratum is None:
        return None, otherwise
    lowered = text.lower()
    loose = stratum[1] in ("0", "16") or "local cmos clock" in lowered or "free-running" in lowered
    source = next((line.partition(":")[2].strip() for line in text.splitlines() if line.lower().startswith("source")), "")
    return not loose, f"stratum {stratum[1]}" + (f", source {source}" if source else "")


# Programs and repositories


def check_executable(name: str, folder: Path) -> CheckResult:
    """Find a program by name or path (relative ones are beside the rig file)."""
    found = shutil.which(name) or shutil.which(str(folder / name))
    if found:
        return CheckResult(PASS, found)
    if (folder / name).is_file():
        return CheckResult(FAIL, f"{folder / name} cannot be executed", "make it executable: chmod +x")
    return CheckResult(FAIL, f"{name} is not there", "install it, put it on the PATH, or correct the path")


def check_repository(path: str, folder: Path) -> CheckResult:
    """Find a git repository, and say which commit it is at and whether it was changed."""
    place = folder / path
    if not place.is_dir():
        return CheckResult(FAIL, f"{place} does not exist", "clone it, or correct the path")
    git = Git()
    try:
        top = git(place, "rev-parse", "--show-toplevel").strip()
        head = git.answers(place, "rev-parse", "--verify", "--quiet", "HEAD")
        changes = git(place, "status", "--porcelain").splitlines()
    except GitFailed as error:
        if error.kind != "failed":
            return CheckResult(WARN, f"git cannot tell: {error}", "install git, and put it on the PATH")
        text = f"{place}: {error.said.strip()}"
        if "dubious ownership" in error.said:
            return CheckResult(FAIL, text, "make it this account's own, or add it to git's safe.directory")
        return CheckResult(FAIL, f"no git repository: {text}", "clone it again")
    if Path(top).resolve() != place.resolve():
        text = f"{place} is no repository of its own, it lies in that of {top}"
        return CheckResult(FAIL, text, "clone it, or name the repository's top folder")
    if head is None:
        return CheckResult(FAIL, f"{place} has no commit yet", "clone it again")
    if changes:
        return CheckResult(WARN, f"{len(changes)} changed files in {place}", "commit or discard them", head)
    return CheckResult(PASS, f"clean, at {head[:12]}", value=head)


def check_processes(names: Sequence[str], own_session: str) -> CheckResult:
    """Find acquisition processes that an earlier session left behind, by its mark in their environment or by their names."""
    wanted = {_program(name) for name in names}
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    own |= {child.pid for child in psutil.Process().children(recursive=True)}
    found = []
    for process in running_processes():
        if process.pid in own or _told(process.status, "") == psutil.STATUS_ZOMBIE:
            continue
        name = _told(process.name, "")
        by_name = _program(name) in wanted
        session = "" if by_name else _session_mark(process)
        if by_name or (session and session != own_session and _is_orphan(process, session)):
            found.append(f"{name or 'a program'} (pid {process.pid}" + (f", session {session})" if session else ")"))
    text = f"still running: {', '.join(found)}" if found else "nothing left from earlier sessions"
    return CheckResult(FAIL if found else PASS, text, "end them: they hold hardware", len(found), "processes", 0)


def _program(name: str) -> str:
    return Path(name).name.lower().removesuffix(".exe")


def _told(ask: Callable[[], T], otherwise: T) -> T:
    """Return what the system tells of a process; Windows keeps some of another user's to itself, and others have just ended."""
    try:
        return ask()
    except (psutil.Error, OSError, ValueError):
        return otherwise


def _is_orphan(process: psutil.Process, session: str) -> bool:
    """Tell whether the experiment that started a process is gone; another rig's session on this PC is nobody's mistake."""

    def is_orphan() -> bool:
        parent = process.parent()
        while parent is not None and _session_mark(parent) == session:
            parent = parent.parent()
        return parent is None or parent.pid == 1 or parent.name() in ("systemd", "init", "launchd")

    return _told(is_orphan, False)


def _session_mark(process: psutil.Process) -> str:
    session = _told(lambda: str(process.environ().get(MARK_SESSION, "")), "")
    # The helper of an earlier session may still be copying its log.
    return "" if session and any(_HELPER in part for part in _told(process.cmdline, [_HELPER])) else session


# Ports


def check_serial_port(port: str) -> CheckResult:
    """Find a serial port."""
    if "://" in port:
        return CheckResult(SKIP, "a URL, not a port of this PC")
    try:
        from serial.tools import list_ports
    except ImportError:
        if sys.platform == "win32":
            return CheckResult(SKIP, "pyserial is not installed", 'pip install "pytest-openscope[serial]"')
        present = []
    else:
        present = [item.device for item in list_ports.comports()]
    if _is_among(port, present) or (sys.platform != "win32" and Path(port).exists()):
        return CheckResult(PASS, "present")
    there = ", ".join(present) or "none"
    return CheckResult(FAIL, f"{port} is not there (ports: {there})", "plug it in; look in the device manager")


def _is_among(port: str, present: list[str]) -> bool:
    if sys.platform == "win32":
        return port.removeprefix("\\\\.\\").upper() in {name.upper() for name in present}
    return port in present


def check_tcp_port(port: int | str) -> CheckResult:
    """Find out whether a TCP port (``5555`` or ``host:5555``) can be listened on."""
    host, _, digits = str(port).rpartition(":")
    host = host.strip("[]")
    number = int(digits) if digits.isascii() and digits.isdigit() else 0
    if not 0 < number < 65536:
        return CheckResult(FAIL, f"{port!r} is no port", "write a number from 1 to 65535, or host:number")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            if sys.platform == "win32":
                # Otherwise Windows lets two programs listen, where one of them listens on a single address.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                # Without it a port whose last connection ended a minute ago counts as taken.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, number))
    except OSError as error:
        words = error.strerror or str(error)
        if error.errno in _TAKEN:
            remedy = "end the program that holds it, or choose another port"
            return CheckResult(FAIL, f"taken{_holder(number)} ({words})", remedy)
        return CheckResult(FAIL, f"cannot be listened on ({words})", "is the host an address of this PC?")
    return CheckResult(PASS, "free")


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr[1] == port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f" by {name_of(psutil.Process(connection.pid))}"
    except (psutil.Error, OSError):
        pass
    return ""


# Devices


def check_safe_command(name: str, devices: Any) -> CheckResult | None:
    """Return a failure where what makes a device safe once the experiment process has died is missing."""
    missing = devices.specs[name].missing_for_safety(devices.rig_dir, program_too=not devices.dry_run)
    if not missing:
        return None
    text = f"its safe_state_command cannot be run: {missing}; the device was not opened"
    return CheckResult(FAIL, text, "install it, or give its whole path in the rig file")


def check_device(name: str, devices: Any, within: AbstractContextManager[Any] | None = None) -> CheckResult:
    """Open a device, let it prove that it answers, and close it again; each has its own time.

    Args:
        name: of the device.
        devices: the session's devices.
        within: ends an opening that nothing else watches, since it must happen in the main thread.
    """
    limit_ms = devices.specs[name].check_timeout_s * 1000
    started = time.monotonic()
    took_ms: float | None = None
    try:
        with within or nullcontext():
            devices[name]
        opened = time.monotonic()
        says_so = callable(getattr(type(devices.mock(name)), "check", None))
        said = devices.check(name)
        took_ms = (time.monotonic() - opened) * 1000
    except Exception as raised:
        # What did not open comes as a list of one, with its remedy.
        failure = next(iter(getattr(raised, "failures", ())), None)
        error = getattr(failure, "error", raised)
        remedy = getattr(failure or error, "remedy", "") or "is it switched on and connected? see the session log"
        text = f"{type(error).__name__}: {error}"
        with suppress(Exception):  # what it says to its closing adds nothing
            if name in devices.opened():
                devices.close(name)
        return CheckResult(FAIL, text, remedy, took_ms, "ms", limit_ms)
    try:
        devices.close(name)
    except Exception as error:
        text = f"answers, but does not close: {type(error).__name__}: {error}"
        return CheckResult(FAIL, text, "look at its close() and safe_state; see the session log", took_ms, "ms", limit_ms)
    opening = f"opened in {(opened - started) * 1000:.0f} ms"
    if not says_so and said is None:
        return CheckResult(PASS, f"opens and closes; its driver has no check() ({opening})")
    words = "opens, answers and closes" if said in (None, True) else f"says {said!r}"
    return CheckResult(PASS, f"{words} ({opening}); check() took", "", took_ms, "ms", limit_ms)


# GitHub


def check_github(settings: Any, access: Access, requirements: Requirements) -> CheckResult:
    """Ask GitHub whether reports could be filed; nothing is created."""
    if settings is None or not settings.enabled:
        return CheckResult(SKIP, "no reports are asked for (github_issue.enabled)")
    results = [CheckResult(PASS, f"{settings.repo} can be written")]
    for finding in access(settings, _timeout_s(requirements)):
        text, _, remedy = finding["text"].partition(" -> ")
        if finding["what"] == "server" and finding["level"] != "ok":
            results.append(CheckResult(WARN, text, remedy or "reports wait in the outbox until it answers"))
        elif finding["level"] == "error":
            results.append(CheckResult(FAIL, text, remedy))
        elif finding["level"] == "warning" and finding["what"] not in _ADVICE:
            results.append(CheckResult(WARN, text, remedy))
    return max(results, key=lambda result: (PASS, WARN, FAIL).index(result.status))
