"""Sessions that log until they are told to stop, and what must be true of them however the share behaves."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from samba_kit import SecondReader, Server
from share_kit import assert_mirrored, json_of, mirror_status, own_folder, processes_of, session_log, start, use_share

#: What a session waits for its mirror at the most.
WAIT_S = 2.0
#: A record that waited for a share that hangs takes as long as that lasts: for longer than this.
STALL_S = 4.5

#: ``latencies.json``: what each logging call took.
UNTIL_STOP = """
import json

def test_acquire():
    log, took = logging.getLogger("lab"), []
    until = time.monotonic() + LASTS_S
    while not os.path.exists("stop") and time.monotonic() < until:
        before = time.perf_counter()
        log.info("record %d of a session on a share", len(took))
        took.append(time.perf_counter() - before)
        time.sleep(PAUSE_S)
    with open("latencies.json", "w") as stream:
        json.dump(took, stream)
    open("last_step", "w").close()
"""


class Session:
    """One session of a rig whose central directory lies on a share.

    Attributes:
        stall_s: no record may take so long.
        pause_s: between two records.
        lasts_s: its longest duration, if nobody tells it to stop.
    """

    stall_s = STALL_S
    pause_s = 0.002
    lasts_s = 240.0

    def __init__(self, bench: Any, server: Server, central: Path, rig_id: str = "bench", **keys: Any) -> None:
        self.bench, self.server, self.central, self.rig_id = bench, server, central, rig_id
        self.log_for(self.lasts_s)
        use_share(bench, central, rig_id, **{"mirror_wait_s": WAIT_S, "mirror_finish_s": 240, **keys})

    def log_for(self, lasts_s: float) -> None:
        """Write its steps: it logs for so long, unless it is told to stop."""
        self.bench.steps(UNTIL_STOP.replace("PAUSE_S", str(self.pause_s)).replace("LASTS_S", str(lasts_s)))

    def switch_off(self) -> None:
        """Take the central directory out of its rig's configuration."""
        lines = (self.bench.path / "rig.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
        self.bench.write("rig.yaml", "".join(line for line in lines if not line.startswith("centralized_log_directory")))

    def latencies(self) -> list[float]:
        """What each logging call took, in seconds; after the end."""
        return [float(took) for took in json.loads((self.bench.path / "latencies.json").read_text(encoding="utf-8"))]

    def start(self) -> Session:
        """Start it and wait until it logs."""
        self.launch()
        self.wait_for(lambda: "record 20 " in self.bench.messages)
        return self

    def launch(self) -> None:
        """Start the experiment's process."""
        self.process = start(self.bench)

    def join(self, timeout_s: float) -> int:
        """Wait for the end of the experiment's process; return its exit code."""
        return self.process.wait(timeout_s)

    def sync(self) -> None:
        """Bring what the session has written to where it is looked at: nothing to do on this computer."""

    def wait_for(self, what: Callable[[], Any], timeout_s: float = 60) -> None:
        """Wait until ``what`` of what the session has written is true."""

        def look() -> Any:
            self.sync()
            return what()

        self.bench.wait_for(look, timeout_s)

    @property
    def folder(self) -> Path:
        return Path(self.bench.folder)

    @property
    def own(self) -> Path:
        """The folder of its own copy, on the server."""
        return own_folder(self.server.central, self.folder, self.rig_id)

    @property
    def day(self) -> Path:
        """The day's log, on the server."""
        return self.own.parent.parent / "launcher.log"

    def copied(self) -> int:
        """Bytes of its own copy on the server."""
        return (self.own / "launcher.log").stat().st_size

    def wait_copied(self) -> None:
        """Wait until the copy has more than half of what is logged by now, and the day's log some of it."""
        wanted = len(session_log(self.folder)) // 2
        self.wait_for(lambda: self.copied() > wanted and self.day.stat().st_size > 0)

    def told(self, text: str) -> int:
        """How many lines of its log about the mirror hold ``text``."""
        return sum(text in entry.message for entry in self.bench.log if entry.message.startswith("Central mirror"))

    def wait_told(self, text: str, timeout_s: float = 60) -> None:
        """Wait until its log tells ``text`` of the mirror."""
        self.wait_for(lambda: self.told(text), timeout_s)

    def ask_to_stop(self) -> None:
        """Let the experiment end."""
        (self.bench.path / "stop").touch()

    def stop(self) -> str:
        """End it; return what it printed. No record has waited for the share."""
        self.ask_to_stop()
        return self.end()

    def end(self) -> str:
        """Wait for its end; return what it printed. No record has waited for the share."""
        assert self.join(120) == 0, self.output
        self.sync()
        end = json_of(self.folder, "end_state.json")
        assert (end["outcome"], end["lost_records"]) == ("passed", 0)
        took = self.latencies()
        parts = statistics.quantiles(took, n=100)
        print(
            f"{len(took)} records: p50 {parts[49] * 1e6:.0f} us, p99 {parts[98] * 1e6:.0f} us, most {max(took) * 1e3:.2f} ms; "
            f"mirror at the end: {mirror_status(self.folder)}"
        )
        assert max(took) < self.stall_s
        return self.output

    @property
    def output(self) -> str:
        return str((self.bench.path / "output.txt").read_text(encoding="utf-8"))

    def wait_verified(self, timeout_s: float = 90) -> None:
        """Wait until its mirror is whole and its processes are gone."""
        self.wait_for(lambda: mirror_status(self.folder) == "verified", timeout_s)
        self.wait_gone()

    def wait_gone(self, stuck_too: bool = True, timeout_s: float = 60) -> None:
        """Wait until none of its processes is left; a killed one that is stuck in a share that hangs goes when that answers."""
        self.bench.wait_for(lambda: not self.left(stuck_too), timeout_s)

    def left(self, stuck_too: bool) -> list[str]:
        """Command lines of its processes, of those in uninterruptible calls only if ``stuck_too``."""
        return [line for path in (self.bench.path, self.central) for line in left(path, stuck_too)]


def left(path: Path, stuck_too: bool) -> list[str]:
    """Command lines of processes that name ``path``, those in uninterruptible calls only if ``stuck_too``."""
    stuck = [] if stuck_too else [process for process in psutil.process_iter(["cmdline", "status"]) if is_stuck(process)]
    names = {" ".join(process.info["cmdline"] or []) for process in stuck}
    return [line for line in processes_of(path) if line not in names]


def is_stuck(process: psutil.Process) -> bool:
    return bool(process.info["status"] == psutil.STATUS_DISK_SLEEP)


def assert_whole(server: Server, *sessions: Session, reader: SecondReader | None = None) -> None:
    """Everything is on the server, each line once; nobody has a file open or locked there; a second client reads the same."""
    first = sessions[0]
    first.bench.wait_for(lambda: not server.open_files(), 60)
    assert_mirrored(server.central, *((session.rig_id, session.folder) for session in sessions))
    if reader is not None:
        for path in filter(Path.is_file, server.central.rglob("*")):
            assert reader.read(path.relative_to(server.folder).as_posix()) == path.read_bytes(), path


def fill(path: Path) -> None:
    """Take all the space that is left, and what becomes free while doing so."""
    with open(path, "ab", buffering=0) as stream:
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    stream.write(bytes(size))


def close_settings(server: Server) -> None:
    """What is connected keeps the rights that it has: the server is restarted, as its administrator would do."""
    server.settings(read_only=True)
    server.kill()
    server.start()


def open_settings(server: Server) -> None:
    server.settings(read_only=False)
    server.kill()
    server.start()


def close_folder(server: Server) -> None:
    server.central.chmod(0)


def open_folder(server: Server) -> None:
    server.central.chmod(0o755)


def take_folder(server: Server) -> None:
    shutil.chown(server.central, "root", "root")


def give_folder(server: Server) -> None:
    shutil.chown(server.central, "nobody")


RIGHTS = {
    "share read-only": (close_settings, open_settings),
    "folder closed": (close_folder, open_folder),
    "folder read-only": (take_folder, give_folder),
}
