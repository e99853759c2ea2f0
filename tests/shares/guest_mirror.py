"""Runs in the guest: writes session logs and mirrors them, as sidecars do, without the weight of sessions.

``python guest_mirror.py <folder> <central directory> <patience s> <rig>...``. A rig's session is
``<folder>/session_of_<rig>``. A file ``stop`` in the folder ends the logs; the program ends when all are verified, or the
patience after that. Called again, it goes on with what is missing, as ``recover`` does. It keeps ``status`` (of the mirrors)
and ``told`` (what an operator would be told) in ``<folder>/says``.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pytest_openscope.mirror import MirrorJob, MirrorSupervisor
from pytest_openscope.mirror.control import MirrorTuning

TURN_S = 0.5
LINES_PER_TURN = 10


class Session:
    """One rig's log and its mirror."""

    def __init__(self, folder: Path, central: str, rig_id: str, started: str) -> None:
        self.metadata = folder / f"session_of_{rig_id}" / "launcher_metadata"
        self.metadata.mkdir(parents=True, exist_ok=True)
        self.log = self.metadata / "launcher.log"
        job = MirrorJob(str(self.log), central, rig_id, self.metadata.parent.name, started, str(folder / f"state_{rig_id}"))
        # An emulated processor needs its time to start a worker, more so beside other tests.
        self.told: list[str] = []
        self.mirror = MirrorSupervisor(job, self._say, MirrorTuning(hang_s=30.0, start_s=300.0))
        self._lines = 0

    def _say(self, level: str, text: str, *where: object) -> None:
        self.told.append(text)

    def write(self) -> None:
        """Log some lines."""
        now = datetime.now(timezone.utc).isoformat()
        numbers = range(self._lines, self._lines + LINES_PER_TURN)
        with open(self.log, "ab", buffering=0) as stream:
            stream.write(b"".join(b"%b INFO - - lab record %d\n" % (now.encode(), number) for number in numbers))
        self._lines += LINES_PER_TURN

    def end(self) -> None:
        """The log is complete."""
        (self.metadata / "end_state.json").write_text("{}\n", encoding="utf-8")
        self.mirror.finish_soon()


def main(folder: Path, central: str, patience_s: float, *rigs: str) -> None:
    """Log, mirror, end."""
    begun = folder / "started"
    if not begun.exists():
        begun.write_text(datetime.now(timezone.utc).isoformat(), encoding="ascii")
    sessions = [Session(folder, central, rig_id, begun.read_text(encoding="ascii")) for rig_id in rigs]
    deadline = float("inf")
    with open(folder / "says" / "told", "ab", buffering=0) as told:
        while time.monotonic() < deadline:
            if deadline == float("inf"):
                if (folder / "stop").exists():
                    for session in sessions:
                        session.end()
                    deadline = time.monotonic() + patience_s
                else:
                    for session in sessions:
                        session.write()
            for session in sessions:
                session.mirror.tick()
                while session.told:
                    told.write(session.told.pop(0).encode() + b"\n")
            status = " ".join(sorted({session.mirror.status().status for session in sessions}))
            (folder / "says" / "status").write_text(status, encoding="ascii")
            if status == "verified":
                break
            time.sleep(TURN_S)
    for session in sessions:
        session.mirror.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
