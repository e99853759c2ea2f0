"""The measuring code of the rig validation: plain functions from requirements to results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ..system import run_probe
from .result import FAIL, PASS, SKIP, WARN, CheckResult, at_least, at_most, failed_all

Requirements = Mapping[str, Any]
#: Longest wait for a disk, a share or a server, where the requirements do not say.
TIMEOUT_S = 20.0


def check_disk(root: Path, requirements: Requirements, *, size_mb: int = 64) -> list[CheckResult]:
    """Measure the output disk: writable, free space, write speed, sync latency."""
    names = ["disk.writable", "disk.free_space", "disk.write_speed", "disk.fsync"]
    facts = run_probe("disk", _timeout_s(requirements), path=str(root), size_mb=size_mb, seconds=3.0)
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


def check_mirror(folder: str | None, requirements: Requirements, *, why_not: str = "") -> list[CheckResult]:
    """Measure the central log directory: reachable and writable, its latency, the difference of its clock."""
    names = ["mirror.writable", "mirror.latency", "mirror.clock_skew"]
    if not folder:
        return [CheckResult(name, SKIP, why_not or "no centralized_log_directory is set") for name in names]
    facts = run_probe("mirror", _timeout_s(requirements), path=folder)
    if "error" in facts:
        remedy = "is the share mounted and the server up? sessions still run: the sidecar copies when it is back"
        return failed_all(names, f"{folder}: {facts['error']}", remedy)
    latency, skew = facts["latency_ms"], facts["clock_skew_s"]
    words = f"median of five small writes in {folder}"
    same = "let this PC and the server take their time from the same source"
    return [
        CheckResult(names[0], PASS, f"{folder} can be written"),
        at_most(names[1], latency, requirements.get("mirror_latency_ms"), "ms", words, "look at the network"),
        at_most(names[2], skew, requirements.get("clock_skew_s"), "s", "against the mirror's clock", same),
    ]


def _timeout_s(requirements: Requirements) -> float:
    return float(requirements.get("timeout_s") or TIMEOUT_S)


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


def check_safe_command(name: str, devices: Any) -> CheckResult | None:
    """Return a failure where what makes a device safe once the experiment process has died is missing."""
    missing = devices.missing_for_safety(name)
    if not missing:
        return None
    text = f"its safe_state_command cannot be run: {missing}; the device was not opened"
    return CheckResult(f"devices[{name}]", FAIL, text, remedy="install it, or give its whole path in the rig file")


def check_device(name: str, devices: Any, within: AbstractContextManager[Any] | None = None) -> CheckResult:
    """Open a device, let it prove that it answers, and close it again; each has its own time.

    Args:
        name: of the device.
        devices: the session's devices.
        within: ends an opening that nothing else watches, since it must happen in the main thread.
    """
    check = f"devices[{name}]"
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
        _put_away(name, devices)
        return CheckResult(check, FAIL, text, took_ms, "ms", limit_ms, remedy)
    try:
        devices.close(name)
    except Exception as error:
        text = f"answers, but does not close: {type(error).__name__}: {error}"
        return CheckResult(
            check, FAIL, text, took_ms, "ms", limit_ms, "look at its close() and safe_state; see the session log"
        )
    opening = f"opened in {(opened - started) * 1000:.0f} ms"
    if not says_so and said is None:
        return CheckResult(check, PASS, f"opens and closes; its driver has no check() ({opening})")
    words = "opens, answers and closes" if said in (None, True) else f"says {said!r}"
    return CheckResult(check, PASS, f"{words} ({opening}); check() took", took_ms, "ms", limit_ms)


def _put_away(name: str, devices: Any) -> None:
    """Close what failed its check; what it says to that adds nothing."""
    if name in devices.opened():
        try:
            devices.close(name)
        except Exception:
            return


def check_github(settings: Any, requirements: Requirements, *, why_not: str = "") -> CheckResult:
    """Ask GitHub whether reports could be filed; nothing is created."""
    if settings is None or not getattr(settings, "enabled", False):
        return CheckResult("github", SKIP, why_not or "no reports are asked for (github_issue.enabled)")
    repo, token_env = settings.repo, settings.token_env
    if not os.environ.get(token_env):
        return CheckResult("github", FAIL, f"{token_env} is not set", remedy=f"put an access token for {repo} into {token_env}")
    facts = run_probe("github", _timeout_s(requirements), api_base_url=settings.api_base_url, repo=repo, token_env=token_env)
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
    if status in (403, 429) and facts.get("rate_limited"):
        text = f"GitHub has had enough requests from this token for now ({status})"
        return CheckResult("github", WARN, text, status, remedy="wait; reports wait in the outbox")
    if status in (403, 404):
        text = f"{repo} does not exist or the token may not see it ({status})"
        return CheckResult("github", FAIL, text, status, remedy="give the token access to the repository, with Issues: write")
    if status != 200:
        remedy = "is github_issue.api_base_url right? reports wait in the outbox"
        return CheckResult("github", WARN, f"GitHub answered {status}: {facts.get('error')}", status, remedy=remedy)
    if facts.get("archived") or facts.get("has_issues") is False:
        remedy = "switch issues on, or name another repository"
        return CheckResult("github", FAIL, f"{repo} is archived or has no issues", remedy=remedy)
    if facts.get("scopes_suffice") is False:
        return CheckResult(
            "github", FAIL, f"the token has no scope that lets it write to {repo}", remedy="give it the scope repo"
        )
    if not facts.get("may_write"):
        return CheckResult("github", WARN, f"the token may read {repo}, but not set labels", remedy="give it Issues: write")
    moved = str(facts.get("full_name") or repo)
    if moved.lower() != repo.lower():
        return CheckResult("github", WARN, f"{repo} is called {moved} now", remedy=f"write repo: {moved}")
    return CheckResult("github", PASS, f"{repo} can be written")
