"""The devices of a session: opened late, made safe and closed in every ending, able to describe themselves."""

from __future__ import annotations

import logging
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..system import BoundedCall, Latch, Watch
from .answers import Answers
from .driver_registry import did_you_mean, load
from .event_loop import EventLoopThread
from .failures import DeviceFailure, DevicesFailed
from .faults import Fault
from .opening import OpenDevice
from .proxy import Hooks, tap, unwrap
from .simulate import Simulation, choose, connects_in_mock_mode
from .spec import DeviceSpec

#: For all devices together, which are read side by side: until then none is made safe.
_READ_STATES_S = 2.0
#: What a call gets that begins after the deadline of all: most devices are safe within milliseconds.
_MOMENT_S = 0.25
_COMMAND = "safe-state command"


class Devices(Mapping[str, Any]):
    """Mapping of names to opened devices; a device is opened when it is first asked for.

    Args:
        specs: from :func:`spec.build_specs`, in the order of the rig file.
        rig_dir: directory of the rig file.
        dry_run: simulate every device.
        injections: faults; only in dry runs.
        on_event: called with an event's name and fields, for the journal: ``safe_state`` before a device with a command is
            touched, ``safe_state_done`` when it is safe. A sidecar that finds the first without the second runs the command.
        on_open: called with the names of devices that have just been opened.
        log: parent of the devices' loggers.
        watch: gets the limit of each call that opens, checks, makes safe or closes a device.

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
        on_open: Callable[[Sequence[str]], None] | None = None,
        log: logging.Logger | None = None,
        watch: Watch | None = None,
    ) -> None:
        if injections and not dry_run:
            raise ValueError("faults are injected into dry runs only")
        self.specs = dict(specs)
        self.rig_dir, self.dry_run = rig_dir, dry_run
        self._injections = tuple(injections)
        self._log = log or logging.getLogger("pytest_openscope.devices")
        self._on_event = on_event or (lambda event, **fields: None)
        #: Devices that wait for their command, and those that nothing made safe; each with what has failed.
        self._waiting: dict[str, str] = {}
        self._unsafe: dict[str, str] = {}
        self._loop = EventLoopThread()
        self._released = Latch()
        self._lock = threading.RLock()
        self._open: dict[str, OpenDevice] = {}
        self._simulations: dict[str, Simulation] = {}
        self._closed = False
        self._on_open = on_open
        self._watch = watch

    def __getitem__(self, name: str) -> Any:
        """Return the device, opening it if need be.

        Raises:
            KeyError: the rig file has no such device.
            DevicesFailed: it did not open.
        """
        return self._opened(name).device

    def _opened(self, name: str) -> OpenDevice:
        with self._lock:
            if name not in self.specs:
                guess = did_you_mean(name, self.specs) or f"it has {', '.join(self.specs) or 'none'}"
                raise KeyError(f"the rig file has no device {name!r}; {guess}")
            if name not in self._open:
                self._open_these([self.specs[name]])
            return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def __repr__(self) -> str:
        return f"<Devices of {', '.join(self.specs) or 'no devices'}; open: {', '.join(self._open) or 'none'}>"

    def opened(self) -> list[str]:
        """Return the names of the open devices, in the order in which they were opened."""
        return list(self._open)

    def open_all(self, names: Sequence[str] | None = None) -> None:
        """Open the devices named, or all that are declared ``open: eager``, in the order of the rig file.

        Raises:
            DevicesFailed: lists every one that did not open; the others are open.
        """
        with self._lock:
            wanted = (spec for spec in self.specs.values() if (spec.open == "eager" if names is None else spec.name in names))
            self._open_these([spec for spec in wanted if spec.name not in self._open])

    def run(self, function: Callable[..., Any], *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
        """Call ``function`` on the devices' event loop and await its result: ``devices.run(stage.x.set, 5.0)``."""
        return self._loop.run(function, *args, timeout_s=timeout_s, **kwargs)

    def simulated(self) -> list[str]:
        """Return one line for each device that is, or would be, simulated, then one for each injected fault."""
        lines = [f"{name}: {words}" for name, words in self.stand_ins().items()]
        return lines + [f"injected: {fault.text}" for fault in self._injections]

    def never_struck(self) -> list[str]:
        """Return the injected faults that no call has met so far."""
        return [fault.text for fault in self._injections if not fault.struck.is_set()]

    def stand_ins(self) -> dict[str, str]:
        """Return in words what stands in for each device, by name; nothing outside of dry runs."""
        found: dict[str, str] = {}
        for spec in self.specs.values() if self.dry_run else ():
            if self._closed and spec.name not in self._simulations:
                continue
            try:
                found[spec.name] = self._simulation(spec).words
            except Exception as error:
                found[spec.name] = f"cannot be simulated: {error}"
        return found

    def returns(self, name: str, **answers: Any) -> None:
        """Set what a simulated device answers from now on, as ``returns:`` in the rig file does.

        Raises:
            RuntimeError: this is no dry run.
            AttributeError: the driver has no method or attribute of that name.
        """
        if not self.dry_run:
            raise RuntimeError("answers can be set in dry runs only")
        opened = self._opened(name)
        opened.require(answers)
        opened.hooks.answers.override(answers)

    def calls(self, name: str) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        """Return what a simulated device was told so far: method, arguments, keywords."""
        return list(self._opened(name).hooks.calls or ())

    def mock(self, name: str) -> Any:
        """Return the simulated device itself, without the wrapper that holds it to its driver."""
        return unwrap(self[name])

    def check(self, name: str) -> Any:
        """Open the device, let it prove within ``check_timeout_s`` that it answers, and return what it said.

        Raises:
            TimeoutError: it did not answer in time.
        """
        return self._call(self._opened(name), "check").result_in_time()

    def read_states(self, deadline_s: float = _READ_STATES_S, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Return ``read_state()`` of the open devices, or those named; a failed one gives ``{"error": …}``. Never raises."""
        asked = {name: opened for name, opened in list(self._open.items()) if names is None or name in names}
        calls = {name: BoundedCall(f"{name}.read_state", opened.read_state, deadline_s) for name, opened in asked.items()}
        deadline = time.monotonic() + deadline_s
        for call in calls.values():
            call.start()
        for call in calls.values():
            call.wait(deadline - time.monotonic())
        return {
            name: call.result if call.error is None else {"error": f"{type(call.error).__name__}: {call.error}"}
            for name, call in calls.items()
        }

    @property
    def unsafe(self) -> list[str]:
        """After :meth:`close_all` one text for each device that neither its driver nor its command made safe."""
        return [f"{name} may not be safe: its {failed} failed" for name, failed in self._unsafe.items()]

    def close(self, name: str) -> None:
        """Make one device safe and close it; where its driver cannot make it safe, its command will at the session's end.

        Raises:
            Exception: what its driver raised; it counts as closed all the same, and without a command as unsafe.
        """
        opened = self._open.pop(name)
        try:
            self._call(opened, "safe_state").result_in_time()
        finally:
            self._simulations.pop(name, None)
            try:
                self._call(opened, "close").result_in_time()
            finally:
                self._settle(opened)

    def close_all(self, deadline_s: float = 20.0) -> list[str]:
        """Make every open device safe, then close every one, each in reverse order of opening. Never raises.

        A device whose ``safe_state`` failed or is missing, or that may have been left half open, is made safe by its declared
        command. Called again after an interrupt, it goes on where it was.

        Returns:
            What went wrong, one text for each.
        """
        self._closed = True
        self._released.open()
        deadline = time.monotonic() + deadline_s
        last_first = list(reversed(self._open.values()))
        problems = self._end([one for one in last_first if one.needs_safety and not one.is_safe], "safe_state", deadline)
        problems += self._end(last_first, "close", deadline)
        for opened in last_first:
            self._open.pop(opened.spec.name, None)
            self._settle(opened)
        problems += self._run_commands(deadline)
        for simulation in self._simulations.values():
            simulation.close()
        self._loop.close()
        return problems

    def _open_these(self, specs: Sequence[DeviceSpec]) -> None:
        """Open devices one after the other; those that follow one that does not open are opened all the same.

        Raises:
            DevicesFailed: lists every one that did not open.
        """
        failures = []
        for spec in specs:
            call = self._opening(spec)
            if spec.open_in_main_thread:
                call.make()
            else:
                call.run()
            if isinstance(call.error, Exception):
                self._log.error("%s did not open: %s: %s", spec.name, type(call.error).__name__, call.error)
                failures.append(DeviceFailure(spec, call.error))
            elif call.error is not None:
                raise call.error  # An interrupt: those after it stay closed.
        opened = [spec.name for spec in specs if spec.name in self._open]
        if opened and self._on_open is not None:
            self._on_open(opened)
        if failures:
            raise DevicesFailed(failures) from failures[0].error

    def _opening(self, spec: DeviceSpec) -> BoundedCall:
        """Return the call that opens a device; what promises its safe state goes out before it is touched."""
        started = 0.0

        def make() -> OpenDevice:
            nonlocal started
            if self._closed:
                raise RuntimeError("the session's devices are closed already")
            if self._has_command(spec):
                command, timeout_s = spec.command_line(self.rig_dir), spec.safe_state_timeout_s
                self._on_event("safe_state", device=spec.name, command=command, cwd=str(self.rig_dir), timeout_s=timeout_s)
                self._waiting[spec.name] = _COMMAND
            started = time.monotonic()
            return self._make(spec)

        def keep(opened: OpenDevice) -> None:
            self._open[spec.name] = opened
            # The driver has it in hand and will make it safe.
            self._waiting.pop(spec.name, None)
            self._unsafe.pop(spec.name, None)
            how = f" ({self._simulations[spec.name].words})" if self.dry_run else ""
            self._log.info("%s opened in %.0f ms%s", spec.name, (time.monotonic() - started) * 1000, how)

        return BoundedCall(f"{spec.name}.open", make, spec.open_timeout_s, kept=keep, late=self._put_away, watch=self._watch)

    def _simulation(self, spec: DeviceSpec) -> Simulation:
        """Return what stands in for a device; chosen once."""
        if spec.name not in self._simulations:
            self._simulations[spec.name] = choose(spec, self.rig_dir)
        return self._simulations[spec.name]

    def _make(self, spec: DeviceSpec) -> OpenDevice:
        """Construct a device and open it; one that fails is closed again.

        Raises:
            Exception: what driver or mock raised.
        """
        log, limit_s = self._log.getChild(spec.name), spec.call_timeout_s
        hooks = Hooks(spec.name, log, self._released, log_io=spec.log_io, call_timeout_s=limit_s, watch=self._watch)
        opened = self._simulated(spec, hooks) if self.dry_run else self._real(spec, hooks)
        try:
            opened.open()
        except BaseException:
            # What simulated it is closed with it; the next try needs another one.
            self._simulations.pop(spec.name, None)
            try:
                opened.close()
            except Exception as error:
                self._log.debug("closing %s after its open failed: %s: %s", spec.name, type(error).__name__, error)
            raise
        if hooks.log_io:
            tap(opened.target, hooks.log)
        return opened

    def _real(self, spec: DeviceSpec, hooks: Hooks) -> OpenDevice:
        driver = load(spec.driver, self.rig_dir)
        made = self._loop.run(driver, **spec.params) if connects_in_mock_mode(driver) else driver(**spec.params)
        # What a function returns is open, unless it is a context manager and nothing else.
        has_close = callable(getattr(made, "close", None))
        made_open = not isinstance(driver, type) and (has_close or not hasattr(type(made), "__enter__"))
        return OpenDevice(spec, made, hooks, self._loop, is_made_open=made_open)

    def _simulated(self, spec: DeviceSpec, hooks: Hooks) -> OpenDevice:
        simulation = self._simulation(spec)
        hooks.answers, hooks.contract = Answers(spec.returns), simulation.contract
        hooks.faults = tuple(fault for fault in self._injections if fault.aims_at(spec.name))
        # ophyd-async's own methods go unwrapped: it looks into its devices.
        hooks.calls = None if simulation.connect_mock else []
        made = self._loop.run(simulation.build) if simulation.connect_mock else simulation.build()
        return OpenDevice(spec, made, hooks, self._loop, simulation)

    def _put_away(self, opened: OpenDevice) -> None:
        """A device that opened after its time was up is of no use to anybody: make it safe and close it."""
        self._log.warning("%s opened after its time was up; it is made safe and closed", opened.spec.name)
        for action in (opened.safe_state, opened.close):
            try:
                action()
            except Exception:
                self._log.exception("%s, which opened too late, could not be put away", opened.spec.name)

    def _has_command(self, spec: DeviceSpec) -> bool:
        return bool(spec.safe_state_command) and not self.dry_run

    def _settle(self, opened: OpenDevice) -> None:
        """Note of a device that is closed whether it is safe, waits for its command, or has nothing that makes it safe."""
        spec, failed = opened.spec, _COMMAND if opened.is_harmless else "safe_state"
        if self._has_command(spec):
            if opened.is_safe:
                self._on_event("safe_state_done", device=spec.name)
            else:
                self._waiting[spec.name] = failed
        elif not (opened.is_safe or opened.is_harmless):
            self._unsafe[spec.name] = failed

    def _run_commands(self, deadline: float) -> list[str]:
        """Run the command of every device that waits for it, each once and for a second at least; return what went wrong."""
        problems = []
        for name in list(self._waiting):
            failed = self._waiting.pop(name)
            if problem := self._run_command(self.specs[name], deadline):
                problems.append(f"safe-state command of {name} failed{problem}")
                self._unsafe[name] = failed
            else:
                self._on_event("safe_state_done", device=name)
        return problems

    def _run_command(self, spec: DeviceSpec, deadline: float) -> str:
        command = spec.command_line(self.rig_dir)
        timeout_s = max(1.0, min(spec.safe_state_timeout_s, deadline - time.monotonic()))
        try:
            # A file, no pipe: what the command leaves running would hold a pipe, and be waited for; on Windows without end.
            with tempfile.TemporaryFile() as output:
                done = subprocess.run(command, cwd=self.rig_dir, timeout=timeout_s, stdout=output, stderr=output, check=False)
                output.seek(0)
                printed = output.read().decode("utf-8", "replace").strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            return f": {error}"
        if done.returncode:
            return f" with exit code {done.returncode}: {printed[-500:]}"
        self._log.warning("%s was made safe by its command: %s", spec.name, " ".join(command))
        return ""

    def _end(self, opened: Sequence[OpenDevice], what: str, deadline: float) -> list[str]:
        """Do one thing with each device, in this order, and return what went wrong."""
        problems = []
        for one in opened:
            call = self._call(one, what, deadline)
            call.run()
            if call.error is not None:
                text = f"{what} of {one.spec.name} failed: {type(call.error).__name__}: {call.error}"
                self._log.error("%s", text, exc_info=call.error)
                problems.append(text)
        return problems

    def _call(self, opened: OpenDevice, what: str, deadline: float | None = None) -> BoundedCall:
        """Return the call of one of a driver's own methods (``check``, ``safe_state``, ``close``) within the device's time."""
        limit_s = getattr(opened.spec, f"{what}_timeout_s")
        if deadline is not None:
            limit_s = max(_MOMENT_S, min(limit_s, deadline - time.monotonic()))
        return BoundedCall(f"{opened.spec.name}.{what}", getattr(opened, what), limit_s, watch=self._watch)
