"""Eight simulated hours: 1,000 steps, 10 million log records, 5,760 resource samples. What the session holds stays flat.

A session at a rig takes a sample of the computer every 5 s for 8 hours, logs, runs programs, measures, keeps results. This
one does all of it as fast as it can, with a central directory and a live page that somebody looks at. Memory, handles and
threads of every process of the session are looked at from outside: what they are after the first steps they must be at the end.

``OPENSCOPE_SOAK`` (default 1, ten minutes) is the part of the eight hours that is run: 0.05 takes less than a minute.
``OPENSCOPE_SOAK_JSON`` names a file for the figures.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

_TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS / "plugin"), str(_TESTS / "stress")]

from share_kit import mirror_status, own_folder, use_share  # noqa: E402
from test_share_stress import bench, sidecars_of  # noqa: E402, F401

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="the kit of the share's tests")]

PART = float(os.environ.get("OPENSCOPE_SOAK", "1"))
FIGURES = os.environ.get("OPENSCOPE_SOAK_JSON", "")
STEPS = max(50, round(1000 * PART))
RECORDS = max(100_000, round(10_000_000 * PART))
#: One sample in 5 s, for 8 hours.
SAMPLES = max(100, round(8 * 3600 / 5 * PART))
#: A tenth of the records is logged by the last step alone: an acquisition of hours is one step.
LONG = RECORDS // 10
#: Of each step's records so many are lines of a program that it runs.
LINES = 100
EACH = (RECORDS - LONG) // (STEPS - 1) - LINES
RECORDS = (STEPS - 1) * (EACH + LINES) + LONG // 100 * 100
#: What a step may leave until the end, since the end tells it: pytest's reports, the step, its measurement, its program's
#: command, times and last lines. Records, lines and samples add nothing.
KB_PER_STEP = 15.0
#: The same in sidecar, live page and workers.
OTHERS_KB_PER_STEP = 8.0
#: What an allocator may do with the same contents.
SLACK_MB = 4.0
TIMEOUT_S = 3600.0
#: Steps after the warm-up, and the last ones before the long one.
EARLY, LATE = (0.1 * STEPS, 0.3 * STEPS), (0.8 * STEPS, STEPS - 2)

EXPERIMENT = f"""
import json
from pathlib import Path

LOG = logging.getLogger("lab.camera")
CHILD = [sys.executable, "-c", "for number in range({LINES}): print('line', number, 'of the program', flush=not number % 50)"]


def log(count):
    for number in range(count):
        LOG.info("frame %d of %d written, %.3f ms late", number, count, number * 0.001)


def done(number):
    Path("step.txt").write_text(str(number))


@pytest.mark.acquisition
@pytest.mark.parametrize("number", range({STEPS - 1}))
def test_block(number, experiment, acquisition):
    log({EACH})
    acquisition.run(command=CHILD, name=f"camera{{number}}", timeout_s=300)
    print("block", number, "has been recorded")
    experiment.measure("laser", 50 + number % 7 / 10, unit="mW", minimum=10, maximum=90)
    experiment.progress(number, {STEPS}, "blocks")
    if not number % 100:
        path = experiment.session_folder / f"block{{number}}.txt"
        path.write_text("frames")
        experiment.attach(path)
        experiment.note(f"block {{number}}")
        LOG.warning("block %d took long", number)
    done(number + 1)


@pytest.mark.acquisition
def test_one_long_step(experiment):
    for part in range(100):
        log({LONG // 100})
        experiment.progress(part, 100)
    done({STEPS})


@pytest.mark.post_acquisition
def test_samples(experiment):
    usage = experiment.session_folder / "launcher_metadata" / "resource_usage.json"
    deadline = time.monotonic() + 1800
    while usage.read_bytes().count(b'"timestamp"') < {SAMPLES} and time.monotonic() < deadline:
        time.sleep(1.0)
"""


@dataclass
class Held:
    """What the processes of one kind held, look by look; ``steps`` is how many steps had been done."""

    steps: list[int] = field(default_factory=list)
    uss_mb: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def between(self, first: float, last: float) -> Held:
        """Return the looks while so many steps had been done."""
        kept = [number for number, step in enumerate(self.steps) if first <= step <= last]
        return Held(*([values[number] for number in kept] for values in vars(self).values()))


class Watch:
    """Looks at the processes of a session until it ends: the experiment, its sidecar, the workers of that, the live page."""

    def __init__(self, experiment: subprocess.Popen[bytes], place: Path) -> None:
        self.held: dict[str, Held] = {}
        self._experiment = experiment
        self._place = place

    def run(self, timeout_s: float) -> None:
        """Return when the session has ended.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        deadline, root = time.monotonic() + timeout_s, psutil.Process(self._experiment.pid)
        while self._experiment.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("the session", timeout_s)
            with suppress(psutil.Error):
                step = self._step()
                for process in [root, *root.children(recursive=True)]:
                    self._look(process, step)
            time.sleep(0.2)

    def _step(self) -> int:
        with suppress(OSError, ValueError):
            return int(self._place.read_text(encoding="utf-8"))
        return 0

    def _look(self, process: psutil.Process, step: int) -> None:
        with suppress(psutil.Error), process.oneshot():
            modules = [word for word in process.cmdline() if word.startswith("pytest_openscope.") and " " not in word]
            kind = "experiment" if process.pid == self._experiment.pid else modules[0] if modules else ""
            if not kind or process.status() == psutil.STATUS_ZOMBIE:
                return
            memory, handles, threads = process.memory_full_info(), process.num_fds(), process.num_threads()
            one = self.held.setdefault(kind.removesuffix(".__main__").removeprefix("pytest_openscope."), Held())
            one.steps.append(step)
            one.uss_mb.append(memory.uss / 1e6)
            one.rss_mb.append(memory.rss / 1e6)
            one.handles.append(handles)
            one.threads.append(threads)


def look_at_the_page(url: str) -> None:
    """Take all that the live page sends, as a browser does."""
    host, _, token = url.partition("//")[2].partition("/")
    name, _, port = host.rpartition(":")
    with suppress(OSError), socket.create_connection((name, int(port))) as connection:
        connection.sendall(f"GET /{token}events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        while connection.recv(1 << 16):
            pass


@pytest.mark.timeout(TIMEOUT_S + 300)
def test_eight_hours_leave_memory_handles_and_threads_flat(bench: Any) -> None:  # noqa: F811
    (bench.path / "share").mkdir()
    bench.steps(EXPERIMENT)
    use_share(bench, bench.path / "share", resource_log_interval=0.1, mirror_wait_s=60, mirror_finish_s=600)
    output = bench.path / "output.txt"
    with open(output, "wb") as stream:
        session = subprocess.Popen(
            bench.command("-q", "--live"), cwd=bench.path, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        url = bench.wait_for(lambda: re.search(rb"live page: (\S+)", output.read_bytes()), 120)[1].decode()
        threading.Thread(target=look_at_the_page, args=(url,), daemon=True).start()
        watch = Watch(session, bench.path / "step.txt")
        watch.run(TIMEOUT_S)
    finally:
        session.kill()
        session.wait()
    assert session.returncode == 0, output.read_text(encoding="utf-8")[-4000:]
    looks = {kind: vars(one) for kind, one in watch.held.items()}
    # Others come late or stay for a moment: what makes the report, for one.
    figures = {kind: growth(one) for kind, one in watch.held.items() if one.between(*EARLY).steps and one.between(*LATE).steps}
    print(json.dumps(figures, indent=1))
    if FIGURES:
        Path(FIGURES).write_text(json.dumps({"growth": figures, "looks": looks}), encoding="utf-8")
    assert {"experiment", "sidecar.loop", "mirror.worker", "views.live.server"} <= set(figures)
    assert everything_arrived(bench.folder / "launcher_metadata") == (RECORDS, True)
    for kind, grown in figures.items():
        steps_kb = KB_PER_STEP if kind == "experiment" else OTHERS_KB_PER_STEP
        may_mb = SLACK_MB + steps_kb / 1000 * (statistics.fmean(LATE) - statistics.fmean(EARLY))
        assert grown["uss_mb"] <= may_mb, (kind, figures)
        assert grown["rss_mb"] <= may_mb, (kind, figures)
        assert grown["handles"] <= 0, (kind, figures)
        assert grown["threads"] <= 0, (kind, figures)
        assert grown["uss_mb in the long step"] <= SLACK_MB, (kind, figures)
    bench.wait_for(lambda: mirror_status(bench.folder) == "verified", 600)
    bench.wait_for(lambda: not sidecars_of(bench.folder), 60)
    log = bench.folder / "launcher_metadata" / "launcher.log"
    assert filecmp.cmp(own_folder(bench.path / "share", bench.folder) / "launcher.log", log, shallow=False)


def growth(held: Held) -> dict[str, float]:
    """Return what the last steps hold more than those after the warm-up, what it was then, and what one long step added.

    Memory: medians. Handles and threads: the least, since programs come and go; whatever leaks raises that too.
    """
    early, late = held.between(*EARLY), held.between(*LATE)
    inside = held.between(STEPS - 1, STEPS - 1).uss_mb
    third = max(1, len(inside) // 3)
    return {
        "uss_mb": statistics.median(late.uss_mb) - statistics.median(early.uss_mb),
        "rss_mb": statistics.median(late.rss_mb) - statistics.median(early.rss_mb),
        "handles": min(late.handles) - min(early.handles),
        "threads": min(late.threads) - min(early.threads),
        "uss_mb after warm-up": statistics.median(early.uss_mb),
        "rss_mb after warm-up": statistics.median(early.rss_mb),
        "handles after warm-up": min(early.handles),
        "threads after warm-up": min(early.threads),
        "uss_mb in the long step": statistics.median(inside[-third:]) - statistics.median(inside[:third]) if inside else 0.0,
    }


def everything_arrived(metadata: Path) -> tuple[int, bool]:
    """Return how many records of the steps are in the session log, and whether there are as many samples as wanted."""
    with open(metadata / "launcher.log", "rb") as stream:
        ours = sum(b" lab.camera frame " in line or b" of the program\n" in line for line in stream)
    return ours, len(json.loads((metadata / "resource_usage.json").read_text(encoding="utf-8"))) >= SAMPLES
