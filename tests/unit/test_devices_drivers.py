from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.devices.manager import Devices, DevicesFailed
from pytest_openscope.devices.peer import Script
from pytest_openscope.devices.spec import build_specs, check_specs

SCRIPT = """
error: "ERR"
dialogues:
  - {q: "*IDN?", r: "LICKSPOUT 1.0"}
  - {q: "COUNT?", r: ["0", "1", "2"]}
  - {q: "SLOW?", r: "OK", delay_s: 0.3}
  - {q: "QUIET?"}
properties:
  threshold: {default: 20, getter: {q: "THR?", r: "THR={}"}, setter: {q: "THR {}", r: "OK"}, min: 0, max: 255}
"""

Open = Callable[..., Any]


@pytest.fixture
def managers(tmp_path: Path) -> Iterator[Callable[..., Devices]]:
    made = []

    def build(entry: dict[str, Any], dry_run: bool = True) -> Devices:
        assert check_specs({"x": entry}, tmp_path, dry_run) == []
        made.append(Devices(build_specs({"x": entry}), rig_dir=tmp_path, dry_run=dry_run))
        return made[-1]

    yield build
    for manager in made:
        assert manager.close_all(5.0) == []


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "peer.yaml").write_text(SCRIPT, encoding="utf-8")
    return "peer.yaml"


class TestScript:
    def test_answers(self) -> None:
        import yaml

        script = Script(yaml.safe_load(SCRIPT))
        asked = [
            "*IDN?",
            "COUNT?",
            "COUNT?",
            "COUNT?",
            "COUNT?",
            "QUIET?",
            "THR?",
            "THR 30",
            "THR?",
            "THR 300",
            "THR x",
            "what",
        ]
        expected = ["LICKSPOUT 1.0", "0", "1", "2", "2", None, "THR=20", "OK", "THR=30", "ERR", "ERR", "ERR"]
        assert [script.answer(text) for text in asked] == expected

    @pytest.mark.parametrize("content", [{"dialogs": []}, {"dialogues": [{"r": "x"}]}, {"dialogues": ["x"]}])
    def test_mistakes(self, content: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="script"):
            Script(content)

    def test_a_setter_needs_a_place_for_its_value(self) -> None:
        with pytest.raises(ValueError, match=r"power\.setter\.q: 'ON' has no {}"):
            Script({"properties": {"power": {"setter": {"q": "ON"}}}})

    def test_unreadable_files(self, tmp_path: Path) -> None:
        for text in ("a: [", "- 1"):
            (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
            with pytest.raises(ValueError, match=r"x\.yaml"):
                Script.read(tmp_path / "x.yaml")


class TestSerial:
    @pytest.fixture(autouse=True)
    def _needs(self) -> None:
        pytest.importorskip("serial")

    def test_loop(self, managers: Open) -> None:
        devices = managers({"driver": "serial", "port": "COM3", "baud": 115200})
        assert devices.simulated() == ["x: loop://"]
        device = devices["x"]
        assert device.query("hello") == "hello"
        device.write_bytes(b"\x01\x02")
        assert device.read_bytes(2) == b"\x01\x02"
        assert devices.check("x") == "open (no check_query declared)"

    def test_scripted_peer(self, managers: Open, script: str) -> None:
        entry = {"driver": "serial", "port": "COM3", "mock": script, "check_query": "*IDN?", "check_answer": "^LICKSPOUT"}
        devices = managers({**entry, "timeout_s": 0.15, "safe_command": "THR 0"})
        device = devices["x"]
        assert devices.check("x") == "LICKSPOUT 1.0"
        assert device.query("THR 30") == "OK"
        assert device.query("SLOW?", timeout_s=2) == "OK"
        with pytest.raises(TimeoutError, match=r"no answer to 'QUIET\?'.*within 0\.15 s"):
            device.query("QUIET?")
        assert devices.read_states()["x"]["is_open"] is True

    def test_wrong_device(self, managers: Open, script: str) -> None:
        entry = {"driver": "serial", "port": "COM3", "mock": script, "check_query": "*IDN?", "check_answer": "^VALVE"}
        with pytest.raises(RuntimeError, match=r"was answered 'LICKSPOUT 1\.0'"):
            managers(entry).check("x")

    def test_peer_that_speaks_first(self, managers: Open) -> None:
        entry = {"driver": "serial", "port": "COM3", "mock": {"unsolicited": [{"every_s": 0.05, "r": "LICK"}]}}
        device = managers(entry)["x"]
        assert [device.read_line() for _ in range(3)] == ["LICK"] * 3

    def test_missing_port_has_a_remedy(self, managers: Open) -> None:
        with pytest.raises(DevicesFailed, match="is it plugged in"):
            managers({"driver": "serial", "port": "/dev/tty_none"}, False)["x"]

    def test_ports_that_cannot_be_listed_hide_no_error(self, managers: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        from serial.tools import list_ports

        def comports() -> list[Any]:
            raise OSError("no device manager")

        monkeypatch.setattr(list_ports, "comports", comports)
        with pytest.raises(DevicesFailed, match=r"(?s)could not open port.*is it plugged in and switched on\?$"):
            managers({"driver": "serial", "port": "/dev/tty_none"}, False)["x"]

    def test_log_io(self, managers: Open, script: str, caplog: pytest.LogCaptureFixture) -> None:
        device = managers({"driver": "serial", "port": "COM3", "mock": script, "log_io": True})["x"]
        with caplog.at_level(logging.INFO, "pytest_openscope.devices"):
            device.query("*IDN?")
        *traffic, call = caplog.messages
        assert traffic == ["told b'*IDN?\\n'", "answered b'LICKSPOUT 1.0\\n'"]
        assert call.startswith("query('*IDN?') -> 'LICKSPOUT 1.0' (")


class TestVisa:
    @pytest.fixture(autouse=True)
    def _needs(self) -> None:
        pytest.importorskip("pyvisa_sim")

    def test_generic_simulation(self, managers: Open) -> None:
        entry = {"driver": "visa", "resource": "ASRL3::INSTR", "safe_state": {"call": "output", "args": [False]}}
        devices = managers({**entry, "log_io": True})
        devices["x"].output(True)
        assert "simulated" in devices.check("x")

    def test_terminations_and_other_interfaces(self, managers: Open) -> None:
        entry = {"driver": "visa", "resource": "TCPIP0::10.0.0.1::INSTR", "read_termination": "\n", "write_termination": "\n"}
        assert "simulated" in managers(entry).check("x")

    def test_file_and_timeout(self, managers: Open, tmp_path: Path) -> None:
        text = """
spec: "1.0"
devices:
  laser:
    eom: {ASRL INSTR: {q: "\\r\\n", r: "\\n"}}
    error: ERROR
    dialogues: [{q: "*IDN?", r: "LASER"}, {q: "SILENT?"}]
    properties:
      power:
        default: 0.0
        getter: {q: "POW?", r: "{:.1f}"}
        setter: {q: "POW {:.1f}", r: OK}
        specs: {min: 0, max: 20, type: float}
resources:
  ASRL3::INSTR: {device: laser}
"""
        (tmp_path / "laser.yaml").write_text(text, encoding="utf-8")
        entry = {
            "driver": "visa",
            "resource": "ASRL3::INSTR",
            "mock": "laser.yaml",
            "timeout_s": 0.1,
            "write_termination": "\r\n",
        }
        device = managers({**entry, "read_termination": "\n"})["x"]
        assert (device.query("POW 5.0"), device.query("POW?"), device.query("POW 50.0")) == ("OK", "5.0", "ERROR")
        with pytest.raises(TimeoutError, match=r"no answer to 'SILENT\?'"):
            device.query("SILENT?")


class TestZmq:
    @pytest.fixture(autouse=True)
    def _needs(self) -> None:
        pytest.importorskip("zmq")

    def test_request(self, managers: Open, script: str) -> None:
        entry = {"driver": "zmq", "address": "tcp://10.0.0.1:5555", "mock": script, "timeout_s": 1, "check_query": "*IDN?"}
        devices = managers(entry)
        assert devices.check("x") == "LICKSPOUT 1.0"
        with pytest.raises(TimeoutError, match=r"did not send a message within 1 s"):
            devices["x"].query("QUIET?")
        assert devices["x"].query("THR?") == "THR=20"

    def test_json(self, managers: Open, caplog: pytest.LogCaptureFixture) -> None:
        device = managers({"driver": "zmq", "address": "tcp://10.0.0.1:5", "log_io": True})["x"]
        with caplog.at_level(logging.INFO, "pytest_openscope.devices"):
            assert device.request({"a": 1}) == {"a": 1}
        assert caplog.messages[:2] == ["told '{\"a\": 1}'", "answered '{\"a\": 1}'"]

    @pytest.mark.parametrize("kind", ["sub", "pull"])
    def test_listening(self, managers: Open, kind: str) -> None:
        mock = {"unsolicited": [{"every_s": 0.03, "r": "LICK"}]}
        device = managers({"driver": "zmq", "address": "tcp://10.0.0.1:5", "kind": kind, "mock": mock})["x"]
        assert device.receive() == "LICK"

    @pytest.mark.parametrize("kind", ["pub", "push"])
    def test_telling(self, managers: Open, kind: str) -> None:
        devices = managers({"driver": "zmq", "address": "tcp://10.0.0.1:5", "kind": kind, "bind": kind == "push"})
        devices["x"].send("hello")

    def test_nobody_there(self, managers: Open) -> None:
        devices = managers({"driver": "zmq", "address": "tcp://127.0.0.1:9", "timeout_s": 0.1, "check_query": "hi"}, False)
        with pytest.raises(TimeoutError):
            devices.check("x")

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_peer_whose_thread_has_died_closes_all_the_same(self, managers: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        devices = managers({"driver": "zmq", "address": "tcp://10.0.0.1:5", "timeout_s": 0.1, "close_timeout_s": 1})
        device = devices["x"]

        def answer(script: Script, query: str) -> str:
            raise RuntimeError(query)

        monkeypatch.setattr(Script, "answer", answer)
        with pytest.raises(TimeoutError):
            device.query("anything")
        devices.close("x")

    def test_unknown_kind(self, managers: Open) -> None:
        with pytest.raises(DevicesFailed, match="none of req"):
            managers({"driver": "zmq", "address": "tcp://127.0.0.1:9", "kind": "rep"}, False)["x"]


class TestHttp:
    def test_scripted_server(self, managers: Open) -> None:
        dialogues = [
            {"q": "GET /status", "r": '{"on": true}'},
            {"q": 'POST /power {"mw": 5}', "r": "OK"},
            {"q": "PUT /x", "r": "put"},
        ]
        dialogues += [
            {"q": "POST /off", "r": ""},
            {"q": "GET /slow", "r": "x", "delay_s": 0.5},
            {"q": "DELETE /x", "r": "gone"},
        ]
        entry = {"driver": "http", "url": "http://10.0.0.1/", "check_path": "status", "mock": {"dialogues": dialogues}}
        devices = managers({**entry, "safe_path": "off", "timeout_s": 0.2, "check_answer": "true"})
        device = devices["x"]
        assert device.get("status") == {"on": True}
        assert (device.post("power", {"mw": 5}), device.put("x"), device.delete("x")) == ("OK", "put", "gone")
        assert devices.check("x") == '{"on": true}'
        with pytest.raises(RuntimeError, match=r"answered 404 Not Found: nothing known of /nope"):
            device.get("nope")
        with pytest.raises(TimeoutError):
            device.get("slow")

    def test_without_script(self, managers: Open) -> None:
        assert managers({"driver": "http", "url": "http://10.0.0.1"})["x"].get("x", a=1) == {}

    def test_nobody_there(self, managers: Open) -> None:
        with pytest.raises(OSError, match=r"refused|10061"):
            managers({"driver": "http", "url": "http://127.0.0.1:9"}, False).check("x")


HELPER = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "die": sys.exit(3)
    if word == "quiet": continue
    print("heard " + word, flush=True)
print("end of input", file=sys.stderr)
"""


class TestSubprocess:
    @pytest.fixture
    def helper(self, tmp_path: Path) -> dict[str, Any]:
        path = tmp_path / "helper.py"
        path.write_text(HELPER, encoding="utf-8")
        return {"driver": "subprocess", "command": [sys.executable, str(path)], "ready_line": "ready", "timeout_s": 5}

    def test_talks_and_ends(self, managers: Open, helper: dict[str, Any]) -> None:
        devices = managers({**helper, "check_query": "x", "safe_command": "off"}, False)
        device = devices["x"]
        assert device.query("a") == "heard a"
        assert devices.check("x") == "heard x"
        process: subprocess.Popen[bytes] = device.process
        devices.close("x")
        assert process.returncode == 0

    @pytest.mark.skipif(sys.platform == "win32", reason="sessions of POSIX")
    def test_a_ctrl_c_for_the_experiment_does_not_reach_it(self, managers: Open, helper: dict[str, Any]) -> None:
        process = managers(helper, False)["x"].process
        assert os.getpgid(process.pid) == process.pid
        assert os.getpgid(0) != process.pid

    def test_silence_and_death(self, managers: Open, helper: dict[str, Any]) -> None:
        devices = managers(helper, False)
        with pytest.raises(TimeoutError, match=r"printed no line within 0\.1 s"):
            devices["x"].query("quiet", timeout_s=0.1)
        with pytest.raises(RuntimeError, match="has ended with exit code 3"):
            devices["x"].query("die")
        with pytest.raises(RuntimeError, match="has ended with exit code 3"):
            devices.check("x")

    def test_one_that_ignores_its_end_is_killed(self, managers: Open) -> None:
        source = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
        devices = managers({"driver": "subprocess", "command": [sys.executable, "-c", source], "ready_line": "up"}, False)
        process = devices["x"].process
        started = time.monotonic()
        devices.close("x")
        assert process.poll() is not None
        assert time.monotonic() - started < 20

    def test_missing_program(self, managers: Open) -> None:
        with pytest.raises(DevicesFailed, match="FileNotFoundError"):
            managers({"driver": "subprocess", "command": "no_such_program"}, False)["x"]

    def test_simulated(self, managers: Open, helper: dict[str, Any], script: str) -> None:
        devices = managers({**helper, "mock": script, "check_query": "*IDN?"})
        assert devices.check("x") == "LICKSPOUT 1.0"
        assert devices["x"].process is None


class TestOphydAsync:
    @pytest.fixture(autouse=True)
    def _needs(self) -> None:
        pytest.importorskip("ophyd_async")

    STAGE = """
from ophyd_async.core import StandardReadable, soft_signal_rw
class Stage(StandardReadable):
    def __init__(self, name=""):
        with self.add_children_as_readables():
            self.x = soft_signal_rw(float, 1.5)
        super().__init__(name=name)
    async def safe_state(self):
        await self.x.set(0.0)
"""

    @pytest.mark.parametrize("dry_run", [True, False])
    def test_connects_reads_and_is_made_safe(
        self, managers: Open, tmp_path: Path, dry_run: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "path", [*sys.path])
        (tmp_path / "lab_stage.py").write_text(self.STAGE, encoding="utf-8")
        devices = managers({"driver": "lab_stage:Stage"}, dry_run)
        if dry_run:
            assert devices.simulated() == ["x: ophyd-async mock mode"]
        stage = devices["x"]
        assert stage.name == "x"
        devices.run(stage.x.set, 2.5)
        assert devices.run(stage.x.get_value) == 2.5
        assert devices.read_states() == {"x": {"x-x": 2.5}}
        assert (stage._mock is not None) is dry_run


def test_no_drivers_library_is_imported_with_the_manager() -> None:
    code = "import sys; import pytest_openscope.devices.manager, pytest_openscope.devices.spec; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"serial", "pyvisa", "zmq", "ophyd_async", "harp", "numpy", "unittest.mock"}
    assert heavy.isdisjoint(modules)
