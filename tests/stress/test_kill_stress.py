"""Kill -9 at random moments of a chatty session: nothing lost, nothing doubled, nothing left running."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
from sidecar_kit import Run, children_marked, eventually

from pytest_openscope.sidecar.recovery import recover

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sys.platform == "win32", reason="the fake experiment is killed by POSIX signals"),
]

KILLS = int(os.environ.get("KILL_STRESS", "200"))
CAMERA = "import time,itertools\nfor n in itertools.count(): print('frame', n, flush=True); time.sleep(0.002)"


def check(run: Run, share: Path) -> None:
    certain = max([0, *(int(line) for line in run.out.read_text().splitlines() if line.isdigit())])
    records = [entry.message for entry in run.entries() if entry.logger == "lab"]
    assert len(records) >= certain
    assert records == [f"record {number}" for number in range(len(records))]
    frames = [entry.message for entry in run.entries() if entry.logger.startswith("acquisition.") and "frame" in entry.message]
    raw = (run.folder / "acquisition" / "camera.stdout.log").read_text().splitlines()
    assert frames == raw
    assert len(run.messages("pytest_openscope.session")) == 2
    assert run.json("end_state.json")["outcome"] == "crashed"
    assert run.json("debug_state.json")["failure"]["kind"] == "crash"
    assert isinstance(run.json("resource_usage.json"), list)
    assert run.json("end_state.json")["mirror"]["status"] == "verified"
    copy = next(share.glob(f"*/*/*/rig1/{run.folder.name}/launcher.log"))
    assert copy.read_bytes() == (run.metadata / "launcher.log").read_bytes()
    assert not list(children_marked(run.folder))
    assert not run.sidecars()


@pytest.mark.parametrize("seed", range(KILLS))
def test_kill_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    share = tmp_path / "share"
    share.mkdir()
    stop = {"graceful_s": 1.0, "terminate_s": 1.0, "kill_s": 1.0}
    plan = [["ready"], ["step", "acquisition", "video"], ["acquire", CAMERA], ["batch", [], 0], ["chatter"]]
    run = Run(tmp_path / f"s{seed}", plan, mirror_directory=str(share), stop=stop)
    assert eventually(lambda: run.out.exists() and run.out.stat().st_size > 0)
    time.sleep(chance.uniform(0.0, 0.6))
    both = chance.random() < 0.3
    if both:
        for pid in run.sidecars():
            os.kill(pid, signal.SIGKILL)
    os.kill(run.process.pid, signal.SIGKILL)
    run.wait()
    if both:
        # The experiment may have started its sidecar anew before it died itself.
        time.sleep(chance.uniform(0.0, 0.1))
        run.kill_sidecars()
        deadline = time.monotonic() + 10
        while not run.view.finished and time.monotonic() < deadline:
            recover(tmp_path / "state", tmp_path)
            time.sleep(0.1)
    elif chance.random() < 0.4:
        time.sleep(chance.uniform(0.0, 0.3))
        run.kill_sidecars()
        state = json.dumps(run.view.died)
        recover(tmp_path / "state", tmp_path)
        assert eventually(lambda: run.view.finished, 20), state
    run.finished()
    check(run, share)
