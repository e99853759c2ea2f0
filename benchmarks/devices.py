"""What a dry run's mocked devices cost: a session that opens twelve of a kind, compared with one that has none.

The libraries below some drivers (PyVISA, pyzmq, ophyd-async, pyserial) take their time to import whoever uses them. The session
without devices imports them too, so that the figure is ours alone; what they take is shown beside it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Cost, NotMeasuredError, Result, cost_of, in_turn, median_cost

DEVICES = 12
_DRIVERS = """\
class Camera:
    def __init__(self, serial: str, frame_rate_hz: float = 30.0):
        self.serial = serial
    def open(self) -> None: raise OSError("no hardware here")
    def close(self) -> None: raise OSError("no hardware here")
    def grab(self, frames: int) -> int: raise OSError("no hardware here")
    def read_state(self) -> dict: raise OSError("no hardware here")
    def safe_state(self) -> None: raise OSError("no hardware here")

class MockCamera:
    def __init__(self, serial): ...
    def grab(self, frames): return frames
"""
_STAGE = """\
from ophyd_async.core import StandardReadable, soft_signal_rw

class Stage(StandardReadable):
    def __init__(self, name: str = "") -> None:
        with self.add_children_as_readables():
            self.x_mm = soft_signal_rw(float, 0.0)
        super().__init__(name=name)
    async def safe_state(self) -> None:
        await self.x_mm.set(0.0)
"""
_SCRIPT = 'dialogues: [{q: "*IDN?", r: "PEER 1.0"}, {q: "OUT 1", r: OK}, {q: "OUT 0", r: OK}]\n'
#: Kind, entry of the rig file, the libraries below it.
_KINDS: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
    ("autospec", {"driver": "lab_autospec:Camera", "params": {"serial": "1"}}, ()),
    ("given mocks", {"driver": "lab_mocked:Camera", "params": {"serial": "1"}, "mock": "lab_mocked:MockCamera"}, ()),
    ("subprocess", {"driver": "subprocess", "command": ["helper"], "check_query": "x"}, ()),
    ("http", {"driver": "http", "url": "http://10.0.0.1"}, ("http.server", "urllib.request")),
    ("serial, loop://", {"driver": "serial", "port": "COM3"}, ("serial",)),
    ("serial, scripted", {"driver": "serial", "port": "COM3", "mock": "peer.yaml"}, ("serial.urlhandler.protocol_socket",)),
    ("zmq", {"driver": "zmq", "address": "tcp://10.0.0.1:5555"}, ("zmq",)),
    ("visa", {"driver": "visa", "resource": "ASRL3::INSTR"}, ("pyvisa", "pyvisa_sim.highlevel")),
    ("harp", {"driver": "harp.serial:open_device", "params": {"port": "COM3"}}, ("harp.serial",)),
    ("ophyd-async", {"driver": "lab_stage:Stage"}, ("ophyd_async.core",)),
)


class _Rig:
    """A folder with one experiment of one trivial step, run with and without devices."""

    def __init__(self, folder: Path, entry: dict[str, Any], libraries: tuple[str, ...]) -> None:
        self._folder = folder
        (folder / "lab_autospec.py").write_text(_DRIVERS.replace("MockCamera", "Other"), encoding="utf-8")
        (folder / "lab_mocked.py").write_text(_DRIVERS, encoding="utf-8")
        (folder / "lab_stage.py").write_text(_STAGE, encoding="utf-8")
        (folder / "peer.yaml").write_text(_SCRIPT, encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (folder / "test_one.py").write_text("def test_one():\n    pass\n", encoding="utf-8")
        (folder / "conftest.py").write_text("".join(f"import {name}\n" for name in libraries), encoding="utf-8")
        head = {"rig_id": "bench", "state_directory": str(folder / "state"), "output_root_folder": str(folder / "sessions")}
        devices = {f"device_{number}": {**entry, "open": "eager"} for number in range(DEVICES)}
        for name, content in (("without.yaml", head), ("with.yaml", {**head, "devices": devices})):
            (folder / name).write_text(json.dumps(content), encoding="utf-8")

    def run(self, rig: str) -> Cost:
        """Run a dry run with this rig file and return what it took.

        Raises:
            RuntimeError: it did not pass.
        """
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("OPENSCOPE_", "PYTEST_"))}
        environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_openscope.plugin"]
        command += ["--rig-config", rig, "--dry-run", "--no-input", "--subject-id", "m", "--user-id", "u"]

        def run() -> None:
            done = subprocess.run(command, cwd=self._folder, env=environ, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} gave {done.returncode}:\n{done.stdout}{done.stderr}")

        return cost_of(run)


def _import_ms(libraries: tuple[str, ...]) -> float:
    """Return what the libraries take to import in a fresh interpreter that has what pytest has."""
    code = f"import pytest, time; t = time.perf_counter()\nimport {', '.join(libraries)}\nprint(time.perf_counter() - t)"
    times = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(3)]
    return statistics.median(times) * 1000


def _has(library: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(library.partition(".")[0]) is not None


def run(quick: bool) -> Iterator[Result | NotMeasuredError]:
    """Measure every kind whose library is installed."""
    for name, entry, libraries in _KINDS:
        what = f"{DEVICES} mocked devices: {name}"
        if not all(map(_has, libraries)):
            yield NotMeasuredError(f"{what}: {', '.join(libraries)} is not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            rig = _Rig(Path(folder).resolve(), entry, libraries)
            base, ours = in_turn(partial(rig.run, "without.yaml"), partial(rig.run, "with.yaml"), 5 if quick else 11)
        added = median_cost(ours) - median_cost(base)
        notes = [f"the medians differ by {added.wall_s * 1000:+.0f} ms (CPU {added.cpu_s * 1000:+.0f} ms)"]
        if libraries:
            notes.append(f"besides: {', '.join(libraries)} takes {_import_ms(libraries):.0f} ms to import")
        floor = "the same dry run without devices, its libraries imported"
        yield Result(what, floor, base, ours, per="session", notes=notes)
