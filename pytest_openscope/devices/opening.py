"""One device from its entry in the rig file to its end: its driver, or in a dry run what simulates it, opened and closed."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .answers import Answers
from .autospec import Simulated
from .calls import Watch
from .driver import LIFECYCLE, load
from .event_loop import EventLoopThread
from .faults import Fault
from .proxy import Hooks, shown, tap, wrap
from .simulate import Simulation, choose, connects_in_mock_mode
from .spec import DeviceSpec


@dataclass
class OpenDevice:
    """A device between its construction and its end; its methods are those of :class:`.driver.Driver`, whatever its driver has.

    ``is_harmless`` is set once it was to be made safe, and neither rig file nor driver knew how: nothing failed.
    """

    spec: DeviceSpec
    target: Any
    hooks: Hooks
    loop: EventLoopThread
    simulation: Simulation | None = None
    is_made_open: bool = False
    entered: bool = False
    is_safe: bool = False
    is_harmless: bool = False
    is_closed: bool = False
    device: Any = field(init=False)

    def __post_init__(self) -> None:
        hooks = self.hooks
        if hooks.log_io and "on_io" in getattr(self.target, "__dict__", {}):
            # A ready-made driver tells its traffic itself.
            self.target.on_io = lambda direction, content: hooks.log.info("%s %s", direction, shown(content))
            hooks.log_io = False
        self.device = wrap(self.target, hooks) if hooks.are_needed() else self.target

    def open(self) -> None:
        """Open it by whichever way its driver offers."""
        self._strike_or_answer("open")
        target, named = self.target, self.spec.open_method
        if self.is_made_open or named == "none":
            return
        if named or _method(target, "open"):
            self.loop.call(getattr(target, named or "open"))
        elif _is_async_connect(target):
            if getattr(target, "name", None) == "":
                target.set_name(self.spec.name)
            mock = self.simulation is not None and self.simulation.connect_mock
            self.loop.call(target.connect, mock=mock, timeout=self.spec.open_timeout_s)
        elif hasattr(type(target), "__enter__"):
            entered = target.__enter__()
            self.entered = True
            if entered is not None and entered is not target:
                self.device = wrap(entered, self.hooks) if self.device is not target else entered
        elif hasattr(type(target), "__aenter__"):
            self.loop.call(target.__aenter__)
            self.entered = True

    @property
    def needs_safety(self) -> bool:
        """True where there is something to do before it is closed."""
        return bool(self.spec.safe_state or self.hooks.faults) or _method(self.target, "safe_state") is not None

    def safe_state(self) -> None:
        """Bring it into its safe state, if rig file or driver says how."""
        self.hooks.strike("safe_state")
        method = _method(self.target, "safe_state")
        if self.spec.safe_state:
            for call in self.spec.safe_state:
                self.loop.call(getattr(self.device, call.call), *call.args, **call.kwargs)
        elif method is not None:
            self.loop.call(method)
        else:
            self.is_harmless = True
            return
        self.is_safe = True

    def close(self) -> None:
        """Close it by whichever way its driver offers, then what simulated it; once only, whatever comes of it."""
        if self.is_closed:
            return
        self.is_closed = True
        try:
            self.hooks.strike("close")
            target, named = self.target, self.spec.close_method
            if named == "none":
                return
            if self.entered:
                self.loop.call(getattr(target, "__exit__", None) or target.__aexit__, None, None, None)
                return
            method = getattr(target, named) if named else _method(target, "close") or _method(target, "disconnect")
            if method is not None:
                self.loop.call(method)
        finally:
            if self.simulation is not None:
                self.simulation.close()

    def require(self, names: Iterable[str]) -> None:
        """Hold names that the experiment gives against the driver.

        Raises:
            AttributeError: it has no such method or attribute.
        """
        for name in names:
            if name in LIFECYCLE:
                continue
            if self.hooks.contract is not None:
                self.hooks.contract.require(name)
            else:
                getattr(self.target, name)

    def check(self) -> Any:
        """Let it prove that it answers.

        Raises:
            RuntimeError: its ``check`` returned False.
        """
        answered, answer = self._strike_or_answer("check")
        if not answered and (method := _method(self.target, "check")) is not None:
            answer = self.loop.call(method)
        if answer is False:
            raise RuntimeError("check() returned False")
        return answer

    def read_state(self) -> Any:
        """Describe it, JSON-safe."""
        answered, answer = self._strike_or_answer("read_state")
        if answered:
            return json_safe(answer)
        method = _method(self.target, "read_state")
        if method is not None:
            return json_safe(self.loop.call(method))
        if not _is_async_connect(self.target):
            return {"type": type(self.target).__name__}
        readings: dict[str, Any] = {}
        for name in ("read", "read_configuration"):
            if callable(getattr(self.target, name, None)):
                readings.update(self.loop.call(getattr(self.target, name)))
        return json_safe({key: reading["value"] for key, reading in readings.items()})

    def _strike_or_answer(self, method: str) -> tuple[bool, Any]:
        """Let injected faults happen; return whether an answer is set, and which."""
        self.hooks.strike(method)
        answered = method in self.hooks.answers
        return answered, self.hooks.answers.answer(method) if answered else None


class DeviceMaker:
    """Makes and opens single devices, in whatever thread it is called.

    Args:
        rig_dir: directory of the rig file.
        loop: where coroutines run.
        released: set when the devices are closed, so that injected hangs let go.
        injections: faults; None when this is no dry run.
        watch: gets the limit of each call of a device that has a ``call_timeout_s``.
    """

    def __init__(
        self,
        rig_dir: Path,
        loop: EventLoopThread,
        released: threading.Event,
        log: logging.Logger,
        injections: Sequence[Fault] | None,
        watch: Watch | None = None,
    ) -> None:
        self._rig_dir, self._loop, self._released, self._log = rig_dir, loop, released, log
        self._injections, self._watch = injections, watch
        self.simulations: dict[str, Simulation] = {}

    def simulation(self, spec: DeviceSpec) -> Simulation:
        """Return what stands in for a device; chosen once."""
        if spec.name not in self.simulations:
            self.simulations[spec.name] = choose(spec, self._rig_dir)
        return self.simulations[spec.name]

    def make(self, spec: DeviceSpec) -> OpenDevice:
        """Construct a device and open it; one that fails is closed again.

        Raises:
            Exception: what driver or mock raised.
        """
        hooks = Hooks(spec.name, self._log.getChild(spec.name), self._released, log_io=spec.log_io)
        hooks.call_timeout_s, hooks.watch = spec.call_timeout_s, self._watch
        opened = self._real(spec, hooks) if self._injections is None else self._simulated(spec, hooks, self._injections)
        try:
            opened.open()
        except BaseException:
            # What simulated it is closed with it; the next try needs another one.
            self.simulations.pop(spec.name, None)
            try:
                opened.close()
            except Exception as error:
                self._log.debug("closing %s after its open failed: %s: %s", spec.name, type(error).__name__, error)
            raise
        if hooks.log_io:
            tap(opened.target, hooks.log)
        return opened

    def _real(self, spec: DeviceSpec, hooks: Hooks) -> OpenDevice:
        driver = load(spec.driver, self._rig_dir)
        made = self._loop.run(driver, **spec.params) if connects_in_mock_mode(driver) else driver(**spec.params)
        # What a function returns is open, unless it is a context manager and nothing else.
        has_close = callable(getattr(made, "close", None))
        made_open = not isinstance(driver, type) and (has_close or not hasattr(type(made), "__enter__"))
        return OpenDevice(spec, made, hooks, self._loop, is_made_open=made_open)

    def _simulated(self, spec: DeviceSpec, hooks: Hooks, injections: Sequence[Fault]) -> OpenDevice:
        simulation = self.simulation(spec)
        hooks.answers = Answers(spec.returns)
        hooks.faults = tuple(fault for fault in injections if fault.aims_at(spec.name))
        hooks.contract = simulation.contract
        # ophyd-async's own methods go unwrapped: it looks into its devices.
        hooks.calls = None if simulation.connect_mock else []
        made = self._loop.run(simulation.build) if simulation.connect_mock else simulation.build()
        return OpenDevice(spec, made, hooks, self._loop, simulation)

    def put_away(self, opened: OpenDevice) -> None:
        """A device that opened after its time was up is of no use to anybody: make it safe and close it."""
        self._log.warning("%s opened after its time was up; it is made safe and closed", opened.spec.name)
        for action in (opened.safe_state, opened.close):
            try:
                action()
            except Exception:
                self._log.exception("%s, which opened too late, could not be put away", opened.spec.name)

    def close(self) -> None:
        """Close what simulated the devices."""
        for simulation in self.simulations.values():
            simulation.close()


def _method(target: Any, name: str) -> Any:
    """Return a method that the driver really defines: proxies of remote objects would make one up for any name."""
    if issubclass(type(target), Simulated):
        return getattr(target, name) if target._simulated_surface.has_method(name) else None
    if not hasattr(type(target), name) and name not in getattr(target, "__dict__", {}):
        return None
    method = getattr(target, name)
    return method if callable(method) else None


def _is_async_connect(target: Any) -> bool:
    kind = type(target)
    return inspect.iscoroutinefunction(getattr(kind, "connect", None)) and hasattr(kind, "set_name")


def json_safe(value: Any, depth: int = 0) -> Any:
    """Return plain JSON values: arrays shortened, other objects as text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth < 6 and isinstance(value, Mapping):
        return {str(key): json_safe(item, depth + 1) for key, item in value.items()}
    if depth < 6 and isinstance(value, (list, tuple, set, frozenset)):
        return [json_safe(item, depth + 1) for item in value]
    if hasattr(value, "tolist") and getattr(value, "size", 1000) <= 100:
        return value.tolist()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[:200]).decode("latin-1")
    return shown(value)
