"""Opening one device: construct it, or its simulation, connect it, wrap it; and every way to end it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .autospec import Simulated
from .protocol import LIFECYCLE
from .proxy import Hooks, shown, wrap
from .spec import DeviceSpec

#: Runs a function, awaiting what it returns, on the devices' event loop.
Runner = Callable[..., Any]


@dataclass
class OpenDevice:
    """A device between its construction and its end.

    ``is_harmless`` is set once it was to be made safe, and neither rig file nor driver knew how: nothing failed.
    """

    spec: DeviceSpec
    target: Any
    hooks: Hooks
    run: Runner
    cleanup: tuple[Any, ...] = ()
    connect_mock: bool = False
    is_made_open: bool = False
    entered: bool = False
    is_safe: bool = False
    is_harmless: bool = False
    is_closed: bool = False
    device: Any = field(init=False)

    def __post_init__(self) -> None:
        hooks = self.hooks
        needs = hooks.answers or hooks.faults or hooks.contract or hooks.calls is not None or hooks.call_timeout_s
        own_log = _set_listener(self.target, hooks) if hooks.log_io else False
        self.device = wrap(self.target, hooks) if needs or (hooks.log_io and not own_log) else self.target
        if own_log:
            hooks.log_io = False

    def connect(self) -> None:
        """Open it by whichever way its driver offers."""
        self.hooks.strike("open")
        if "open" in self.hooks.answers:
            self.hooks.answers.answer("open")
        target, named = self.target, self.spec.open_method
        if self.is_made_open or named == "none":
            return
        if named or _method(target, "open"):
            self.run(getattr(target, named or "open"))
        elif _is_async_connect(target):
            if getattr(target, "name", None) == "":
                target.set_name(self.spec.name)
            self.run(target.connect, mock=self.connect_mock, timeout=self.spec.open_timeout_s)
        elif hasattr(type(target), "__enter__"):
            entered = target.__enter__()
            self.entered = True
            if entered is not None and entered is not target:
                self.device = wrap(entered, self.hooks) if self.device is not target else entered
        elif hasattr(type(target), "__aenter__"):
            self.run(target.__aenter__)
            self.entered = True

    @property
    def needs_safety(self) -> bool:
        """True where there is something to do before it is closed."""
        return bool(self.spec.safe_state or self.hooks.faults) or _method(self.target, "safe_state") is not None

    def make_safe(self) -> bool:
        """Bring it into its safe state; False when neither rig file nor driver says how."""
        self.hooks.strike("safe_state")
        if self.spec.safe_state:
            for call in self.spec.safe_state:
                self.run(getattr(self.device, call.call), *call.args, **call.kwargs)
            self.is_safe = True
            return True
        method = _method(self.target, "safe_state")
        if method is None:
            self.is_harmless = True
            return False
        self.run(method)
        self.is_safe = True
        return True

    def disconnect(self) -> None:
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
                leave = getattr(target, "__exit__", None)
                self.run(leave or target.__aexit__, None, None, None)
            else:
                method = getattr(target, named) if named else _method(target, "close") or _method(target, "disconnect")
                if method is not None:
                    self.run(method)
        finally:
            for helper in self.cleanup:
                helper.close()

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
        self.hooks.strike("check")
        if "check" in self.hooks.answers:
            answer = self.hooks.answers.answer("check")
        else:
            method = _method(self.target, "check")
            answer = self.run(method) if method is not None else None
        if answer is False:
            raise RuntimeError("check() returned False")
        return answer

    def read_state(self) -> Any:
        """Describe it, JSON-safe."""
        self.hooks.strike("read_state")
        if "read_state" in self.hooks.answers:
            return json_safe(self.hooks.answers.answer("read_state"))
        method = _method(self.target, "read_state")
        if method is not None:
            return json_safe(self.run(method))
        if _is_async_connect(self.target):
            readings: dict[str, Any] = {}
            for name in ("read", "read_configuration"):
                if callable(getattr(self.target, name, None)):
                    readings.update(self.run(getattr(self.target, name)))
            return json_safe({key: reading["value"] for key, reading in readings.items()})
        return {"type": type(self.target).__name__}


def build_hooks(spec: DeviceSpec, log: logging.Logger, **more: Any) -> Hooks:
    """Return the hooks of one device with its own logger."""
    return Hooks(spec.name, log.getChild(spec.name), log_io=spec.log_io, call_timeout_s=spec.call_timeout_s, **more)


def _set_listener(target: Any, hooks: Hooks) -> bool:
    """Give a ready-made driver the log for its traffic; False for other drivers."""
    if "on_io" not in getattr(target, "__dict__", {}):
        return False

    def listen(direction: str, content: object) -> None:
        hooks.log.info("%s %s", direction, shown(content))

    target.on_io = listen
    return True


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
