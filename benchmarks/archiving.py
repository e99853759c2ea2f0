"""Throughput of the archiver, copies read back and verified, compared with ``rsync -a``, which verifies nothing it has written.

One copy each, from one folder to another of the same disk: a few large files, and many small ones.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.harness import Cost, NotMeasuredError, Result, cost_of, in_turn
from pytest_openscope.modules.archiving.engine import Archiver
from pytest_openscope.modules.archiving.parameters import read_parameters

#: At least 0.8 times the throughput of rsync: at most 1.25 times its time.
TARGET = 1.25
_BLOCK = 4 * 1024 * 1024


def run(quick: bool) -> list[Result]:
    """Measure both; without rsync there is nothing to compare with."""
    if shutil.which("rsync") is None:
        raise NotMeasuredError("there is no rsync on this computer")
    rounds = 3 if quick else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        large = _large(folder / "large", 1 if quick else 5, 10)
        small = _small(folder / "small", 4_000 if quick else 20_000)
        return [_measure(large, folder, rounds, "large files"), _measure(small, folder, rounds, "small files")]


def _large(folder: Path, gigabytes: int, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        with open(folder / f"{number}.bin", "wb") as stream:
            for _ in range(gigabytes * 10**9 // count // _BLOCK):
                stream.write(os.urandom(_BLOCK))
    return folder


def _small(folder: Path, count: int) -> Path:
    for number in range(count):
        path = folder / f"{number // 200:03}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1_000 + number * 7 % 9_000))
    return folder


def _measure(source: Path, folder: Path, rounds: int, what: str) -> Result:
    broken: list[str] = []
    files = [path.stat().st_size for path in source.rglob("*") if path.is_file()]
    runs = itertools.count()

    def clean() -> tuple[Path, Path]:
        """A new target for each run: ext4 is slow to create files for minutes after thousands have been removed."""
        number = next(runs)
        if len(files) < 100:
            shutil.rmtree(folder / f"target{number - 1}", ignore_errors=True)
        os.sync()
        gc.collect()
        return folder / f"target{number}", folder / f"manifest{number}.json"

    def rsync() -> Cost:
        target, _ = clean()
        return cost_of(lambda: subprocess.run(["rsync", "-a", f"{source}/", f"{target}/"], check=True))

    def archive(target: Path, manifest: Path) -> None:
        places = {"network_dir": str(target), "copy_to_backup": False, "manifest_path": str(manifest)}
        report = Archiver(read_parameters(places, source)).run()
        if not report.complete:
            broken.append(f"not everything was archived: {report}")

    def ours() -> Cost:
        target, manifest = clean()
        return cost_of(lambda: archive(target, manifest))

    costs = in_turn(rsync, ours, rounds)
    name = f"archive {len(files):,} {what} ({sum(files) / 1e9:.2f} GB), verified"
    floor = "rsync -a, which leaves them to the system's cache"
    return Result(name, floor, *costs, TARGET, notes=[_rates(files, *costs)], broken=broken)


def _rates(files: list[int], base: list[Cost], ours: list[Cost]) -> str:
    mb, count = sum(files) / 1e6, len(files)
    best = {"rsync": min(base).wall_s, "ours": min(ours).wall_s}
    return "; ".join(f"{who} {mb / s:.0f} MB/s, {count / s:,.0f} files/s" for who, s in best.items()) + " (best rounds)"
