"""The folder of a made-up session of eight hours: 200,000 log records, 5,760 resource samples, forty steps."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pytest_openscope.log.lines import encode_record

HOURS = 8
_BEGUN = datetime(2026, 3, 4, 9, tzinfo=timezone.utc)


def write_long_session(folder: Path, records: int, steps: int = 40) -> Path:
    """Write the session and return its folder."""
    metadata = folder / "launcher_metadata"
    metadata.mkdir(parents=True)
    source, length_s = random.Random(7), HOURS * 3600 / steps
    names = [f"test_block{number}" for number in range(steps)]
    end = {
        "session_uuid": folder.name,
        "subject_id": "mouse7",
        "user_id": "ada",
        "rig_id": "bench",
        "start_time": _BEGUN.isoformat(),
        "stop_time": (_BEGUN + timedelta(hours=HOURS)).isoformat(),
        "outcome": "passed",
        "exit_code": 0,
        "failures": [],
        "notes": ["slept from 11 to 12"],
        "steps": [
            {"name": name, "phase": "acquisition", "kind": "test", "outcome": "passed", "attempts": [], "duration_s": length_s}
            | {"started": (_BEGUN + timedelta(seconds=number * length_s)).isoformat()}
            for number, name in enumerate(names)
        ],
        "measurements": [
            {"name": f"power{number}", "value": source.gauss(50, 1), "unit": "mW", "minimum": 40, "maximum": 60, "passed": True}
            for number in range(100)
        ],
    }
    samples = [
        {
            "timestamp": (_BEGUN + timedelta(seconds=5 * number)).isoformat(),
            "launcher": {"cpu_percent": round(source.uniform(2, 9), 1), "memory_mb": 62.0},
            "acquisition": {"cpu_percent": round(source.uniform(60, 99), 1), "memory_mb": 300 + number / 100},
            "system": {"disk": {"free_gb": 800 - number / 10}},
        }
        for number in range(HOURS * 720)
    ]
    (metadata / "end_state.json").write_text(json.dumps(end), encoding="utf-8")
    (metadata / "resource_usage.json").write_text(json.dumps(samples), encoding="utf-8")
    with open(metadata / "launcher.log", "wb") as stream:
        for number in range(records):
            at_s = number / records * HOURS * 3600
            level = "WARNING" if number % 997 == 0 else "INFO"
            text = f"frame {number} of the body camera written, {source.uniform(0, 4):.3f} ms late"
            stream.write(
                encode_record(
                    level,
                    f"lab.camera{number % 3}",
                    text,
                    "acquisition",
                    names[int(at_s / length_s)],
                    _BEGUN.timestamp() + at_s,
                )
            )
    return folder
