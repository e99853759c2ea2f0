"""The devices of a session: opened late, made safe and closed in every ending, able to describe themselves."""

from __future__ import annotations

import inspect
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .answers import Answers
from .calls import Guarded, call_within
from .event_loop import EventLoopThread
from .faults import Fault
from .io_log import tap
from .loader import LoadError, did_you_mean, load
from .opening import OpenDevice, build_hooks
from .proxy import unwrap
from .simulate import Simulation, choose, connects_in_mock_mode
from .spec import DeviceSpec

_READ_STATE_S = 2.0


@dataclass(frozen=True)
class DeviceFailure:
    """One device that did not open, with what to do."""

    name: str
    driver: str
    error: BaseException
    remedy: str

    def __str__(self) -> str:
        kind = type(self.error).__name__
        return f"{self.name} ({self.driver}): {kind}: {self.error}" + (f"\n      -> {self.remedy}" if self.remedy else "")


class DevicesFailed(Exception):  # noqa: N818 - a sentence, as its message is
    """Every device that did not open; ``failures`` holds them, the first one's exception is the cause."""

    def __init__(self, failures: Sequence[DeviceFailure]) -> None:
        self.failures = tuple(failures)
        count = f"{len(failures)} devices" if len(failures) > 1 else "device"
        super().__init__(f"{count} did not open:\n" + "\n".join(f"  - {failure}" for failure in failures))


class DeviceManager(Mapping[str, Any]):
    """Mapping of names to opened devices; a device is opened when it is first asked for.

    Args:
        specs: from :func:`spec.build_specs`, in the order of the rig file.
        rig_dir: directory of the rig file.
        dry_run: simulate every device.
        injections: faults; only in dry runs.
        on_event: called with an event's name and fields, for the journal: ``safe_state`` before a device with a declared
            ``safe_state_command`` is touched, ``safe_state_done`` when it is safe and closed.
        log: parent of the devices' loggers.

    Raises:
        ValueError: faults without a dry run.
    """

    def __init__(
        self,
        specs: Mapping[str, DeviceSpec],
        *,
        rig_dir: Path,
        dry_run: bool = False,
        injections: Sequence[Fault] = (),
        on_event: Callable[..., None] | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        if injections and not dry_run:
            raise ValueError("faults are injected into dry runs only")
        self.specs = dict(specs)
        self.rig_dir, self.dry_run = rig_dir, dry_run
        self._injections = tuple(injections)
        self._on_event = on_event
        self._log = log or logging.getLogger("pytest_openscope.devices")
        self._loop = EventLoopThread()
        self._released = threading.Event()
        self._lock = threading.RLock()
        self._open: dict[str, OpenDevice] = {}
        self._unsure: dict[str, DeviceSpec] = {}
        self._simulations: dict[str, Simulation] = {}
        self._closed = False

    def __getitem__(self, name: str) -> Any:
        """Return the device, opening it if need be.

        Raises:
            KeyError: the rig file has no such device.
            DevicesFailed: it did not open.
        """
        with self._lock:
            if name not in self.specs:
                guess = did_you_mean(name, self.specs) or f"it has {', '.join(self.specs) or 'none'}"
                raise KeyError(f"the rig file has no device {name!r}; {guess}")
            if name not in self._open:
                failure = self._try_open(self.specs[name])
                if failure is not None:
                    raise DevicesFailed([failure]) from failure.error
            return self._open[name].device

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def __contains__(self, name: object) -> bool:
        return name in self.specs

    def __repr__(self) -> str:
        return f"<DeviceManager of {', '.join(self.specs) or 'no devices'}; open: {', '.join(self._open) or 'none'}>"

    def opened(self) -> list[str]:
        """Return the names of the open devices, in the order in which they were opened."""
        return list(self._open)

    def open_all(self, names: Sequence[str] | None = None) -> None:
        """Open the devices named, or all that are declared ``open: eager``, in the order of the rig file.

        Raises:
            DevicesFailed: lists every one that did not open; the others are open.
        """
        failures = []
        for spec in self.specs.values():
            if (spec.eager if names is None else spec.name in names) and spec.name not in self._open:
                with self._lock:
                    failure = self._try_open(spec)
                failures += [failure] if failure is not None else []
        if failures:
            raise DevicesFailed(failures) from failures[0].error

    def run(self, function: Callable[..., Any], *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
        """Call ``function`` on the devices' event loop and await its result: ``devices.run(stage.x.set, 5.0)``."""
        return self._loop.run(function, *args, timeout_s=timeout_s, **kwargs)

    def simulated(self) -> list[str]:
        """Return one line for each device that is, or would be, simulated, then one for each injected fault."""
        if not self.dry_run:
            return []
        lines = []
        for spec in self.specs.values():
            if self._closed and spec.name not in self._simulations:
                continue
            try:
                lines.append(f"{spec.name}: {self._simulation(spec).words}")
            except Exception as error:
                lines.append(f"{spec.name}: cannot be simulated: {error}")
        return lines + [f"injected: {fault.text}" for fault in self._injections]

    def returns(self, name: str, **answers: Any) -> None:
        """Set what a simulated device answers from now on, as ``returns:`` in the rig file does.

        Raises:
            RuntimeError: this is no dry run.
        """
        if not self.dry_run:
            raise RuntimeError("answers can be set in dry runs only")
        self[name]
        self._open[name].hooks.answers.override(answers)

    def calls(self, name: str) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        """Return what a simulated device was told so far: method, arguments, keywords."""
        self[name]
        return list(self._open[name].hooks.calls or ())

    def mock(self, name: str) -> Any:
        """Return the simulated device itself, without the wrapper that holds it to its driver."""
        self[name]
        return unwrap(self._open[name].device)

    def check(self, name: str) -> Any:
        """Open the device, let it prove within ``check_timeout_s`` that it answers, and return what it said.

        Raises:
            TimeoutError: it did not answer in time.
        """
        self[name]
        opened = self._open[name]
        return call_within(f"{name}.check", opened.check, opened.spec.check_timeout_s)

    def read_states(self, deadline_s: float = 5.0) -> dict[str, Any]:
        """Return ``read_state()`` of every open device; one that fails or hangs gives ``{"error": …}``. Never raises."""
        calls = {name: Guarded(f"{name}.read_state", opened.read_state) for name, opened in list(self._open.items())}
        deadline = time.monotonic() + min(deadline_s, _READ_STATE_S * max(1, len(calls)))
        states: dict[str, Any] = {}
        for name, call in calls.items():
            if not call.wait(max(0.0, deadline - time.monotonic())):
                states[name] = {"error": "read_state() did not return in time"}
            elif call.error is not None:
                states[name] = {"error": f"{type(call.error).__name__}: {call.error}"}
            else:
                states[name] = call.result
        return states

    def close(self, name: str) -> None:
        """Make one device safe and close it.

        Raises:
            Exception: what its driver raised; it counts as closed all the same.
        """
        opened = self._open.pop(name)
        try:
            call_within(f"{name}.safe_state", opened.make_safe, opened.spec.safe_state_timeout_s)
        finally:
            call_within(f"{name}.close", opened.disconnect, opened.spec.close_timeout_s)
        self._done(opened.spec)

    def close_all(self, deadline_s: float = 20.0) -> list[str]:
        """Make every open device safe, then close every one, each in reverse order of opening. Never raises.

        A device whose ``safe_state`` failed or is missing, or that may have been left half open, is made safe by its declared
        command. Called again after an interrupt, it goes on where it was.

        Returns:
            What went wrong, one text for each.
        """
        self._closed = True
        self._released.set()
        deadline = time.monotonic() + deadline_s
        problems: list[str] = []
        for opened in reversed(list(self._open.values())):
            if opened.needs_safety and not opened.is_safe:
                problem = self._end(opened, "safe_state", opened.make_safe, opened.spec.safe_state_timeout_s, deadline)
                problems += [problem] if problem else []
        for name in reversed(list(self._open)):
            opened = self._open.pop(name)
            if not opened.is_safe:
                self._unsure[name] = opened.spec
            problem = self._end(opened, "close", opened.disconnect, opened.spec.close_timeout_s, deadline)
            problems += [problem] if problem else []
            if opened.is_safe:
                self._done(opened.spec)
        for name in list(self._unsure):
            problem = self._run_safe_command(self._unsure.pop(name), deadline)
            problems += [problem] if problem else []
        for simulation in self._simulations.values():
            for helper in simulation.cleanup:
                helper.close()
        self._loop.close()
        return problems

    def _simulation(self, spec: DeviceSpec) -> Simulation:
        if spec.name not in self._simulations:
            self._simulations[spec.name] = choose(spec, self.rig_dir)
        return self._simulations[spec.name]

    def _try_open(self, spec: DeviceSpec) -> DeviceFailure | None:
        """Open one device; the event that promises its safe state goes out before it is touched."""
        if self._closed:
            return DeviceFailure(spec.name, spec.driver, RuntimeError("the session's devices are closed already"), "")
        if spec.safe_state_command and not self.dry_run:
            fields = {
                "command": list(spec.safe_state_command),
                "cwd": str(self.rig_dir),
                "timeout_s": spec.safe_state_timeout_s,
            }
            self._event("safe_state", device=spec.name, **fields)
            self._unsure[spec.name] = spec
        started = time.monotonic()
        try:
            if spec.open_in_main_thread:
                opened = self._make(spec)
            else:
                opened = call_within(f"{spec.name}.open", lambda: self._make(spec), spec.open_timeout_s, self._too_late)
        except Exception as error:
            self._log.error("%s did not open: %s: %s", spec.name, type(error).__name__, error)
            return DeviceFailure(spec.name, spec.driver, error, _remedy(error, spec))
        self._unsure.pop(spec.name, None)
        self._open[spec.name] = opened
        how = f" ({self._simulations[spec.name].words})" if self.dry_run else ""
        self._log.info("%s opened in %.0f ms%s", spec.name, (time.monotonic() - started) * 1000, how)
        return None

    def _make(self, spec: DeviceSpec) -> OpenDevice:
        if self.dry_run:
            simulation = self._simulation(spec)
            faults = tuple(fault for fault in self._injections if fault.hits(spec.name, "*") or _aims_at(fault, spec.name))
            hooks = build_hooks(
                spec,
                self._log,
                released=self._released,
                answers=Answers(spec.returns),
                faults=faults,
                contract=simulation.contract,
                calls=[],
            )
            made = self._loop.run(simulation.build) if simulation.connect_mock else simulation.build()
            hooks.calls = None if simulation.connect_mock else hooks.calls
            opened = OpenDevice(spec, made, hooks, self._call, simulation.cleanup, simulation.connect_mock)
        else:
            driver = load(spec.driver, self.rig_dir)
            params = dict(spec.params)
            made = self._loop.run(driver, **params) if connects_in_mock_mode(driver) else driver(**params)
            made_open = not isinstance(driver, type) and not hasattr(type(made), "__enter__")
            made_open = made_open or (not isinstance(driver, type) and callable(getattr(made, "close", None)))
            hooks = build_hooks(spec, self._log, released=self._released)
            opened = OpenDevice(spec, made, hooks, self._call, is_made_open=made_open)
        try:
            opened.connect()
        except BaseException:
            self._close_failed(opened)
            raise
        if hooks.log_io:
            tap(opened.target, hooks.log)
        return opened

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a driver's method; coroutines run on the loop, plain methods in the calling thread."""
        if inspect.iscoroutinefunction(function) or getattr(function, "__module__", "").startswith("ophyd_async"):
            return self._loop.run(function, *args, **kwargs)
        result = function(*args, **kwargs)
        return self._loop.run(lambda: result) if inspect.isawaitable(result) else result

    def _close_failed(self, opened: OpenDevice) -> None:
        try:
            opened.disconnect()
        except Exception as error:
            self._log.debug("closing %s after its open failed: %s: %s", opened.spec.name, type(error).__name__, error)

    def _too_late(self, opened: OpenDevice) -> None:
        """A device that opened after its time was up is of no use to anybody: make it safe and close it."""
        self._log.warning("%s opened after its time was up; it is made safe and closed", opened.spec.name)
        for action in (opened.make_safe, opened.disconnect):
            try:
                action()
            except Exception:
                self._log.exception("%s, which opened too late, could not be put away", opened.spec.name)

    def _end(self, opened: OpenDevice, what: str, action: Callable[[], Any], timeout_s: float, deadline: float) -> str:
        name = opened.spec.name
        try:
            # Even past the deadline a device gets a moment: most are safe within milliseconds.
            call_within(f"{name}.{what}", action, max(0.25, min(timeout_s, deadline - time.monotonic())))
        except Exception as error:
            self._log.error("%s of %s failed: %s: %s", what, name, type(error).__name__, error, exc_info=error)
            return f"{what} of {name} failed: {type(error).__name__}: {error}"
        return ""

    def _run_safe_command(self, spec: DeviceSpec, deadline: float) -> str:
        if not spec.safe_state_command or self.dry_run:
            return ""
        timeout_s = max(1.0, min(spec.safe_state_timeout_s, deadline - time.monotonic()))
        try:
            done = subprocess.run(
                spec.safe_state_command, cwd=self.rig_dir, timeout=timeout_s, capture_output=True, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"safe-state command of {spec.name} failed: {error}"
        if done.returncode:
            output = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-500:]
            return f"safe-state command of {spec.name} failed with exit code {done.returncode}: {output}"
        self._log.warning("%s was made safe by its command: %s", spec.name, " ".join(spec.safe_state_command))
        self._done(spec)
        return ""

    def _done(self, spec: DeviceSpec) -> None:
        if spec.safe_state_command and not self.dry_run:
            self._event("safe_state_done", device=spec.name)

    def _event(self, event: str, **fields: Any) -> None:
        if self._on_event is not None:
            self._on_event(event, **fields)


def _aims_at(fault: Fault, device: str) -> bool:
    import fnmatch

    return fnmatch.fnmatchcase(device, fault.target)


def _remedy(error: BaseException, spec: DeviceSpec) -> str:
    given = getattr(error, "remedy", "")
    if given:
        return str(given)
    if isinstance(error, LoadError):
        return ""
    text = f"{type(error).__name__} {error}"
    port = str(spec.params.get("port", "")) if spec.params else ""
    if isinstance(error, PermissionError) or "Access is denied" in text or "PermissionError" in text or "Resource busy" in text:
        return "another program holds it: close it (Bonsai, a serial monitor, an earlier session) and try again"
    if port and ("could not open port" in text or isinstance(error, FileNotFoundError)):
        return f"is it plugged in and switched on? ports here: {_ports() or 'none'}"
    if isinstance(error, TimeoutError):
        return "is it switched on and connected? a slower device needs a longer open_timeout_s"
    if isinstance(error, ConnectionError):
        return "is it switched on, on the network, and its program running?"
    return ""


def _ports() -> str:
    try:
        from serial.tools import list_ports
    except ImportError:
        return ""
    return ", ".join(port.device for port in list_ports.comports())
