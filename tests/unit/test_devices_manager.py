from __future__ import annotations

import contextlib
import logging
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.devices.faults import parse_injections
from pytest_openscope.devices.manager import Devices, DevicesFailed
from pytest_openscope.devices.spec import build_specs

LAB = textwrap.dedent(
    '''
    import contextlib, enum, pathlib, threading, time
    from dataclasses import dataclass

    calls = []

    class Mode(enum.Enum):
        FREE = 1

    @dataclass
    class Frame:
        number: int
        seconds: float

    class Laser:
        """A real driver, for runs that are not dry."""
        def __init__(self, power_mw: float = 1.0, fail: str = "", hang_s: float = 0):
            self.power_mw, self.fail, self.hang_s = power_mw, fail, hang_s
            self.on = False
        def _do(self, what):
            calls.append((what, self.power_mw))
            if self.fail == what:
                raise OSError(f"{what} went wrong")
            if self.fail == "hang " + what:
                time.sleep(self.hang_s)
        def open(self): self._do("open")
        def close(self): self._do("close")
        def check(self): self._do("check"); return self.fail != "says no"
        def safe_state(self): self._do("safe_state"); self.on = False
        def output(self, on: bool) -> None: self._do("output"); self.on = on
        def read_state(self): self._do("read_state"); return {"on": self.on, "power_mw": self.power_mw}

    class Camera:
        """Needs hardware for everything."""
        gain_steps = 4
        def __init__(self, serial: str, frame_rate_hz: float = 30.0):
            self.serial = serial
            self.frame_rate_hz = frame_rate_hz
            self.frames: list[int] = []
            self.mode = "idle"
            self.interval_ms = round(1000 / frame_rate_hz)
            self.handle = open(serial)
        def open(self): raise OSError("no hardware here")
        def close(self): raise OSError("no hardware here")
        def grab(self, frames: int, *, timeout_s: float = 1.0) -> Frame: raise OSError
        def read_temperature_c(self) -> float: raise OSError
        def is_busy(self) -> bool: raise OSError
        def is_ready(self) -> "bool | None": raise OSError
        def get_mode(self) -> Mode: raise OSError
        def save(self, path) -> pathlib.Path: raise OSError
        def itself(self) -> "Camera": raise OSError
        def pair(self) -> tuple[int, str]: raise OSError
        def names(self) -> list[str]: raise OSError
        async def wait_frame(self) -> int: raise OSError
        @property
        def exposure_ms(self) -> float: raise OSError
        @staticmethod
        def list_cameras() -> list: raise OSError
        def __enter__(self): raise OSError
        def __exit__(self, *_): raise OSError
        def __len__(self): raise OSError

    class Shipped:
        """Comes with its own mock."""
        def __init__(self, port): self.port = port
        def open(self): raise OSError
        def read(self) -> int: raise OSError

    class MockShipped(Shipped):
        def open(self): calls.append(("mock open", self.port))
        def read(self): return 42

    class OwnMock:
        """Knows more than its driver."""
        def grab(self, *args, **kwargs): return "from the mock"
        def invented(self): return "no driver has this"

    class Manager:
        """No open: a context manager."""
        def __enter__(self): calls.append("enter"); return self
        def __exit__(self, *_): calls.append("exit")

    @contextlib.contextmanager
    def borrowed():
        calls.append("borrow")
        yield {"a": 1}
        calls.append("return")

    class Async:
        async def open(self): calls.append(("async open", threading.current_thread().name))
        async def close(self): calls.append("async close")
        async def ask(self): return 7
    '''
)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "lab_devices.py").write_text(LAB, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("lab_devices", None)


Make = Callable[..., Devices]


@pytest.fixture
def make(lab: Path) -> Iterator[Make]:
    managers = []

    def build(raw: dict[str, Any], dry_run: bool = False, inject: tuple[str, ...] = (), **more: Any) -> Devices:
        faults, wrong = parse_injections(inject, list(raw))
        assert not wrong
        raw = {name: {"driver": "lab_devices:Laser", **entry} for name, entry in raw.items()}
        managers.append(Devices(build_specs(raw), rig_dir=lab, dry_run=dry_run, injections=faults, **more))
        return managers[-1]

    yield build
    for manager in managers:
        manager.close_all(1.0)


def calls() -> list[Any]:
    return sys.modules["lab_devices"].calls  # type: ignore[no-any-return]


CAMERA = {"driver": "lab_devices:Camera", "params": {"serial": "2210"}}


class TestReal:
    def test_opened_when_first_asked_for_and_once(self, make: Make) -> None:
        devices = make({"a": {}, "b": {}})
        assert devices.opened() == []
        assert list(devices) == ["a", "b"]
        assert devices["a"] is devices["a"]
        assert devices.opened() == ["a"]
        assert devices.simulated() == []

    def test_unknown_name_is_guessed(self, make: Make) -> None:
        with pytest.raises(KeyError, match="did you mean 'laser'"):
            make({"laser": {}})["lasre"]

    def test_eager_ones_open_in_order_and_all_failures_are_listed(self, make: Make) -> None:
        broken = {"open": "eager", "params": {"fail": "open"}}
        devices = make({"a": {"open": "eager"}, "b": broken, "c": {}, "d": {**broken, "driver": "lab_devices:Nope"}})
        with pytest.raises(DevicesFailed) as caught:
            devices.open_all()
        assert [failure.spec.name for failure in caught.value.failures] == ["b", "d"]
        assert "open went wrong" in str(caught.value)
        assert "define it in lab_devices" in str(caught.value)
        assert devices.opened() == ["a"]

    def test_hung_open_is_reported_left_behind_and_put_away_when_it_comes(self, make: Make) -> None:
        devices = make({"a": {"params": {"fail": "hang open", "hang_s": 2.0}, "open_timeout_s": 0.1}})
        started = time.monotonic()
        with pytest.raises(DevicesFailed, match=r"did not return within 0\.1 s"):
            devices["a"]
        assert time.monotonic() - started < 1.8
        while len(calls()) < 3:
            assert time.monotonic() - started < 20
            time.sleep(0.01)
        assert [what for what, _ in calls()] == ["open", "safe_state", "close"]

    def test_all_are_safe_before_any_is_closed_in_reverse_order(self, make: Make) -> None:
        devices = make({"a": {"params": {"power_mw": 1}}, "b": {"params": {"power_mw": 2}}})
        devices.open_all(["a", "b"])
        calls().clear()
        assert devices.close_all() == []
        assert calls() == [("safe_state", 2), ("safe_state", 1), ("close", 2), ("close", 1)]
        assert devices.close_all() == []
        with pytest.raises(DevicesFailed, match="closed already"):
            devices["a"]

    def test_declared_safe_state_takes_the_place_of_the_drivers(self, make: Make) -> None:
        devices = make({"a": {"safe_state": {"call": "output", "args": [False]}}})
        devices["a"].output(True)
        calls().clear()
        devices.close_all()
        assert [what for what, _ in calls()] == ["output", "close"]

    def test_teardown_goes_on_past_failures_and_hangs(self, make: Make) -> None:
        devices = make(
            {
                "a": {"params": {"power_mw": 1}},
                "b": {"params": {"power_mw": 2, "fail": "safe_state"}},
                "c": {"params": {"power_mw": 3, "fail": "hang close", "hang_s": 5}, "close_timeout_s": 0.1},
            }
        )
        devices.open_all(["a", "b", "c"])
        problems = devices.close_all(5.0)
        assert "safe_state of b failed: OSError" in problems[0]
        assert "close of c failed: TimeoutError" in problems[1]
        assert calls()[-2:] == [("close", 2), ("close", 1)]

    def test_deadline_holds_for_all_together(self, make: Make) -> None:
        hang = {"params": {"fail": "hang safe_state", "hang_s": 20}}
        devices = make(dict.fromkeys("abc", hang))
        devices.open_all(["a", "b", "c"])
        started = time.monotonic()
        devices.close_all(0.3)
        assert time.monotonic() - started < 15

    def test_check_and_close_of_one(self, make: Make) -> None:
        devices = make(
            {
                "a": {},
                "no": {"params": {"fail": "says no"}},
                "hang": {"params": {"fail": "hang check", "hang_s": 3}, "check_timeout_s": 0.1},
            }
        )
        assert devices.check("a") is True
        with pytest.raises(RuntimeError, match="returned False"):
            devices.check("no")
        with pytest.raises(TimeoutError, match=r"hang\.check did not return within 0\.1 s"):
            devices.check("hang")
        devices.close("a")
        assert "a" not in devices.opened()

    def test_states_of_all_even_when_one_fails_or_hangs(self, make: Make) -> None:
        devices = make(
            {"a": {}, "b": {"params": {"fail": "read_state"}}, "c": {"params": {"fail": "hang read_state", "hang_s": 3}}}
        )
        devices.open_all(["a", "b", "c"])
        states = devices.read_states(0.3)
        assert states["a"] == {"on": False, "power_mw": 1.0}
        assert states["b"] == {"error": "OSError: read_state went wrong"}
        assert "did not return" in states["c"]["error"]

    def test_other_ways_to_open(self, make: Make) -> None:
        devices = make(
            {
                "context": {"driver": "lab_devices:Manager"},
                "function": {"driver": "lab_devices:borrowed"},
                "coroutine": {"driver": "lab_devices:Async"},
                "named": {"open_method": "check", "close_method": "none"},
            }
        )
        devices.open_all(list(devices))
        assert devices["function"] == {"a": 1}
        assert devices.run(devices["coroutine"].ask) == 7
        devices.close_all()
        seen = calls()
        assert ("async open", "devices-event-loop") in seen
        assert [item for item in seen if isinstance(item, str)] == ["enter", "borrow", "async close", "return", "exit"]
        assert ("check", 1.0) in seen
        assert ("close", 1.0) not in seen

    def test_main_thread_when_asked_for(self, make: Make, lab: Path) -> None:
        source = "import threading\nclass Bound:\n    def open(self): self.thread = threading.current_thread()\n"
        (lab / "lab_bound.py").write_text(source, encoding="utf-8")
        devices = make({"a": {"driver": "lab_bound:Bound", "open_in_main_thread": True}, "b": {"driver": "lab_bound:Bound"}})
        assert devices["a"].thread is threading.main_thread()
        assert devices["b"].thread is not threading.main_thread()

    def test_an_interrupt_in_the_main_thread_leaves_the_others_closed(self, make: Make, lab: Path) -> None:
        source = "class Slow:\n    def open(self): raise KeyboardInterrupt\n"
        (lab / "lab_slow.py").write_text(source, encoding="utf-8")
        devices = make(
            {
                "a": {"driver": "lab_slow:Slow", "open_in_main_thread": True},
                "b": {"open_in_main_thread": True},
            }
        )
        with pytest.raises(KeyboardInterrupt):
            devices.open_all(["a", "b"])
        assert devices.opened() == []
        # Its driver was not even imported.
        assert "lab_devices" not in sys.modules


class TestSafeStateCommand:
    COMMAND = (sys.executable, "-c", "open('safe.txt', 'a').write('x')")

    def test_events_frame_the_devices_life(self, make: Make) -> None:
        events: list[tuple[str, dict[str, Any]]] = []
        devices = make(
            {"a": {"safe_state_command": list(self.COMMAND), "safe_state_timeout_s": 3}},
            on_event=lambda event, **fields: events.append((event, fields)),
        )
        devices["a"]
        assert events == [
            ("safe_state", {"device": "a", "command": list(self.COMMAND), "cwd": str(devices.rig_dir), "timeout_s": 3.0})
        ]
        devices.close_all()
        assert events[1:] == [("safe_state_done", {"device": "a"})]
        assert not (devices.rig_dir / "safe.txt").exists()

    @pytest.mark.parametrize("fail", ["open", "safe_state"])
    def test_it_runs_where_the_driver_could_not(self, make: Make, fail: str) -> None:
        events: list[str] = []
        devices = make(
            {"a": {"params": {"fail": fail}, "safe_state_command": list(self.COMMAND)}},
            on_event=lambda event, **_: events.append(event),
        )
        try:
            devices["a"]
        except DevicesFailed:
            assert fail == "open"
        devices.close_all()
        assert (devices.rig_dir / "safe.txt").read_text() == "x"
        assert events == ["safe_state", "safe_state_done"]
        assert devices.unsafe == []

    def test_what_a_command_leaves_running_is_not_waited_for(self, make: Make, tmp_path: Path) -> None:
        end = tmp_path / "end"
        wait = f"import os, time\nwhile not os.path.exists({str(end)!r}): time.sleep(0.1)"
        command = [sys.executable, "-c", f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {wait!r}])"]
        devices = make({"a": {"params": {"fail": "safe_state"}, "safe_state_command": command, "safe_state_timeout_s": 60}})
        devices["a"]
        try:
            assert not [text for text in devices.close_all() if "command" in text]
            assert devices.unsafe == []
        finally:
            end.touch()

    def test_a_failing_command_is_told(self, make: Make) -> None:
        command = [sys.executable, "-c", "import sys; sys.exit('valve stuck')"]
        devices = make({"a": {"params": {"fail": "safe_state"}, "safe_state_command": command}})
        devices["a"]
        assert "valve stuck" in devices.close_all()[-1]
        assert devices.unsafe == ["a may not be safe: its safe_state failed"]

    @pytest.mark.parametrize("driver", [{"driver": "lab_devices:Manager"}, {"params": {"fail": "open"}}])
    def test_a_failing_command_leaves_a_device_unsafe_that_has_nothing_else(self, make: Make, driver: dict[str, Any]) -> None:
        devices = make({"a": {**driver, "safe_state_command": [sys.executable, "-c", "import sys; sys.exit(3)"]}})
        with contextlib.suppress(DevicesFailed):
            devices["a"]
        devices.close_all()
        assert devices.unsafe == ["a may not be safe: its safe-state command failed"]

    @pytest.mark.parametrize("driver", [{"driver": "lab_devices:Manager"}, {"params": {"fail": "safe_state"}}])
    def test_it_runs_at_the_end_for_a_device_closed_before_and_not_made_safe(self, make: Make, driver: dict[str, Any]) -> None:
        events: list[str] = []
        devices = make(
            {"a": {**driver, "safe_state_command": list(self.COMMAND)}}, on_event=lambda event, **_: events.append(event)
        )
        devices["a"]
        with contextlib.suppress(OSError):
            devices.close("a")
        assert events == ["safe_state"]
        devices.close_all()
        assert (devices.rig_dir / "safe.txt").read_text() == "x"
        assert events == ["safe_state", "safe_state_done"]

    def test_closed_before_the_end_without_being_safe_and_without_a_command(self, make: Make) -> None:
        devices = make({"a": {"params": {"fail": "safe_state"}}})
        devices["a"]
        with pytest.raises(OSError, match="safe_state went wrong"):
            devices.close("a")
        devices.close_all()
        assert devices.unsafe == ["a may not be safe: its safe_state failed"]

    def test_one_that_was_opened_again_and_made_safe_counts_as_safe(self, make: Make) -> None:
        devices = make({"a": {"params": {"fail": "safe_state"}}})
        devices["a"]
        with pytest.raises(OSError, match="safe_state went wrong"):
            devices.close("a")
        devices["a"].fail = ""
        devices.close_all()
        assert devices.unsafe == []

    def test_a_dry_run_never_touches_the_real_device(self, make: Make) -> None:
        events: list[str] = []
        devices = make(
            {"a": {"safe_state_command": list(self.COMMAND)}}, True, on_event=lambda event, **_: events.append(event)
        )
        devices["a"]
        devices.close_all()
        assert events == []
        assert not (devices.rig_dir / "safe.txt").exists()


class TestAutospec:
    def test_typed_answers(self, make: Make, lab: Path) -> None:
        devices = make({"camera": CAMERA}, True)
        camera = devices["camera"]
        module = sys.modules["lab_devices"]
        assert isinstance(camera, module.Camera)
        assert camera.grab(3) == module.Frame(1, 1.0)
        assert (camera.read_temperature_c(), camera.is_busy(), camera.is_ready()) == (1.0, False, True)
        assert camera.get_mode() is module.Mode.FREE
        assert camera.save("x") == Path("simulated")
        assert camera.itself().grab(1) == module.Frame(1, 1.0)
        assert (camera.pair(), camera.names(), camera.list_cameras()) == ((1, "simulated"), ["simulated"], [])
        assert (camera.exposure_ms, camera.gain_steps, camera.serial, camera.frame_rate_hz) == (1.0, 4, "2210", 30.0)
        assert (camera.frames, len(camera)) == ([1], 1)
        with pytest.raises(AttributeError, match=r"'returns: \{interval_ms: VALUE\}'"):
            camera.interval_ms
        with camera as entered:
            assert isinstance(entered, module.Camera)
        assert devices.run(camera.wait_frame) == 1
        camera.mode = "running"
        assert camera.mode == "running"

    def test_what_the_driver_lacks_fails(self, make: Make) -> None:
        camera = make({"camera": CAMERA}, True)["camera"]
        with pytest.raises(AttributeError, match=r"no attribute 'grabb' \(did you mean 'grab'\?\)"):
            camera.grabb(1)
        with pytest.raises(TypeError, match=r"Camera.grab\(frames, \*, timeout_s=1.0\): missing a required argument: 'frames'"):
            camera.grab()
        with pytest.raises(TypeError, match="unexpected keyword"):
            camera.grab(1, timeout=2)

    def test_wrong_calls_fail_although_an_answer_is_set(self, make: Make) -> None:
        camera = make({"camera": {**CAMERA, "returns": {"grab": 5}}}, True)["camera"]
        assert camera.grab(1) == 5
        with pytest.raises(TypeError):
            camera.grab()

    def test_an_answer_for_what_the_driver_does_not_have_is_refused(self, make: Make) -> None:
        devices = make({"camera": CAMERA}, True)
        with pytest.raises(AttributeError, match="grb"):
            devices.returns("camera", grb=3)
        devices.returns("camera", check=True)

    def test_answers_from_the_rig_file_and_from_a_test(self, make: Make) -> None:
        returns = {
            "read_temperature_c": 36.5,
            "grab": [1, {"raise": "TimeoutError: no frame"}, 3],
            "pair": {"value": [1, 2], "delay": "50ms"},
            "exposure_ms": 12,
        }
        devices = make({"camera": {**CAMERA, "returns": returns}}, True)
        camera = devices["camera"]
        assert camera.read_temperature_c() == 36.5
        assert camera.grab(1) == 1
        with pytest.raises(TimeoutError, match="no frame"):
            camera.grab(1)
        assert (camera.grab(1), camera.grab(1)) == (3, 3)
        started = time.monotonic()
        assert camera.pair() == [1, 2]
        assert time.monotonic() - started >= 0.045
        assert camera.exposure_ms == 12
        devices.returns("camera", grab=OSError("mine"))
        with pytest.raises(OSError, match="mine"):
            camera.grab(1)
        assert devices.calls("camera")[0] == ("read_temperature_c", (), {})

    def test_real_devices_cannot_be_overridden(self, make: Make) -> None:
        with pytest.raises(RuntimeError, match="dry runs only"):
            make({"a": {}}).returns("a", output=1)


class TestOrderOfMocks:
    def test_given_mock_first_and_held_to_its_driver(self, make: Make) -> None:
        devices = make({"camera": {**CAMERA, "mock": "lab_devices:OwnMock"}}, True)
        assert devices.simulated() == ["camera: mock lab_devices:OwnMock"]
        assert devices["camera"].grab(1) == "from the mock"
        with pytest.raises(TypeError):
            devices["camera"].grab()
        with pytest.raises(AttributeError, match="invented"):
            devices["camera"].invented()
        assert devices.mock("camera").invented() == "no driver has this"

    def test_then_the_mock_that_the_driver_ships(self, make: Make) -> None:
        devices = make({"x": {"driver": "lab_devices:Shipped", "params": {"port": "COM3"}}}, True)
        assert devices.simulated() == ["x: mock of its driver, MockShipped"]
        assert devices["x"].read() == 42
        assert ("mock open", "COM3") in calls()

    def test_then_an_autospec(self, make: Make) -> None:
        assert make({"camera": CAMERA}, True).simulated() == ["camera: autospec of Camera"]

    def test_a_driver_with_a_port_is_given_a_scripted_peer(self, make: Make, lab: Path) -> None:
        pytest.importorskip("serial")
        source = """
import serial
class Spout:
    def __init__(self, port): self.port = port
    def open(self): self.line = serial.serial_for_url(self.port, timeout=1)
    def close(self): self.line.close()
    def who(self):
        self.line.write(b"*IDN?\\n")
        return self.line.readline()
"""
        (lab / "lab_spout.py").write_text(source, encoding="utf-8")
        (lab / "spout.yaml").write_text('dialogues: [{q: "*IDN?", r: SPOUT}]', encoding="utf-8")
        devices = make({"x": {"driver": "lab_spout:Spout", "params": {"port": "COM9"}, "mock": "spout.yaml"}}, True)
        assert devices.simulated() == ["x: scripted peer spout.yaml"]
        assert devices["x"].who() == b"SPOUT\n"


class TestFaults:
    def test_exception_on_open(self, make: Make) -> None:
        devices = make({"camera": CAMERA}, True, ("camera.open=TimeoutError",))
        with pytest.raises(DevicesFailed, match="TimeoutError"):
            devices["camera"]
        assert devices.simulated()[-1] == "injected: camera.open=TimeoutError"

    def test_exception_delay_and_pattern(self, make: Make) -> None:
        devices = make({"camera": CAMERA}, True, ("camera.grab=OSError:cable out", "cam*.is_*=delay:60ms"))
        camera = devices["camera"]
        with pytest.raises(OSError, match="cable out"):
            camera.grab(1)
        started = time.monotonic()
        camera.is_ready()
        assert time.monotonic() - started >= 0.055

    def test_hang_lets_go_at_the_end(self, make: Make) -> None:
        devices = make({"camera": CAMERA}, True, ("camera.grab=hang",))
        camera = devices["camera"]
        failures: list[BaseException] = []

        def grab() -> None:
            try:
                camera.grab(1)
            except TimeoutError as error:
                failures.append(error)

        thread = threading.Thread(target=grab)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        devices.close_all()
        thread.join(2)
        assert failures

    def test_hanging_open_meets_its_timeout(self, make: Make) -> None:
        devices = make({"camera": {**CAMERA, "open_timeout_s": 0.1}}, True, ("camera.open=hang",))
        with pytest.raises(DevicesFailed, match=r"within 0\.1 s"):
            devices["camera"]

    @pytest.mark.parametrize("what", ["close", "safe_state", "check", "read_state"])
    def test_lifecycle(self, make: Make, what: str) -> None:
        devices = make({"camera": CAMERA}, True, (f"camera.{what}=OSError:injected",))
        devices["camera"]
        if what == "check":
            with pytest.raises(OSError, match="injected"):
                devices.check("camera")
        elif what == "read_state":
            assert devices.read_states() == {"camera": {"error": "OSError: injected"}}
        else:
            assert f"{what} of camera failed: OSError: injected" in devices.close_all()

    def test_never_in_a_real_run(self, lab: Path) -> None:
        faults, _ = parse_injections(["a.open=OSError"], ["a"])
        with pytest.raises(ValueError, match="dry runs only"):
            Devices({}, rig_dir=lab, injections=faults)


class TestLogIo:
    def test_calls_and_answers_are_logged(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        devices = make({"a": {"log_io": True}, "b": {}})
        with caplog.at_level(logging.INFO, "pytest_openscope.devices"):
            devices["a"].output(True)
            devices["a"].power_mw = 3
            devices["b"].output(True)
        text = caplog.text
        assert "output(True) -> None" in text
        assert "power_mw = 3" in text
        assert {record.name for record in caplog.records if "output" in record.message} == {"pytest_openscope.devices.a"}

    def test_failures_and_large_values(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        devices = make({"a": {"log_io": True, "params": {"fail": "output"}}})
        with caplog.at_level(logging.INFO, "pytest_openscope.devices"), pytest.raises(OSError):
            devices["a"].output("x" * 5000)
        assert "raised OSError: output went wrong" in caplog.text
        assert len(caplog.text) < 3000

    def test_the_serial_port_inside_a_driver(self, make: Make, lab: Path, caplog: pytest.LogCaptureFixture) -> None:
        pytest.importorskip("serial")
        source = """
import serial
class Line:
    def open(self): self.line = serial.serial_for_url("loop://", timeout=0.5)
    def ask(self):
        self.line.write(b"hello")
        return self.line.read(5)
"""
        (lab / "lab_line.py").write_text(source, encoding="utf-8")
        devices = make({"a": {"driver": "lab_line:Line", "log_io": True}})
        with caplog.at_level(logging.INFO, "pytest_openscope.devices"):
            assert devices["a"].ask() == b"hello"
        assert "told b'hello'" in caplog.text
        assert "answered b'hello'" in caplog.text
