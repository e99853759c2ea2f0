"""What the mirror's tests share: sessions with logs that grow, and what must be true of the central directory."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest_openscope
from pytest_openscope.mirror.control import MirrorSupervisor, MirrorTuning
from pytest_openscope.mirror.day_file import DayLine, parse_line
from pytest_openscope.mirror.files import MirrorJob

FAULTY = Path(__file__).with_name("mirror_faults.py")
FAST = MirrorTuning(hang_s=1.5, warn_s=0.5, warn_error_s=0.3, flap_s=0.0, retry_first_s=0.2, retry_most_s=1.0)
STARTED = "2026-03-04T23:59:58.500000+01:00"


class Notice(NamedTuple):
    level: str
    text: str
    logger: str
    terminal: bool


class Bench:
    """One rig's session with its mirror."""

    def __init__(self, folder: Path, central: Path, rig: str = "rig-1", session: str = "mouse_1") -> None:
        metadata = folder / "sessions" / session / "launcher_metadata"
        metadata.mkdir(parents=True, exist_ok=True)
        self.log = metadata / "launcher.log"
        self.log.touch()
        self.control = folder / "control.json"
        self.set(all=None)
        self.job = MirrorJob(str(self.log), str(central), rig, session, STARTED, str(folder / "state"))
        self.notices: list[Notice] = []
        self.supervisor: MirrorSupervisor | None = None

    def set(self, **control: Any) -> None:
        """Tell the faulty share what to do from now on."""
        temporary = self.control.with_suffix(".tmp")
        temporary.write_text(json.dumps(control), encoding="utf-8")
        temporary.replace(self.control)

    def write(self, data: bytes) -> None:
        with self.log.open("ab") as stream:
            stream.write(data)

    def chat(self, count: int, seed: int = 0, tag: str = "line") -> None:
        chooser = random.Random(seed)
        self.write(b"".join(f"{tag} {i} {'x' * chooser.randrange(120)}\n".encode() for i in range(count)))

    def start(self, faulty: bool = False, tuning: MirrorTuning = FAST) -> MirrorSupervisor:
        command = (
            [sys.executable, "-I", str(FAULTY), str(Path(pytest_openscope.__file__).parents[1]), str(self.control)]
            if faulty
            else None
        )
        self.supervisor = MirrorSupervisor(self.job, self.say, tuning, command)
        return self.supervisor

    def say(self, *notice: Any) -> None:
        self.notices.append(Notice(*notice))

    def until(self, true: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Run the sidecar's loop until ``true()``."""
        assert self.supervisor is not None
        deadline = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < deadline, (self.supervisor.status(), self.supervisor._latest, self.notices)
            self.tick()

    def tick(self, rest_s: float = 0.02) -> None:
        assert self.supervisor is not None
        before = time.monotonic()
        self.supervisor.tick()
        assert time.monotonic() - before < 5.0, "the sidecar's loop was held up"
        time.sleep(rest_s)

    def run(self, seconds: float) -> None:
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            self.tick()

    def finish(self, timeout_s: float = 20.0) -> None:
        """End the session and wait for ``verified``."""
        assert self.supervisor is not None
        self.supervisor.finish_soon()
        self.until(lambda: self.supervisor.status().status == "verified", timeout_s)
        self.supervisor.stop()

    def mirror(self, faulty: bool = False, timeout_s: float = 20.0) -> None:
        """Bring this session's mirror to its end."""
        self.start(faulty)
        try:
            self.finish(timeout_s)
        finally:
            assert self.supervisor is not None
            self.supervisor.stop()

    @property
    def copy(self) -> Path:
        return self.job.own_folder / "launcher.log"

    def warnings(self) -> list[str]:
        """What an operator was warned of; not of a worker that starts slowly, since that is the busy computer's fault."""
        texts = [notice.text for notice in self.notices if notice.level == "WARNING"]
        return [text for text in texts if "the mirror's process is not running yet" not in text]

    def same(self) -> bool:
        return self.copy.exists() and sha(self.copy) == sha(self.log)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def day_lines(day: Path) -> dict[bytes, list[DayLine]]:
    """Read a day's log that must be whole: every line valid or blanked; the lines by session."""
    data = day.read_bytes()
    assert data.endswith(b"\n") or not data
    sessions: dict[bytes, list[DayLine]] = {}
    for raw in data.split(b"\n")[:-1]:
        if raw.startswith(b"#"):
            continue
        line = parse_line(raw)
        assert line is not None, raw[:200]
        sessions.setdefault(line.key, []).append(line)
    return sessions


def check_day(day: Path, *benches: Bench) -> None:
    """Every line of every session is in the day's log exactly once, and nothing else."""
    sessions = day_lines(day)
    for bench in benches:
        lines = sorted(sessions.pop(bench.job.key, []), key=lambda line: line.offset)
        data = bench.log.read_bytes()
        expected = data.split(b"\n")
        if not expected[-1]:
            expected.pop()
        assert [line.text for line in lines] == expected
        place = 0
        for line in lines:
            assert line.offset == place
            place += len(line.text) + 1
    assert not sessions
