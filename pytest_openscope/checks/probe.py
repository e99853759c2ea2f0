"""Touches disks, shares and servers from a process of its own, which may hang without holding up anybody.

``python -m pytest_openscope.checks.probe <name> <json arguments>`` prints one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20


def run_probe(name: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
    """Run a probe and return what it found; ``{"error": …}`` when it failed or did not come back in time."""
    command = [sys.executable, "-m", "pytest_openscope.checks.probe", name, json.dumps(arguments)]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment)
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        # A process that hangs in a dead share cannot always be killed; nobody waits for it.
        process.kill()
        return {"error": f"no answer within {timeout_s:g} s", "hung": True}
    try:
        answer = json.loads(output)
    except ValueError:
        return {"error": errors.decode("utf-8", "replace").strip()[-500:] or f"the probe ended with {process.returncode}"}
    return answer if isinstance(answer, dict) else {"error": f"the probe printed {answer!r}"}


def disk(path: str, size_mb: int, seconds: float) -> dict[str, Any]:
    """Measure free space, write speed and the latency of a synced small write in a folder, which is created if need be."""
    import shutil

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"free_gb": shutil.disk_usage(folder).free / 1e9}
    file = folder / f".openscope_probe_{uuid.uuid4().hex}"
    block = os.urandom(_BLOCK_BYTES)
    try:
        facts["fsync_ms"] = _sync_ms(file)
        started = time.perf_counter()
        written = 0
        with open(file, "wb", buffering=0) as stream:
            while written < size_mb and time.perf_counter() - started < seconds:
                stream.write(block)
                written += 1
            os.fsync(stream.fileno())
        facts["write_mb_per_s"] = written * _BLOCK_BYTES / 1e6 / (time.perf_counter() - started)
        facts["written_mb"] = written
    finally:
        file.unlink(missing_ok=True)
    return facts


def _sync_ms(file: Path, repeats: int = 9) -> float:
    """Return the median time of a small write with fsync."""
    times = []
    with open(file, "wb", buffering=0) as stream:
        for _ in range(repeats):
            started = time.perf_counter()
            stream.write(b"x" * 200)
            os.fsync(stream.fileno())
            times.append((time.perf_counter() - started) * 1000)
    return sorted(times)[repeats // 2]


def mirror(path: str) -> dict[str, Any]:
    """Write, read and remove a small file on the mirror; its modification time tells the server's clock."""
    folder = Path(path)
    if not folder.is_dir():
        return {"error": f"{folder} does not exist or is not reachable"}
    file = folder / f".openscope_probe_{uuid.uuid4().hex}"
    times = []
    try:
        for number in range(5):
            before = time.time()
            started = time.perf_counter()
            file.write_bytes(b"%d" % number)
            times.append((time.perf_counter() - started) * 1000)
            after = time.time()
        stamp = file.stat().st_mtime
        if file.read_bytes() != b"4":
            return {"error": "what was written was not read back"}
    finally:
        file.unlink(missing_ok=True)
    # Up to two seconds of rounding are usual (FAT, some NAS); within the write the clocks agree.
    skew_s = max(0.0, before - stamp, stamp - after)
    return {"latency_ms": sorted(times)[2], "clock_skew_s": skew_s}


def github(api_base_url: str, repo: str, token_env: str) -> dict[str, Any]:
    """Ask GitHub what the token may do with the repository; nothing is created."""
    import urllib.error
    import urllib.request

    headers = {"Accept": "application/vnd.github+json", "User-Agent": "pytest-openscope"}
    token = os.environ.get(token_env, "")
    headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"{api_base_url.rstrip('/')}/repos/{repo}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            content = json.load(answer)
    except urllib.error.HTTPError as error:
        return {"status": error.code, "error": error.reason}
    permissions = content.get("permissions") or {}
    may_write = any(permissions.get(right) for right in ("push", "triage", "maintain", "admin"))
    return {"status": 200, "has_issues": content.get("has_issues"), "archived": content.get("archived"), "may_write": may_write}


_PROBES: dict[str, Callable[..., dict[str, Any]]] = {"disk": disk, "mirror": mirror, "github": github}


def main(arguments: list[str]) -> int:
    """Run one probe; every failure is an answer."""
    try:
        answer = _PROBES[arguments[0]](**json.loads(arguments[1]))
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
