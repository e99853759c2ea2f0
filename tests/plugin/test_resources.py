"""Resource samples of real sessions: a valid array at any time, the acquisition's tree in it, summaries in the log."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from share_kit import json_of, processes_of, start, use_share

#: 64 MB in a grandchild that outlives two samples.
HUNGRY = """
GRANDCHILD = "import time; x = bytearray(64 << 20); time.sleep({seconds})"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {{GRANDCHILD!r}}])"

def test_acquire(acquisition):
    acquisition.run(command=[sys.executable, "-c", CHILD], name="camera")

@pytest.mark.post_acquisition
def test_save(experiment):
    log = experiment.session_folder / "launcher_metadata/launcher.log"
    until = time.monotonic() + 60
    while "MB at most" not in log.read_text(encoding="utf-8") and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
"""
UNTIL_STOP = """
def test_acquire():
    until = time.monotonic() + 60
    while not os.path.exists("stop") and time.monotonic() < until:
        time.sleep(0.02)
"""


def samples_of(bench: Any) -> Any:
    return json_of(bench.folder, "resource_usage.json")


def at_one_moment(path: Path) -> bytes:
    """The file between two samples: one that grows while it is read is read again."""
    while True:
        before, data, after = path.stat().st_size, path.read_bytes(), path.stat().st_size
        if before == len(data) == after:
            return data


def test_samples_of_a_session(bench: Any) -> None:
    use_share(bench, bench.path / "share", resource_log_interval=0.2)
    bench.steps(HUNGRY.format(seconds=1.5))
    assert bench.run().ret == 0
    bench.wait_for(lambda: not processes_of(bench.path))
    samples = samples_of(bench)
    assert len(samples) >= 3
    for sample in samples:
        assert sample.keys() == {"timestamp", "launcher", "acquisition", "system"}
        assert datetime.fromisoformat(sample["timestamp"]).tzinfo
        assert {"cpu_percent", "memory_mb"} <= sample["launcher"].keys()
        assert {"cpu_percent", "memory", "disk", "disks"} <= sample["system"].keys()
        assert {"percent", "free_gb", "total_gb"} <= sample["system"]["disk"].keys()
    times = [sample["timestamp"] for sample in samples]
    assert times == sorted(times)
    during = [sample["acquisition"] for sample in samples if sample["acquisition"]]
    assert max(one["memory_mb"] for one in during) > 64
    assert samples[-1]["acquisition"] is None
    assert samples[-1]["launcher"]["memory_mb"] > 10


def test_the_log_says_what_an_acquisition_used(bench: Any) -> None:
    bench.steps(HUNGRY.format(seconds=1))
    assert bench.run().ret == 0
    (line,) = [entry for entry in bench.log if entry.logger == "pytest_openscope.resources" and "camera" in entry.message]
    assert line.level == "INFO"
    assert "MB at most" in line.message
    assert "GB free" in line.message
    # A short one is sampled at its start: the interval is five seconds, the acquisition lasts one.
    assert [sample for sample in samples_of(bench) if sample["acquisition"]]
    bench.wait_for(lambda: not processes_of(bench.path))


def test_the_file_is_valid_after_every_sample(bench: Any) -> None:
    use_share(bench, bench.path / "share", resource_log_interval=0.1)
    bench.steps(UNTIL_STOP)
    process = start(bench)
    path = bench.wait_for(lambda: next((bench.path / "sessions").glob("*/*/resource_usage.json"), None))
    seen = set()
    while len(seen) < 8:
        seen.add(len(json.loads(at_one_moment(path))))
    (bench.path / "stop").touch()
    assert process.wait(20) == 0
    bench.wait_for(lambda: not processes_of(bench.path))


def test_low_space_and_memory_are_warned_about_once(bench: Any) -> None:
    use_share(bench, bench.path / "share", resource_log_interval=0.1, low_disk_gb=1e9, low_memory_percent=1)
    bench.steps("def test_acquire():\n    time.sleep(1.5)\n")
    result = bench.run()
    assert result.ret == 0
    warnings = [
        entry.message for entry in bench.log if entry.logger == "pytest_openscope.resources" and entry.level == "WARNING"
    ]
    assert len(warnings) == 2
    for text in warnings:
        assert result.stdout.str().count(text) == 1
    bench.wait_for(lambda: not processes_of(bench.path))


def test_a_crash_report_has_the_last_samples(bench: Any) -> None:
    use_share(bench, bench.path / "share", resource_log_interval=0.1)
    bench.steps(UNTIL_STOP)
    process = start(bench)
    bench.wait_for(lambda: len(samples_of(bench)) >= 3)
    process.kill()
    process.wait()
    bench.wait_for(lambda: bench.end["outcome"] == "crashed")
    bench.wait_for(lambda: not processes_of(bench.path))
    samples = samples_of(bench)
    assert bench.debug["resource_samples"]
    assert bench.debug["resource_samples"][-1] in samples
