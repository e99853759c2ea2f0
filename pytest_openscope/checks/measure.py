"""The measuring code of the rig validation: plain functions from requirements to results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .probe import run_probe
from .result import FAIL, PASS, SKIP, WARN, CheckResult, at_least, at_most, failed_all

Requirements = Mapping[str, Any]
_DISK_TIMEOUT_S = 30.0
_MIRROR_TIMEOUT_S = 15.0
_GITHUB_TIMEOUT_S = 20.0


def check_disk(root: Path, requirements: Requirements, *, size_mb: int = 64) -> list[CheckResult]:
    """Measure the output disk: writable, free space, write speed, sync latency."""
    names = ["disk.writable", "disk.free_space", "disk.write_speed", "disk.fsync"]
    facts = run_probe("disk", _DISK_TIMEOUT_S, path=str(root), size_mb=size_mb, seconds=3.0)
    if "error" in facts:
        return failed_all(
            names, f"{root}: {facts['error']}", "is the disk there, its folder writable, output_root_folder right?"
        )
    free, speed, sync = facts["free_gb"], facts["write_mb_per_s"], facts["fsync_ms"]
    words = f"wrote {facts['written_mb']} MB to {root}"
    slow = "close what else writes to this disk; look at its health (SMART) and at the virus scanner's exclusions"
    return [
        CheckResult(names[0], PASS, f"{root} can be written"),
        at_least(names[1], free, requirements.get("free_gb"), "GB", f"free in {root}", "move finished sessions away"),
        at_least(names[2], speed, requirements.get("write_mb_per_s"), "MB/s", words, slow),
        at_most(names[3], sync, requirements.get("fsync_ms"), "ms", "median of nine small synced writes", slow),
    ]


def check_mirror(folder: str | None, requirements: Requirements, *, timeout_s: float = _MIRROR_TIMEOUT_S) -> list[CheckResult]:
    """Measure the central log directory: reachable and writable, its latency, the difference of its clock."""
    names = ["mirror.writable", "mirror.latency", "mirror.clock_skew"]
    if not folder:
        return [CheckResult(name, SKIP, "no centralized_log_directory is set") for name in names]
    facts = run_probe("mirror", timeout_s, path=folder)
    if "error" in facts:
        remedy = "is the share mounted and the server up? sessions still run: the sidecar copies when it is back"
        return failed_all(names, f"{folder}: {facts['error']}", remedy)
    skew_remedy = "let this PC and the server take their time from the same source"
    what = "median of five small writes"
    return [
        CheckResult(names[0], PASS, f"{folder} can be written"),
        at_most(names[1], facts["latency_ms"], requirements.get("mirror_latency_ms"), "ms", what, "look at the network"),
        at_most(
            names[2], facts["clock_skew_s"], requirements.get("clock_skew_s"), "s", "against the mirror's clock", skew_remedy
        ),
    ]


def check_executable(name: str, folder: Path) -> CheckResult:
    """Find a program by name or path (relative ones are beside the rig file)."""
    check = f"executables[{name}]"
    found = shutil.which(name) or shutil.which(str(folder / name))
    if found:
        return CheckResult(check, PASS, found)
    return CheckResult(check, FAIL, f"{name} is not there", remedy="install it, put it on the PATH, or correct the path")


def check_repository(path: str, folder: Path) -> CheckResult:
    """Find a git repository, and say which commit it is at and whether it was changed."""
    check, place = f"repositories[{path}]", folder / path
    if not place.is_dir():
        return CheckResult(check, FAIL, f"{place} does not exist", remedy="clone it, or correct the path")
    git = ["git", "-C", str(place)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=20, check=False)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return CheckResult(check, WARN, f"git cannot tell: {error}", remedy="install git")
    if head.returncode:
        return CheckResult(check, FAIL, f"{place} is no git repository: {head.stderr.strip()}", remedy="clone it again")
    if status.stdout.strip():
        changed = f"{len(status.stdout.splitlines())} changed files"
        return CheckResult(check, WARN, f"{changed} in {place}", head.stdout.strip(), remedy="commit or discard them")
    return CheckResult(check, PASS, "clean", head.stdout.strip())


def check_serial_port(port: str) -> CheckResult:
    """Find a serial port."""
    check = f"serial_ports[{port}]"
    if "://" in port:
        return CheckResult(check, SKIP, "a URL, not a port of this PC")
    try:
        from serial.tools import list_ports
    except ImportError:
        if sys.platform == "win32":
            return CheckResult(check, SKIP, "pyserial is not installed", remedy="pip install pytest-openscope[serial]")
        present = []
    else:
        present = [item.device for item in list_ports.comports()]
    if port in present or (sys.platform != "win32" and Path(port).exists()):
        return CheckResult(check, PASS, "present")
    there = ", ".join(present) or "none"
    return CheckResult(check, FAIL, f"{port} is not there (ports: {there})", remedy="plug it in; look in the device manager")


def check_tcp_port(port: int | str) -> CheckResult:
    """Find out whether a TCP port (``5555`` or ``host:5555``) can be listened on."""
    import socket

    host, _, number = str(port).rpartition(":")
    check = f"tcp_ports[{port}]"
    with socket.socket() as listener:
        if sys.platform != "win32":
            # Without it a port whose last connection ended a minute ago counts as taken; Windows means something else by it.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, int(number)))
        except ValueError:
            return CheckResult(check, FAIL, f"{port!r} is no port", remedy="write a number, or host:number")
        except OSError as error:
            holder = _port_holder(int(number))
            return CheckResult(check, FAIL, f"taken{holder} ({error.strerror})", remedy="end the program that holds it")
    return CheckResult(check, PASS, "free")


def _port_holder(port: int) -> str:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr[1] == port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""


def check_processes(names: Sequence[str], own_session: str) -> CheckResult:
    """Find acquisition processes that an earlier session left behind, by its mark in their environment or by their names."""
    import psutil

    wanted = {Path(name).stem.lower() for name in names}
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    own |= {child.pid for child in psutil.Process().children(recursive=True)}
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        if process.pid in own:
            continue
        by_name = Path(process.info["name"] or "").stem.lower() in wanted
        session = "" if by_name else _session_mark(process)
        if by_name or (session and session != own_session and _is_orphan(process, session)):
            found.append(f"{process.info['name']} (pid {process.pid}" + (f", session {session})" if session else ")"))
    if found:
        return CheckResult(
            "processes", FAIL, "still running: " + ", ".join(found), len(found), remedy="end them: they hold hardware"
        )
    return CheckResult("processes", PASS, "nothing left from earlier sessions")


def _is_orphan(process: Any, session: str) -> bool:
    """Tell whether the experiment that started a process is gone; another rig's session on this PC is nobody's mistake."""
    import psutil

    try:
        parent = process.parent()
        while parent is not None and _session_mark(parent) == session:
            parent = parent.parent()
        return parent is None or parent.pid == 1 or parent.name() in ("systemd", "init", "launchd")
    except (psutil.Error, OSError):
        return False


def _session_mark(process: Any) -> str:
    import psutil

    try:
        session = str(process.environ().get("OPENSCOPE_SESSION_UUID", ""))
        # The helper of an earlier session may still be copying its log.
        helper = bool(session) and any("pytest_openscope" in part for part in process.cmdline())
    except (psutil.Error, OSError, ValueError):
        return ""
    return "" if helper else session


def check_packages(lock_file: str | None, folder: Path) -> CheckResult:
    """Compare the installed packages with the rig's lock file (``name==version`` lines, ``uv.lock`` or ``pylock.toml``)."""
    if not lock_file:
        return CheckResult("packages", SKIP, "no packages_lock is declared")
    path = folder / lock_file
    try:
        wanted = read_lock(path)
    except (OSError, ValueError) as error:
        return CheckResult("packages", FAIL, f"{path}: {error}", remedy="make it: pip freeze > requirements.lock")
    import importlib.metadata

    wrong = []
    for name, version in wanted.items():
        try:
            present = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            present = "missing"
        if present != version:
            wrong.append(f"{name} {present} (lock: {version})")
    if wrong:
        shown = ", ".join(wrong[:10]) + (f" and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        return CheckResult(
            "packages", FAIL, shown, len(wrong), remedy=f"pip install -r {lock_file}, or make the lock file anew"
        )
    return CheckResult("packages", PASS, f"{len(wanted)} packages as in {lock_file}", len(wanted))


def read_lock(path: Path) -> dict[str, str]:
    """Return names and exact versions.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no exact version.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".toml", ".lock") and "[[package" in text:
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        content = tomllib.loads(text)
        entries = content.get("package") or content.get("packages") or []
        editable = ("editable", "virtual", "directory")
        found = {
            str(entry["name"]): str(entry["version"])
            for entry in entries
            if "version" in entry and not any(kind in (entry.get("source") or {}) for kind in editable)
        }
    else:
        found = {}
        for line in text.splitlines():
            requirement = line.partition("#")[0].partition(";")[0].partition(" --hash")[0].strip().rstrip("\\").strip()
            name, equals, version = requirement.partition("==")
            if equals and not requirement.startswith("-"):
                found[name.partition("[")[0].strip()] = version.strip()
    if not found:
        raise ValueError("no exact versions in it")
    return found


def check_clock(required: bool | None) -> CheckResult:
    """Ask the operating system whether its clock is synchronised; one that cannot tell is skipped, or a warning if required."""
    synchronised, words = clock_synchronised()
    remedy = "switch on time synchronisation (Windows: w32tm /resync; Linux: timedatectl set-ntp true)"
    if synchronised is None:
        return CheckResult("clock", WARN if required else SKIP, f"the system cannot tell: {words}", remedy=remedy)
    if synchronised:
        return CheckResult("clock", PASS, words)
    return CheckResult("clock", FAIL if required else WARN, words, remedy=remedy)


def clock_synchronised() -> tuple[bool | None, str]:
    """Return whether the clock is synchronised (None: unknown), and the system's words."""
    if sys.platform == "win32":
        command = ["w32tm", "/query", "/status"]
    else:
        command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return read_clock_status(done.stdout if not done.returncode else "", done.stderr.strip() or f"exit code {done.returncode}")


def read_clock_status(output: str, otherwise: str) -> tuple[bool | None, str]:
    """Read what ``timedatectl`` or ``w32tm`` printed."""
    text = output.strip()
    if text in ("yes", "no"):
        return text == "yes", "synchronised" if text == "yes" else "not synchronised"
    lowered = text.lower()
    if "stratum" in lowered or "leap" in lowered:
        loose = "local cmos clock" in lowered or "free-running" in lowered or "leap indicator: 3" in lowered
        source = next((line.partition(":")[2].strip() for line in text.splitlines() if line.lower().startswith("source")), "")
        return not loose, f"source {source}" if source else "synchronised"
    return None, otherwise


def check_python(specifier: str | None) -> CheckResult:
    """Hold the Python version against a PEP 440 specifier."""
    version = ".".join(map(str, sys.version_info[:3]))
    if not specifier:
        return CheckResult("python", PASS, f"Python {version}")
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = SpecifierSet(specifier).contains(version)
    except InvalidSpecifier as error:
        return CheckResult("python", FAIL, str(error), remedy="write e.g. python: '>=3.11,<3.13'")
    return CheckResult("python", PASS if fits else FAIL, f"Python {version}", remedy=f"use a Python that fits {specifier}")


def check_memory(limit_gb: float | None) -> CheckResult:
    """Measure the free memory."""
    import psutil

    return at_least("memory", psutil.virtual_memory().available / 1e9, limit_gb, "GB", "free memory", "close other programs")


def check_environment(name: str) -> CheckResult:
    """Find an environment variable; its value is not shown."""
    check = f"environment[{name}]"
    if os.environ.get(name):
        return CheckResult(check, PASS, "set")
    return CheckResult(check, FAIL, "not set", remedy=f"set {name} for the account that runs the rig")


def check_device(name: str, devices: Any, timeout_s: float) -> CheckResult:
    """Open a device, let it prove that it answers, and close it again."""
    check, started = f"devices[{name}]", time.monotonic()
    try:
        said = devices.check(name)
    except Exception as error:
        remedy = getattr(error, "remedy", "") or "is it switched on and connected? see the session log"
        return CheckResult(check, FAIL, f"{type(error).__name__}: {error}", remedy=remedy)
    took_ms = (time.monotonic() - started) * 1000
    try:
        devices.close(name)
    except Exception as error:
        return CheckResult(check, FAIL, f"answers, but does not close: {type(error).__name__}: {error}", took_ms, "ms")
    words = "opens, answers and closes" if said in (None, True) else f"says {said!r}"
    return CheckResult(check, PASS, words, took_ms, "ms", timeout_s * 1000)


def check_github(settings: Any) -> CheckResult:
    """Ask GitHub whether reports could be filed; nothing is created."""
    if settings is None or not getattr(settings, "enabled", False):
        return CheckResult("github", SKIP, "no reports are asked for (github_issue.enabled)")
    repo, token_env = settings.repo, settings.token_env
    if not os.environ.get(token_env):
        return CheckResult("github", FAIL, f"{token_env} is not set", remedy=f"put an access token for {repo} into {token_env}")
    facts = run_probe("github", _GITHUB_TIMEOUT_S, api_base_url=settings.api_base_url, repo=repo, token_env=token_env)
    return read_github(facts, repo, token_env)


def read_github(facts: Mapping[str, Any], repo: str, token_env: str) -> CheckResult:
    """Turn what the GitHub probe found into a result."""
    status = facts.get("status")
    if status is None:
        return CheckResult(
            "github", WARN, f"not reachable: {facts.get('error')}", remedy="reports wait in the outbox until it is"
        )
    if status == 401:
        return CheckResult("github", FAIL, "the token is not valid (401)", status, remedy=f"make a new one for {token_env}")
    if status in (403, 404):
        text = f"{repo} does not exist or the token may not see it ({status})"
        return CheckResult("github", FAIL, text, status, remedy="give the token access to the repository, with Issues: write")
    if status != 200:
        return CheckResult("github", WARN, f"GitHub answered {status}: {facts.get('error')}", status)
    if facts.get("archived") or facts.get("has_issues") is False:
        return CheckResult("github", FAIL, f"{repo} is archived or has no issues", remedy="switch issues on, or name another")
    if not facts.get("may_write"):
        return CheckResult("github", WARN, f"the token may read {repo}, but not set labels", remedy="give it Issues: write")
    return CheckResult("github", PASS, f"{repo} can be written")
