"""One device from its construction to its end, opened, checked, described, made safe and closed as its driver offers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .driver_registry import LIFECYCLE
from .event_loop import EventLoopThread
from .proxy import Hooks, shown, wrap
from .simulate import Simulation, connects_in_mock_mode
from .spec import DeviceSpec


@dataclass
class OpenDevice:
    """A device between its construction and its end.

    Its methods are those of :class:`.driver_registry.Driver`, whatever its driver has.

    ``is_harmless``: neither rig file nor driver knows how to make it safe, so that nothing can have failed.
    """

    spec: DeviceSpec
    target: Any
    hooks: Hooks
    loop: EventLoopThread
    simulation: Simulation | None = None
    is_made_open: bool = False
    entered: bool = False
    is_safe: bool = False
    is_harmless: bool = field(init=False)
    is_closed: bool = False
    device: Any = field(init=False)

    def __post_init__(self) -> None:
        self.is_harmless = not self.needs_safety
        self.device = wrap(self.target, self.hooks) if self.hooks.are_needed() else self.target

    def open(self) -> None:
        """Open it by whichever way its driver offers."""
        self._strike_or_answer("open")
        target, named = self.target, self.spec.open_method
        if self.is_made_open or named == "none":
            return
        if named or _method(target, "open"):
            self.loop.call(getattr(target, named or "open"))
        elif connects_in_mock_mode(type(target)):
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
        if not connects_in_mock_mode(type(self.target)):
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


def _method(target: Any, name: str) -> Any:
    """Return a method that the driver really defines: proxies of remote objects would make one up for any name."""
    if not hasattr(type(target), name) and name not in getattr(target, "__dict__", {}):
        return None
    method = getattr(target, name)
    return method if callable(method) else None


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
