"""How long ``history`` takes over 100,000 sessions once they are known, as a process of its own, and over the first pass.

Compared with a program that only imports DuckDB, opens the same database and counts its sessions, which nothing can beat.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

from benchmarks.harness import Cost, Result, cost_of, in_turn, time_text

#: What the user feels is the second; the ratio only tells a slow machine from slow code. ``history`` runs with low priority, so
#: other work on the machine makes it slower than what it is compared with.
TARGET = 10.0
TARGET_S = 1.0
_RIGS, _SUBJECTS, _STEPS = 20, 200, 10
_COUNT = "import duckdb, sys; print(duckdb.connect(sys.argv[1]).execute('SELECT count(*) FROM sessions').fetchall())"


def run(quick: bool) -> list[Result]:
    """Measure; the made-up session folders need about 1.3 GB (``quick``: a tenth)."""
    sessions, rounds = (10_000, 3) if quick else (100_000, 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, database = folder / "sessions", folder / "history.duckdb"
        for number in range(sessions):
            _session(root, number, sessions)
        first_s = _history(root, database).wall_s
        costs = in_turn(lambda: _count(database), lambda: _history(root, database), rounds)
        _session(root, sessions, sessions)
        one_more = _history(root, database)
    notes = [
        f"first pass {first_s:.1f} s ({sessions / first_s:,.0f} sessions/s); with one new session {time_text(one_more.wall_s)}",
        f"best round {time_text(min(costs[1]).wall_s)}",
    ]
    what, floor = f"history of {sessions:,} known sessions, all tables", "DuckDB opened and asked for one number"
    return [Result(what, floor, *costs, TARGET, limit_s=TARGET_S, per="call", notes=notes)]


def _history(root: Path, database: Path) -> Cost:
    return _timed(["-m", "pytest_openscope", "history", "--root", str(root), "--database", str(database), "--json"])


def _count(database: Path) -> Cost:
    return _timed(["-c", _COUNT, str(database)])


def _timed(arguments: list[str]) -> Cost:
    command = [sys.executable, *arguments]
    return cost_of(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


def _session(root: Path, number: int, sessions: int) -> None:
    """Write the folder of one session: three years of a lab, a failure in twenty sessions."""
    source = random.Random(number)
    start = datetime.now(timezone.utc) - timedelta(days=1095 * (sessions - number) / sessions)
    rig, subject, failed = f"rig-{number % _RIGS}", f"mouse{number % _SUBJECTS}", source.random() < 0.05
    folder = root / f"{subject}_{start:%Y-%m-%d_%H-%M-%S}_{number}"
    metadata = folder / "launcher_metadata"
    metadata.mkdir(parents=True)
    steps = [
        {"name": f"test_{step}", "phase": "acquisition", "kind": "test", "outcome": "passed", "attempts": []}
        | {"duration_s": 10 + step + source.random()}
        for step in range(_STEPS)
    ]
    failure = {"kind": "exception", "outcome": "failed", "phase": "acquisition", "step": f"test_{number % _STEPS}"}
    end = {
        "session_uuid": folder.name,
        "subject_id": subject,
        "rig_id": rig,
        "start_time": start.isoformat(),
        "stop_time": (start + timedelta(minutes=30)).isoformat(),
        "outcome": "failed" if failed else "passed",
        "exit_code": int(failed),
        "steps": steps,
        "measurements": [
            {"name": "weight", "value": source.gauss(25, 1), "unit": "g", "minimum": 10, "maximum": 60, "passed": True},
            {"name": "laser", "value": source.gauss(50, 0.3), "unit": "mW", "minimum": 45, "maximum": 60, "passed": True},
        ],
        "devices": {name: {"driver": f"lab:{name}", "simulated": None} for name in ("laser", "camera", "stage")},
        "failures": [{**failure, "exception_type": "OSError", "message": f"the camera is gone after {number} frames"}]
        if failed
        else [],
    }
    (metadata / "end_state.json").write_text(json.dumps(end), encoding="utf-8")
