"""Touches disks and shares from a process of its own, which may hang without holding up anybody."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .files import remove_file
from .surroundings import missing_drive
from .workers import UnansweredError, answer_with, ask

_BLOCK_BYTES = 1 << 20


def run_probe(name: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
    """Run a probe and return what it found; ``{"error": …}`` when it failed or did not come back in time."""
    root = str(Path(__file__).resolve().parents[2])
    boot = f"import sys; sys.path.insert(0, {root!r}); from pytest_openscope.system.probe import main; main()"
    try:
        found: dict[str, Any] = ask([sys.executable, "-c", boot], {"probe": name, "arguments": arguments}, timeout_s)
    except UnansweredError as problem:
        return {"error": str(problem)}
    return found


def folder(path: str) -> dict[str, Any]:
    """Find out whether files can be created in a folder, which is created if need be."""
    with _scratch_file(Path(path)) as file:
        file.write_bytes(b"x")
    return {}


def disk(path: str, size_mb: int, seconds: float) -> dict[str, Any]:
    """Measure free space, write speed and the latency of a synced small write in a folder, which is created if need be."""
    block = os.urandom(_BLOCK_BYTES)
    times = []
    written = 0
    with _scratch_file(Path(path)) as file, open(file, "wb", buffering=0) as stream:
        free_gb = shutil.disk_usage(path).free / 1e9
        for _ in range(9):
            started = time.perf_counter()
            stream.write(b"x" * 200)
            os.fsync(stream.fileno())
            times.append((time.perf_counter() - started) * 1000)
        started = time.perf_counter()
        while written < size_mb and time.perf_counter() - started < seconds:
            stream.write(block)
            written += 1
        os.fsync(stream.fileno())
        speed = written * _BLOCK_BYTES / 1e6 / (time.perf_counter() - started)
    return {"free_gb": free_gb, "fsync_ms": statistics.median(times), "write_mb_per_s": speed, "written_mb": written}


@contextlib.contextmanager
def _scratch_file(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f".openscope_probe_{uuid.uuid4().hex}"
    try:
        yield file
    finally:
        remove_file(file)


def mirror(path: str) -> dict[str, Any]:
    """Write, read and remove a small file on the mirror; its modification time tells the server's clock."""
    place = Path(path)
    if not place.is_dir():
        return {"error": missing_drive(place) or f"{place} does not exist or is not reachable"}
    times = []
    with _scratch_file(place) as file:
        for number in range(5):
            before = time.time()
            started = time.perf_counter()
            file.write_bytes(b"%d" % number)
            times.append((time.perf_counter() - started) * 1000)
            after = time.time()
        stamp = file.stat().st_mtime
        if file.read_bytes() != b"4":
            return {"error": "what was written was not read back"}
    # Up to two seconds of rounding are usual (FAT, some NAS); within the write the clocks agree.
    skew_s = max(0.0, before - stamp, stamp - after)
    return {"latency_ms": statistics.median(times), "clock_skew_s": skew_s}


_PROBES: dict[str, Callable[..., dict[str, Any]]] = {"folder": folder, "disk": disk, "mirror": mirror}


def main() -> None:
    """Run the probe that is asked for."""
    answer_with(lambda probe, arguments: _PROBES[probe](**arguments))
