"""Runs in the guest: writes a session log and mirrors it, as a session's sidecar does, without the weight of a session.

``python guest_mirror.py <folder> <central directory> <rig>``. The session is ``<folder>/<its name>``. A file ``stop`` in the
folder ends the log; the program ends when the mirror is verified, or 240 s later. It keeps ``status`` (the mirror's) and
``told`` (what an operator would be told) in the folder.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pytest_openscope.mirror import MirrorJob, MirrorSupervisor
from pytest_openscope.mirror.control import MirrorTuning

LINES_PER_TURN = 10


def main(folder: Path, central: str, rig_id: str) -> None:
    """Log, mirror, end."""
    session = folder / f"session_of_{rig_id}"
    metadata = session / "launcher_metadata"
    metadata.mkdir(parents=True)
    started = datetime.now(timezone.utc).isoformat()
    job = MirrorJob(str(metadata / "launcher.log"), central, rig_id, session.name, started, str(folder / "state"))
    # An emulated processor needs its time to start a worker.
    supervisor = MirrorSupervisor(job, MirrorTuning(hang_s=30.0))
    supervisor.start()
    number, deadline = 0, float("inf")
    with open(metadata / "launcher.log", "ab", buffering=0) as log, open(folder / "told", "ab", buffering=0) as told:
        while time.monotonic() < deadline:
            if deadline == float("inf"):
                now = datetime.now(timezone.utc).isoformat()
                log.write(b"".join(b"%b INFO - - lab record %d\n" % (now.encode(), number + i) for i in range(LINES_PER_TURN)))
                number += LINES_PER_TURN
                if (folder / "stop").exists():
                    (metadata / "end_state.json").write_text("{}\n", encoding="utf-8")
                    supervisor.finish_soon()
                    deadline = time.monotonic() + 240
            for notice in supervisor.tick():
                told.write(notice.text.encode() + b"\n")
            status = supervisor.status().status
            (folder / "status").write_text(status, encoding="ascii")
            if status == "verified":
                break
            time.sleep(0.1)
    supervisor.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
