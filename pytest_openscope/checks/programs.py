"""Programs and repositories must be there, and nothing may run that an earlier session should have ended."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .result import FAIL, PASS, WARN, CheckResult

_GIT_S = 20.0
_HELPER = "pytest_openscope.sidecar"


def check_executable(name: str, folder: Path) -> CheckResult:
    """Find a program by name or path (relative ones are beside the rig file)."""
    check = f"executables[{name}]"
    found = shutil.which(name) or shutil.which(str(folder / name))
    if found:
        return CheckResult(check, PASS, found)
    if (folder / name).is_file():
        return CheckResult(check, FAIL, f"{folder / name} cannot be executed", remedy="make it executable: chmod +x")
    return CheckResult(check, FAIL, f"{name} is not there", remedy="install it, put it on the PATH, or correct the path")


def check_repository(path: str, folder: Path) -> CheckResult:
    """Find a git repository, and say which commit it is at and whether it was changed."""
    check, place = f"repositories[{path}]", folder / path
    if not place.is_dir():
        return CheckResult(check, FAIL, f"{place} does not exist", remedy="clone it, or correct the path")
    try:
        top = _git(place, "rev-parse", "--show-toplevel")
        head = _git(place, "rev-parse", "HEAD")
        status = _git(place, "status", "--porcelain")
    except (OSError, subprocess.TimeoutExpired) as error:
        return CheckResult(check, WARN, f"git cannot tell: {error}", remedy="install git, and put it on the PATH")
    if top.returncode:
        text = f"{place}: {top.stderr.strip()}"
        if "dubious ownership" in top.stderr:
            return CheckResult(check, FAIL, text, remedy="make it this account's own, or add it to git's safe.directory")
        return CheckResult(check, FAIL, f"no git repository: {text}", remedy="clone it again")
    if Path(top.stdout.strip()).resolve() != place.resolve():
        text = f"{place} is no repository of its own, it lies in that of {top.stdout.strip()}"
        return CheckResult(check, FAIL, text, remedy="clone it, or name the repository's top folder")
    if head.returncode:
        return CheckResult(check, FAIL, f"{place} has no commit yet", remedy="clone it again")
    if status.stdout.strip():
        changed = f"{len(status.stdout.splitlines())} changed files"
        return CheckResult(check, WARN, f"{changed} in {place}", head.stdout.strip(), remedy="commit or discard them")
    return CheckResult(check, PASS, f"clean, at {head.stdout.strip()[:12]}", head.stdout.strip())


def _git(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(
        ["git", "-C", str(place), *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_GIT_S,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def check_processes(names: Sequence[str], own_session: str) -> CheckResult:
    """Find acquisition processes that an earlier session left behind, by its mark in their environment or by their names."""
    import psutil

    wanted = {_program(name) for name in names}
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    own |= {child.pid for child in psutil.Process().children(recursive=True)}
    found = []
    for process in psutil.process_iter(["pid", "name", "status"]):
        if process.pid in own or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        by_name = _program(process.info["name"] or "") in wanted
        session = "" if by_name else _session_mark(process)
        if by_name or (session and session != own_session and _is_orphan(process, session)):
            found.append(f"{process.info['name']} (pid {process.pid}" + (f", session {session})" if session else ")"))
    if found:
        text = "still running: " + ", ".join(found)
        return CheckResult("processes", FAIL, text, len(found), "processes", 0, "end them: they hold hardware")
    return CheckResult("processes", PASS, "nothing left from earlier sessions", 0, "processes", 0)


def _program(name: str) -> str:
    return Path(name).name.lower().removesuffix(".exe")


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
        helper = bool(session) and any(_HELPER in part for part in process.cmdline())
    except (psutil.Error, OSError, ValueError):
        return ""
    return "" if helper else session
