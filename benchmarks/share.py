"""What the mirror on a real share costs the experiment: the same session without and with it, in turn.

The share is a Samba server's, mounted by ``smbnetfs``: once well, once stopped from the session's start to its end. The table
goes into ``docs/explanation/mirror.md``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import Cost, NotMeasuredError, Result, in_turn

#: The loop that logs may take so much longer.
TARGET = 1.1
_SHARES = Path(__file__).resolve().parents[1] / "tests" / "shares"
_STEPS = """\
import json, logging, time

def test_acquire():
    log, took = logging.getLogger("lab"), []
    began = time.perf_counter()
    for number in range({records}):
        before = time.perf_counter()
        log.info("record %d of a session on a share", number)
        took.append(time.perf_counter() - before)
        time.sleep(0.001)
    with open("timed.json", "w") as stream:
        json.dump([time.perf_counter() - began, took], stream)
"""


class _Side:
    """Sessions of one rig, and what was measured in them."""

    def __init__(self, folder: Path, records: int, central: Path | None, server: Any = None, hung: bool = False) -> None:
        folder.mkdir()
        self.folder, self.records, self.server, self.hung = folder, records, server, hung
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (folder / "test_acquire.py").write_text(_STEPS.format(records=records), encoding="utf-8")
        keys = {"rig_id": folder.name, "state_directory": str(folder / "state"), "output_root_folder": str(folder / "sessions")}
        if central is not None:
            keys |= {"centralized_log_directory": str(central)}
        (folder / "rig.yaml").write_text(
            "".join(f"{key}: {json.dumps(text)}\n" for key, text in keys.items()), encoding="utf-8"
        )
        self.mirrored = central is not None
        self.wall_s: list[float] = []
        self.took: list[list[float]] = []

    def per_record(self) -> Cost:
        """Run one session; return what one record of its loop took."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("OPENSCOPE_", "PYTEST_"))}
        environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        experiment = ("--rig-config", "rig.yaml", "--no-input", "--subject-id", "m", "--user-id", "u")
        plugins = ("-p", "no:cacheprovider", "-p", "pytest_timeout", "-p", "pytest_openscope.plugin")
        if self.hung:
            self.server.hang()
        began = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", *plugins, *experiment],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            if self.hung:
                self.server.go_on()
        self.wall_s.append(time.perf_counter() - began)
        if done.returncode:
            raise RuntimeError(f"the session failed:\n{done.stdout}{done.stderr}")
        self._wait_for_mirror()
        loop_s, took = json.loads((self.folder / "timed.json").read_text(encoding="utf-8"))
        self.took.append(took)
        return Cost(float(loop_s) / self.records)

    def _wait_for_mirror(self) -> None:
        """Wait until the last session is mirrored, so that the next one of the other side is not disturbed."""
        last = max(self.folder.glob("sessions/*/launcher_metadata"), key=lambda path: path.stat().st_mtime)
        deadline = time.monotonic() + 120
        while self.mirrored and json.loads((last / "end_state.json").read_bytes())["mirror"]["status"] != "verified":
            if time.monotonic() > deadline:
                raise RuntimeError(f"{last} was not mirrored")
            time.sleep(0.1)

    def percentiles(self) -> list[float]:
        """Return p50, p99 and the maximum per record in microseconds, of the sessions after the first."""
        took = [one for session in self.took[1:] for one in session]
        parts = statistics.quantiles(took, n=100)
        return [parts[49] * 1e6, parts[98] * 1e6, max(took) * 1e6]


def run(quick: bool) -> Iterator[Result]:
    """Measure a share that is well, and one that hangs.

    Raises:
        NotMeasuredError: there is no Samba server, or no ``smbnetfs``.
    """
    sys.path.insert(0, str(_SHARES))
    from samba_kit import SambaServer, SmbNetFs
    from undo import Undo

    records = 1_000 if quick else 4_000
    undo = Undo()
    try:
        server = SambaServer(undo).start()
        client = SmbNetFs(undo, server)
        for what, hung in (("healthy share", False), ("share that hangs from start to end", True)):
            with tempfile.TemporaryDirectory() as name:
                plain = _Side(Path(name).resolve() / "plain", records, None)
                mirrored = _Side(Path(name).resolve() / "mirrored", records, client.central, server, hung)
                costs = in_turn(plain.per_record, mirrored.per_record, 2 if quick else 7)
            yield Result(
                f"{records} records a millisecond apart, mirrored to a {what}",
                "the same without a mirror",
                *costs,
                TARGET,
                per="record",
                notes=[_HEAD, _LINE, _row("without a mirror", plain), _row(what, mirrored)],
            )
    except pytest.skip.Exception as reason:
        raise NotMeasuredError(str(reason)) from None
    finally:
        undo.now()


_HEAD = "| session | whole session s (median) | p50 per record µs | p99 µs | maximum ms |"
_LINE = "|---|---|---|---|---|"


def _row(what: str, side: _Side) -> str:
    p50, p99, most = side.percentiles()
    return f"| {what} | {statistics.median(side.wall_s[1:]):.2f} | {p50:.0f} | {p99:.0f} | {most / 1e3:.2f} |"
