"""What it costs to have a child's output in the session log, compared with the child writing to a file.

Both sides run inside one experiment, in a test: ``acquisition.run`` (the time until all lines stand in the log) and
``subprocess`` with a file as stdout.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.harness import Cost, Result
from benchmarks.sessions import Project

TARGET = 1.5
#: Memory that the experiment process may grow by while the lines go through it; far less than the 80 MB that they are.
GROWTH_MB = 30.0

_ROOT = str(Path(__file__).resolve().parents[1])
_CHILD = """
import sys
for number in range({lines}):
    sys.stdout.write(f"{{number:010d}} {filler}\\n")
"""
_TEST = """
import json, subprocess, sys, time
from pathlib import Path

import psutil

sys.path.insert(0, {root!r})
from benchmarks.harness import cost_of

COMMAND = [sys.executable, "child.py"]


def to_a_file():
    with open("base.txt", "wb") as stream:
        subprocess.run(COMMAND, stdout=stream, check=True)


def test_output(acquisition):
    memory_mb = lambda: psutil.Process().memory_info().rss / 2**20
    def base():
        return cost_of(to_a_file)
    def ours():
        return cost_of(lambda: acquisition.run(command=COMMAND))
    base(), ours()
    before_mb = memory_mb()
    rounds = []
    for number in range({rounds}):
        rounds.append((base(), ours()) if number % 2 else (ours(), base())[::-1])
    Path("result.json").write_text(json.dumps(dict(rounds=rounds, growth_mb=memory_mb() - before_mb)))
"""


def run(quick: bool) -> list[Result]:
    """Measure lines of 80 characters; check that they all arrived."""
    lines, rounds = (200_000, 3) if quick else (1_000_000, 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        project = Project(folder)
        (folder / "child.py").write_text(_CHILD.format(lines=lines, filler="x" * 68), encoding="utf-8")
        (folder / "test_output.py").write_text(
            _TEST.replace("{rounds}", str(rounds)).replace("{root!r}", repr(_ROOT)), encoding="utf-8"
        )
        project.run(*project.experiment(), "test_output.py")
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        (log,) = folder.glob("sessions/*/launcher_metadata/launcher.log")
        arrived = _count(log, b" " + b"x" * 68 + b"\n")
    broken = []
    if arrived != (rounds + 1) * lines:
        broken.append(f"{arrived} lines arrived instead of {(rounds + 1) * lines}")
    if found["growth_mb"] > GROWTH_MB:
        broken.append(f"memory grew by {found['growth_mb']:.1f} MB")
    base, ours = ([Cost(*cost) for cost in side] for side in zip(*found["rounds"], strict=True))
    slowest_s = max(cost.wall_s for cost in ours)
    notes = (f"memory grew by {found['growth_mb']:.1f} MB", f"{lines / slowest_s:,.0f} lines a second at least")
    floor = "the program writing them to a file"
    return [Result(f"{lines:,} lines of a program", floor, base, ours, TARGET, per="program", notes=notes, broken=broken)]


def _count(path: Path, ending: bytes) -> int:
    with open(path, "rb") as stream:
        return sum(line.endswith(ending) for line in stream)
