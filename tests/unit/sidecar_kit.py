"""Runs sessions of ``fake_experiment.py`` and looks at what they leave."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import warm

from pytest_openscope.log.lines import LogEntry, read_log
from pytest_openscope.records import WITNESS_JOURNAL
from pytest_openscope.records.folder import METADATA
from pytest_openscope.sidecar.reconstruct import SessionView
from pytest_openscope.system.locks import FileLock

SCRIPT = Path(__file__).with_name("fake_experiment.py")
#: What a killed experiment ends with (``["die"]``): on Windows nobody learns that it was a kill.
KILLED = -signal.SIGKILL if sys.platform != "win32" else 9
HOW_KILLED = "ended by SIGKILL" if sys.platform != "win32" else "ended with exit code 9"


def kill(pid: int) -> None:
    """Kill a process, if it is still there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()


def eventually(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


class Run:
    """One fake session."""

    def __init__(
        self, folder: Path, plan: list[list[Any]], sidecar: bool = True, alert_urls: list[str] | None = None, **session: Any
    ) -> None:
        self.folder, self.metadata = folder, folder / METADATA
        folder.mkdir(parents=True, exist_ok=True)
        spec = json.dumps({"plan": plan, "session": session, "sidecar": sidecar, "alert_urls": alert_urls or []})
        self.out = folder.with_suffix(".out")
        with open(self.out, "wb") as out:
            self.process = warm.start([sys.executable, str(SCRIPT), str(folder), spec], stdout=out, stderr=out)

    def wait(self, timeout_s: float = 60.0) -> int:
        return self.process.wait(timeout_s)

    @property
    def told(self) -> list[dict[str, Any]]:
        """What the experiment printed as JSON."""
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines() if line.startswith("{")]

    @property
    def view(self) -> SessionView:
        return SessionView.of(self.folder)

    def finished(self, timeout_s: float = 90.0) -> Run:
        """Wait until the sidecar has done all, and is gone."""
        assert eventually(lambda: self.view.finished, timeout_s), self.sidecar_log()
        self.wait_gone()
        return self

    def sidecars(self) -> list[int]:
        found = []
        for process in psutil.process_iter():
            try:
                line = process.cmdline()
                if str(self.folder) in line and "--folder" in line and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (psutil.Error, OSError):  # Windows refuses some that are about to end by plain errors
                continue
        return found

    def kill_sidecars(self) -> None:
        for pid in self.sidecars():
            kill(pid)
        self.wait_gone()

    def wait_gone(self) -> None:
        """Wait until no sidecar is left, nor a lock of one."""
        assert eventually(lambda: not self.sidecars(), 60.0)
        # The main thread of a process that ends is a zombie a moment before the others have let go of its files.
        lock = FileLock(self.metadata / WITNESS_JOURNAL)
        assert lock.acquire(30.0, poll_s=0.01)
        lock.release()

    def sidecar_log(self) -> str:
        path = self.metadata / "sidecar.log"
        return path.read_text(encoding="utf-8") if path.exists() else "(no sidecar.log)"

    def json(self, name: str) -> Any:
        return json.loads((self.metadata / name).read_text(encoding="utf-8"))

    def entries(self) -> list[LogEntry]:
        damages: list[Any] = []
        entries = list(read_log(self.metadata / "launcher.log", damages.append))
        assert not damages
        return entries

    def messages(self, logger: str) -> list[str]:
        return [entry.message for entry in self.entries() if entry.logger == logger]


Start = Callable[..., Run]


def children_marked(folder: Path) -> Iterator[psutil.Process]:
    """Yield living processes whose environment names the session folder."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("OPENSCOPE_SESSION_FOLDER") == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):  # Wine tells nothing of some processes by plain errors
            continue
