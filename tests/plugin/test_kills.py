"""Kill -9 at random moments of a chatty session; the stress tests do it two hundred times."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import Any

import pytest
import warm
from share_kit import (
    METADATA,
    assert_mirrored,
    end_what_never_began,
    json_of,
    mirror_status,
    processes_of,
    start,
    use_share,
)

KILLS = int(os.environ.get("OPENSCOPE_FEW_KILLS", "6"))
AT_ONCE = 3

#: ``count`` holds how many logging calls have returned; a camera runs beside.
CHATTY = """
CAMERA = "import itertools, time\\nfor n in itertools.count(): print('frame', n, flush=True); time.sleep(0.002)"

def test_acquire(acquisition):
    fd = os.open("count", os.O_WRONLY | os.O_CREAT, 0o644)
    log = logging.getLogger("lab")
    with acquisition.running(command=[sys.executable, "-c", CAMERA], name="camera"):
        number = 0
        while True:
            log.info("record %d", number)
            number += 1
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, b"%9d" % number)
            if number % 20 == 0:
                time.sleep(0.002)
"""


def kill_one(bench: Any, seed: int) -> None:
    """Kill one session and look at everything that it leaves."""
    chance = random.Random(seed)
    share = use_share(bench, bench.path / "share", stop_graceful_s=1, stop_terminate_s=1, stop_kill_s=1)
    share.mkdir()
    bench.steps(CHATTY)
    process = start(bench)
    try:
        bench.wait_for(lambda: (bench.path / "count").stat().st_size)
        time.sleep(chance.uniform(0.0, 0.8))
    finally:
        process.kill()
        process.wait()
    certain = int((bench.path / "count").read_bytes())
    bench.wait_for(lambda: bench.end["outcome"] == "crashed")
    bench.wait_for(lambda: mirror_status(bench.folder) == "verified")
    bench.wait_for(lambda: not processes_of(bench.path))
    log = bench.log
    records = [entry.message for entry in log if entry.logger == "lab"]
    assert len(records) >= certain
    assert records == [f"record {number}" for number in range(len(records))]
    frames = [entry.message for entry in log if entry.logger.endswith("stdout")]
    (raw,) = bench.folder.rglob("camera.stdout.log")
    assert frames == raw.read_text().splitlines()
    assert log[-1].message.startswith("outcome: crashed")
    for path in (bench.folder / METADATA).glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    assert json_of(bench.folder, "debug_state.json")["kind"] == "crash"
    assert ("exit code 1 " if sys.platform == "win32" else "SIGKILL") in json.dumps(bench.debug["failure"])
    assert_mirrored(share, ("bench", bench.folder))


def kill_on_its_way_up(bench: Any, seed: int) -> None:
    """Kill a session that has just made its folder: its sidecar finishes it, or the next one to look."""
    share = use_share(bench, bench.path / "share", stop_graceful_s=1, stop_terminate_s=1, stop_kill_s=1)
    share.mkdir()
    bench.steps(CHATTY)
    process = start(bench)
    try:
        until = time.monotonic() + 100
        while not bench.folders and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(random.Random(seed).uniform(0.0, 0.06))
    finally:
        process.kill()
        process.wait()
    if sys.platform == "win32":
        bench.wait_for(lambda: end_what_never_began(bench.path) or not processes_of(bench.path), 60)
    bench.wait_for(lambda: not processes_of(bench.path))
    noted = list((bench.path / "state" / "unfinished").glob("*.json"))
    if not noted and not list((bench.folder / METADATA).iterdir()):
        return  # Nothing but the empty folder: there is nothing to tell of it.
    recover = [sys.executable, "-m", "pytest_openscope", "recover", "--rig-config", "rig.yaml"]
    told = warm.run(recover, cwd=bench.path)
    assert told.returncode == 0, told.stderr
    assert ("nothing to recover" in told.stdout) is not bool(noted)
    bench.wait_for(lambda: not processes_of(bench.path))
    assert bench.end["outcome"] == "crashed"
    assert bench.log[-1].message.startswith("outcome: crashed")
    assert json_of(bench.folder, "debug_state.json")["kind"] == "crash"
    assert mirror_status(bench.folder) == "verified"
    assert_mirrored(share, ("bench", bench.folder))
    assert not list((bench.path / "state" / "unfinished").glob("*.json"))


@pytest.mark.parametrize("first", range(0, KILLS, AT_ONCE))
def test_kill_at_a_random_moment(bench: Any, first: int) -> None:
    bench.at_once(kill_one, range(first, min(first + AT_ONCE, KILLS)))


@pytest.mark.parametrize("seed", range(KILLS))
def test_kill_on_its_way_up(bench: Any, seed: int) -> None:
    kill_on_its_way_up(bench, seed)
