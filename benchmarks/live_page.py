"""What a log record costs the experiment while ten browsers look at the live page, one of which hangs, and without any."""

from __future__ import annotations

import logging
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.harness import Cost, Result, cost_of, in_turn, median_cost
from pytest_openscope.log.session_log import SessionLog
from pytest_openscope.records import Journal
from pytest_openscope.system import create_time
from pytest_openscope.views import LiveServer

TARGET = 1.05
CLIENTS = 10
#: Records are timed so many at once: the median of these parts is not moved by what else the machine does for a moment.
_PART = 100
#: Reads as browsers do, in a process of its own as they are; the last one takes nothing.
_BROWSERS = """
import socket, sys, threading
port, path, clients = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ready = threading.Barrier(clients + 1)
def look(hangs):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(f"GET {path}events HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n".encode())
    data = b""
    while b"event: reset" not in data:
        data += connection.recv(65536)
    ready.wait()
    if hangs:
        threading.Event().wait()
    while connection.recv(65536):
        pass
for number in range(clients):
    threading.Thread(target=look, args=(number == clients - 1,), daemon=True).start()
ready.wait()
print("ready", flush=True)
sys.stdin.read()
"""


def _log(records: int, means: list[float]) -> Cost:
    """Return what a record took, the median of the parts; their mean goes to ``means``."""
    logger = logging.getLogger("my.camera")

    def log() -> None:
        for number in range(_PART):
            logger.info("value %d of %d", number, _PART)

    parts = [cost_of(log).per(_PART) for _ in range(records // _PART)]
    means.append(statistics.fmean(part.wall_s for part in parts))
    return median_cost(parts)


class _Session:
    """A session folder whose log is written, with or without its live page."""

    def __init__(self, folder: Path, records: int) -> None:
        self.folder = folder
        self.records = records
        self.means: dict[str, list[float]] = {"alone": [], "watched": []}
        (folder / "launcher_metadata").mkdir(parents=True)
        journal = Journal(folder / "launcher_metadata" / "journal.jsonl")
        journal.write("session", session_uuid=folder.name, pid=os.getpid(), create_time=create_time(os.getpid()))
        journal.close()

    def alone(self, what: str = "alone") -> Cost:
        path = self.folder / "launcher_metadata" / "launcher.log"
        path.unlink(missing_ok=True)
        log = SessionLog()
        log.install()
        try:
            log.open(path)
            log.set_place("acquisition", "test_record")
            return _log(self.records, self.means[what])
        finally:
            log.uninstall()
            log.close()

    def watched(self) -> Cost:
        server = LiveServer("127.0.0.1", 0)
        pid = server.start(self.folder, lambda code: None)
        _, _, address = server.url.partition("//")
        host, _, token = address.partition("/")
        command = [sys.executable, "-c", _BROWSERS, host.rpartition(":")[2], f"/{token}", str(CLIENTS)]
        browsers = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert browsers.stdout is not None
            assert browsers.stdout.readline() == b"ready\n"
            return self.alone("watched")
        finally:
            browsers.kill()
            browsers.communicate()
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()


def run(quick: bool) -> list[Result]:
    """Log for seconds, as fast as possible, so that the page has far more to show than at any rig."""
    records, rounds = (50_000, 5) if quick else (200_000, 11)
    with tempfile.TemporaryDirectory() as folder:
        session = _Session(Path(folder, "m_2026"), records)
        costs = in_turn(session.alone, session.watched, rounds)
        alone_s, watched_s = (statistics.median(means) for means in session.means.values())
    note = f"means, which hold what takes the core away meanwhile: {alone_s * 1e6:.2f} -> {watched_s * 1e6:.2f} µs"
    name = f"log record, {CLIENTS} browsers at the live page"
    return [Result(name, "the same record without the page", *costs, TARGET, per="record", notes=[note])]
