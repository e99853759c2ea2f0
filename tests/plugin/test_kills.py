"""Kill -9 at random moments of a chatty session; the stress tests do it two hundred times."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from typing import Any

import pytest
from share_kit import METADATA, assert_mirrored, json_of, mirror_status, processes_of, start, use_share

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
KILLS = int(os.environ.get("OPENSCOPE_FEW_KILLS", "20"))

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
            os.pwrite(fd, b"%9d" % number, 0)
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
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    certain = int((bench.path / "count").read_bytes())
    bench.wait_for(lambda: bench.end["outcome"] == "crashed")
    bench.wait_for(lambda: mirror_status(bench.folder) == "verified")
    bench.wait_for(lambda: not processes_of(bench.path))
    log = bench.log
    records = [entry.message for entry in log if entry.logger == "lab"]
    assert len(records) >= certain
    assert records == [f"record {number}" for number in range(len(records))]
    frames = [entry.message for entry in log if entry.message.startswith("frame ")]
    (raw,) = bench.folder.rglob("camera.stdout.log")
    assert frames == raw.read_text().splitlines()
    assert log[-1].message.startswith("outcome: crashed")
    for path in (bench.folder / METADATA).glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    assert json_of(bench.folder, "debug_state.json")["kind"] == "crash"
    assert "SIGKILL" in json.dumps(bench.debug["failure"])
    assert_mirrored(share, ("bench", bench.folder))


@pytest.mark.parametrize("seed", range(KILLS))
def test_kill_at_a_random_moment(bench: Any, seed: int) -> None:
    kill_one(bench, seed)
