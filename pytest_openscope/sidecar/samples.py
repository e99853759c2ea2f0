"""What the session costs the machine: ``resource_usage.json``, taken from outside the experiment process.

The file is a JSON array after every sample. A sample replaces the closing bracket by itself and a new bracket in one write,
so the cost does not grow with the file and a killed writer leaves the old array or the new one. What a power cut or a full
disk tore is mended by :func:`repair`: one sample stands on one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

from ..system import age_s, now_iso, same_process, start_of, write_atomic
from .reconstruct import AcquisitionView

RESOURCE_USAGE = "resource_usage.json"
LOGGER = "pytest_openscope.resources"
#: How often the session log gets a summary.
SUMMARY_S = 300.0
_END = b"\n]\n"
#: Sizes are decimal, as everywhere else where MB and GB are written.
_MB, _GB = 10**6, 10**9
#: A warning is repeated only after the value was this much better than its limit.
_HYSTERESIS = 0.05


def append(path: Path, sample: dict[str, Any]) -> None:
    """Add one sample to the array; the file is created or mended as needed.

    Raises:
        OSError: the disk is full or the folder is gone; the array stays as it was.
    """
    data = json.dumps(sample).encode("ascii")
    if not path.exists():
        write_atomic(path, b"[" + _END)
    with open(path, "rb", buffering=0) as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - len(_END)))
        ends_well = stream.read() == _END
    if not ends_well:
        repair(path)
    with open(path, "r+b", buffering=0) as stream:
        start = stream.seek(0, os.SEEK_END) - len(_END)
        stream.seek(start)
        addition = (b"," if start > 1 else b"") + b"\n" + data + _END
        try:
            written = stream.write(addition)
            if written != len(addition):
                raise OSError(28, "the disk is full")
        except OSError:
            # Over the old end first: that room is ours, while what a cut gives back another writer may take.
            stream.seek(start)
            stream.write(_END)
            stream.truncate()
            raise


def read_samples(path: Path, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the whole samples from byte ``start`` on, each with the byte behind its line; none where there is no file.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.exists():
        return
    with open(path, "rb") as stream:
        offset = stream.seek(start)
        for line in stream:
            offset += len(line)
            text = line.strip(b"\0 \r\n").rstrip(b",")
            # Of a line that a power cut tore, and of the one that is being written now, there is no whole sample.
            if text.startswith(b"{") and line.endswith(b"\n"):
                with contextlib.suppress(ValueError):
                    yield json.loads(text), offset


def repair(path: Path) -> bool:
    """Make a torn file a valid array of its whole samples again; True when there was something to mend.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        if path.exists():
            json.loads(path.read_bytes())
        return False
    except ValueError:
        lines = ["\n" + json.dumps(sample) for sample, _ in read_samples(path)]
    write_atomic(path, b"[" + ",".join(lines).encode("ascii") + _END)
    return True


def disk_of(folder: str, counters: dict[str, Any]) -> str:
    """Return the name under which the system counts the folder's disk; the only disk where there is but one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            device = Path(folder).stat().st_dev
            name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
            if name in counters:
                return name
    return next(iter(counters)) if len(counters) == 1 else ""


class Tree:
    """One process with or without its descendants: CPU since the last look, memory now.

    Descendants are remembered, so that those whose parent has died are still counted.
    """

    def __init__(self, pid: int, started: float | None, descendants: bool) -> None:
        self.pid, self.started, self.descendants = pid, started, descendants
        self.members: dict[int, psutil.Process] = {}
        self._cpu_s: dict[int, float] = {}
        self._looked = time.monotonic()

    def look(self) -> dict[str, Any] | None:
        """Return ``cpu_percent`` (100 is one core), ``memory_mb`` and ``processes``; None when nothing is alive."""
        self._find()
        now = time.monotonic()
        passed_s = max(now - self._looked, 1e-3)
        used_s, memory, alive, cpu = 0.0, 0, {}, {}
        for pid, process in self.members.items():
            try:
                with process.oneshot():
                    if process.status() == psutil.STATUS_ZOMBIE:
                        continue
                    times = process.cpu_times()
                    memory += process.memory_info().rss
            except (psutil.Error, OSError):
                continue
            alive[pid] = process
            cpu[pid] = times.user + times.system
            used_s += max(0.0, cpu[pid] - self._cpu_s.get(pid, 0.0))
        first = not self._cpu_s
        self.members, self._cpu_s, self._looked = alive, cpu, now
        if not alive:
            return None
        if first:
            passed_s = max(passed_s, age_s(self.pid), 0.1)
        return {
            "cpu_percent": round(100.0 * used_s / passed_s, 1),
            "memory_mb": round(memory / _MB, 1),
            "processes": len(alive),
        }

    def _find(self) -> None:
        if self.pid not in self.members:
            root = same_process(self.pid, self.started)
            if root is not None:
                self.members[self.pid] = root
        for process in list(self.members.values()) if self.descendants else ():
            with contextlib.suppress(psutil.Error, OSError):
                for child in process.children(recursive=process.pid == self.pid):
                    self.members.setdefault(child.pid, child)


class ResourceSampler:
    """Takes the samples in a thread of its own: a look at a stuck disk must not hold up the sidecar's watch.

    Args:
        path: ``resource_usage.json``.
        pid: the experiment process, with its start time in ``started``.
        disk: a folder on the session's disk.
        say: gets level, text, logger and whether the operator should see it.
    """

    def __init__(
        self,
        path: Path,
        pid: int,
        started: float | None,
        interval_s: float,
        disk: str,
        say: Callable[[str, str, str, bool], None],
        *,
        low_disk_gb: float = 5.0,
        low_memory_percent: float = 95.0,
    ) -> None:
        self.path, self.disk, self.say = path, disk, say
        self.interval_s = interval_s
        self.low_disk_gb, self.low_memory_percent = low_disk_gb, low_memory_percent
        self.failed = ""
        self._experiment = Tree(pid, started, descendants=False)
        #: By name and pid.
        self._acquisitions: dict[tuple[str, int], tuple[Tree, Period]] = {}
        self._wake, self._stop = threading.Event(), threading.Event()
        self._warned: set[str] = set()
        self._period = Period()
        #: When the disks were looked at, and what they had read and written by then.
        self._io: tuple[float, dict[str, Any]] = (0.0, {})
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)

    def start(self) -> None:
        """Begin to take samples."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Take no more samples; the file is complete on return, unless the disk is stuck."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def follow(self, acquisitions: Mapping[str, AcquisitionView]) -> None:
        """Include the process tree of each that runs, with a sample at once, and say what one used that has ended."""
        running = {(name, one.pid): one for name, one in acquisitions.items() if one.finished is None and one.pid}
        for key in running.keys() - self._acquisitions.keys():
            self._acquisitions[key] = (Tree(running[key].pid, running[key].create_time, descendants=True), Period())
            self._wake.set()
        for key in self._acquisitions.keys() - running.keys():
            _, period = self._acquisitions.pop(key)
            self._summarise(period, f"{key[0]}: ")

    def known_processes(self) -> list[tuple[int, float]]:
        """Return pid and start time of each process seen alive in an acquisition's tree."""
        found = []
        for tree, _ in list(self._acquisitions.values()):
            for process in list(tree.members.values()):
                with contextlib.suppress(psutil.Error, OSError):
                    found.append((process.pid, start_of(process)))
        return found

    def _run(self) -> None:
        summary_at = time.monotonic() + SUMMARY_S
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self._take()
                self.failed = ""
            except Exception as error:
                # A sample that fails must not end the sampling; it is said once.
                text = f"{type(error).__name__}: {error}"
                if text != self.failed:
                    self.say("WARNING", f"no resource sample: {text}", LOGGER, False)
                self.failed = text
            if time.monotonic() >= summary_at:
                summary_at = time.monotonic() + SUMMARY_S
                self._summarise(self._period)
                self._period = Period()
            self._wake.wait(self.interval_s)

    def _summarise(self, period: Period, prefix: str = "") -> None:
        if period.samples:
            self.say("INFO", prefix + period.text(), LOGGER, False)

    def _take(self) -> None:
        experiment = self._experiment.look()
        runs = [(tree.look(), period) for tree, period in list(self._acquisitions.values())]
        found = [look for look, _ in runs if look]
        acquisition = {key: round(sum(one[key] for one in found), 1) for key in found[0]} if found else None
        memory, usage = psutil.virtual_memory(), psutil.disk_usage(self.disk)
        rates = self._io_rates()
        disk = {
            "percent": usage.percent,
            "free_gb": round(usage.free / _GB, 3),
            "total_gb": round(usage.total / _GB, 3),
            **rates.get(disk_of(self.disk, self._io[1]), {}),
        }
        sample = {
            "timestamp": now_iso(),
            "launcher": experiment,
            "acquisition": acquisition,
            "system": {
                "cpu_percent": psutil.cpu_percent(None),
                "memory": {
                    "percent": memory.percent,
                    "available_gb": round(memory.available / _GB, 3),
                    "total_gb": round(memory.total / _GB, 3),
                },
                "disk": disk,
                "disks": rates,
            },
        }
        append(self.path, sample)
        self._period.add(experiment, acquisition, disk["free_gb"])
        for look, period in runs:
            period.add(experiment, look, disk["free_gb"])
        self._judge(disk["free_gb"], memory.percent)

    def _io_rates(self) -> dict[str, dict[str, float]]:
        """Return in MB/s what each disk has read and written since the last look; empty at the first."""
        (before_s, before), now_s, counters = self._io, time.monotonic(), psutil.disk_io_counters(perdisk=True) or {}
        self._io = (now_s, counters)
        rates = {}
        for name, now in counters.items():
            if name in before and not name.startswith(("loop", "ram")):
                read, written = now.read_bytes - before[name].read_bytes, now.write_bytes - before[name].write_bytes
                per_s = 1.0 / max(now_s - before_s, 1e-3) / _MB
                rates[name] = {"read_mb_per_s": round(read * per_s, 3), "write_mb_per_s": round(written * per_s, 3)}
        return rates

    def _judge(self, free_gb: float, memory_percent: float) -> None:
        disk = f"only {free_gb:.1f} GB are free on the session's disk (limit {self.low_disk_gb:g} GB)"
        self._cross("disk", free_gb < self.low_disk_gb, free_gb > self.low_disk_gb * (1 + _HYSTERESIS), disk)
        memory = f"{memory_percent:.0f} % of the memory are in use (limit {self.low_memory_percent:g} %)"
        good = memory_percent < self.low_memory_percent * (1 - _HYSTERESIS)
        self._cross("memory", memory_percent > self.low_memory_percent, good, memory)

    def _cross(self, what: str, low: bool, good: bool, text: str) -> None:
        if low and what not in self._warned:
            self._warned.add(what)
            self.say("WARNING", text, LOGGER, True)
        elif good:
            self._warned.discard(what)


class Period:
    """Means and peaks of the samples of some time."""

    def __init__(self) -> None:
        self.samples = 0
        self._cpu_percent: dict[str, list[float]] = {"experiment": [], "acquisition": []}
        self._peak_mb = {"experiment": 0.0, "acquisition": 0.0}
        self._free_gb = 0.0

    def add(self, experiment: dict[str, Any] | None, acquisition: dict[str, Any] | None, free_gb: float) -> None:
        """Count one sample."""
        self.samples += 1
        self._free_gb = free_gb
        for key, sample in (("experiment", experiment), ("acquisition", acquisition)):
            if sample:
                self._cpu_percent[key].append(sample["cpu_percent"])
                self._peak_mb[key] = max(self._peak_mb[key], sample["memory_mb"])

    def text(self) -> str:
        """Return one line: ``experiment 3 % CPU, 80 MB at most; acquisition …; 120.1 GB free``."""
        parts = [
            f"{key} {fmean(cpu):.0f} % CPU, {self._peak_mb[key]:.0f} MB at most"
            for key, cpu in self._cpu_percent.items()
            if cpu
        ]
        return "resources: " + "; ".join([*parts, f"{self._free_gb:.1f} GB free"])
