"""What is logged of a device, and its see-through wrapper: it injects faults, gives set answers, holds a mock to its driver.

Only devices that need one of these are wrapped. A wrapper and not methods set on the instance, since drivers with slots, C
types and ophyd-async devices refuse those.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..system import Latch, Watch, watched
from .answers import Answers
from .faults import Fault
from .surface import SPECIAL, Surface

_SHOWN_CHARACTERS = 200
#: Methods of the libraries that drivers use inside, by what they do.
_TAPPED = {
    "told": "write write_raw write_ascii_values write_binary_values send sendall send_string send_json send_multipart",
    "answered": "read read_raw read_until readline recv recv_string recv_json recv_multipart",
}
_LOGGED_LIBRARIES = ("serial", "pyvisa", "socket", "zmq")


@dataclass
class Hooks:
    """What happens around the calls of one device.

    Attributes:
        contract: the driver's surface, when the device is a mock of another class that must not know more than its driver.
        released: set when the devices are closed, so that injected hangs let go.
        calls: names, arguments of the calls so far; only simulated devices keep them.
        call_timeout_s, watch: how long a call may take, and what ends it.
    """

    name: str
    log: logging.Logger
    released: Latch
    answers: Answers = field(default_factory=lambda: Answers({}))
    faults: tuple[Fault, ...] = ()
    contract: Surface | None = None
    log_io: bool = False
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] | None = None
    call_timeout_s: float | None = None
    watch: Watch | None = None

    def are_needed(self) -> bool:
        """Tell whether anything happens around the device's calls."""
        watched = self.call_timeout_s is not None or self.calls is not None
        return bool(self.answers or self.faults or self.contract or self.log_io or watched)

    def strike(self, method: str) -> None:
        """Let the faults that lie on ``method`` happen."""
        for fault in self.faults:
            if fault.hits(self.name, method):
                fault.strike(self.released, self.log)

    def call(self, method: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``function`` as the device's ``method``."""
        if self.contract is not None:
            self.contract.bind(method, args, kwargs)
        if self.calls is not None:
            self.calls.append((method, args, kwargs))
        if not self.log_io:
            return self._result(method, function, args, kwargs)
        call = f"{method}({', '.join([*map(shown, args), *(f'{key}={shown(value)}' for key, value in kwargs.items())])})"
        started = time.monotonic()
        try:
            result = self._result(method, function, args, kwargs)
        except BaseException as error:
            self.log.info("%s raised %s: %s", call, type(error).__name__, error)
            raise
        self.log.info("%s -> %s (%.1f ms)", call, shown(result), (time.monotonic() - started) * 1000)
        return self._logged(call, result) if inspect.iscoroutine(result) else result

    def _result(self, method: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        watch = None if self.call_timeout_s is None else self.watch
        with watched(watch, f"{self.name}.{method}", self.call_timeout_s or 0.0):
            self.strike(method)
            return self.answers.answer(method) if method in self.answers else function(*args, **kwargs)

    async def _logged(self, call: str, coroutine: Any) -> Any:
        result = await coroutine
        self.log.info("%s gave %s", call, shown(result))
        return result


class DeviceProxy:
    """Stands for the device everywhere; ``isinstance`` and attribute access see the device itself."""

    __slots__ = ("_openscope_hooks", "_openscope_target")

    def __init__(self, target: Any, hooks: Hooks) -> None:
        object.__setattr__(self, "_openscope_target", target)
        object.__setattr__(self, "_openscope_hooks", hooks)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return object.__getattribute__(self, "_openscope_target").__class__  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        target, hooks = self._openscope_target, self._openscope_hooks
        if hooks.contract is not None and not name.startswith("_"):
            hooks.contract.require(name)
        try:
            value = getattr(target, name)
        except AttributeError:
            if name not in hooks.answers:
                raise
            return hooks.answers.answer(name)
        if name.startswith("__"):
            return value
        if callable(value) and not isinstance(value, type):
            return _bound(hooks, name, value)
        if name in hooks.answers:
            return hooks.answers.answer(name)
        if hooks.log_io and not name.startswith("_"):
            hooks.log.info("%s is %s", name, shown(value))
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        hooks = self._openscope_hooks
        if hooks.log_io:
            hooks.log.info("%s = %s", name, shown(value))
        if hooks.contract is not None:
            hooks.contract.require_settable(name)
        setattr(self._openscope_target, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._openscope_target, name)

    def __dir__(self) -> list[str]:
        return dir(self._openscope_target)

    def __repr__(self) -> str:
        return repr(self._openscope_target)

    def __eq__(self, other: object) -> bool:
        return bool(self._openscope_target == unwrap(other))

    def __hash__(self) -> int:
        return hash(self._openscope_target)

    def __enter__(self) -> Any:
        result = self._openscope_hooks.call("__enter__", self._openscope_target.__enter__, (), {})
        return self if result is self._openscope_target else result


def wrap(target: Any, hooks: Hooks) -> Any:
    """Wrap a device; special methods are forwarded where its type has them."""
    kind = type(target)
    namespace: dict[str, Any] = {"__slots__": ()}
    defined = {name for base in kind.__mro__[:-1] for name in vars(base)}
    for name in SPECIAL:
        if name in defined and getattr(kind, name) is not None:
            namespace[name] = _forward(name)
    return type("DeviceProxy", (DeviceProxy,), namespace)(target, hooks)


def unwrap(device: Any) -> Any:
    """Return the device behind a wrapper, or what was given."""
    if issubclass(type(device), DeviceProxy):
        return object.__getattribute__(device, "_openscope_target")
    return device


def _forward(name: str) -> Any:
    def method(self: DeviceProxy, *args: Any, **kwargs: Any) -> Any:
        return self._openscope_hooks.call(name, getattr(self._openscope_target, name), args, kwargs)

    return method


def _bound(hooks: Hooks, name: str, function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return hooks.call(name, function, args, kwargs)

    return call


def shown(value: Any) -> str:
    """Return a value for the log: large arrays by their shape, long texts cut."""
    shape = getattr(value, "shape", None)
    if shape and hasattr(value, "dtype"):
        return f"<{type(value).__name__} {shape} {value.dtype}>"
    try:
        text = repr(value)
    except Exception as error:
        return f"<{type(value).__name__} without repr: {error}>"
    if len(text) > _SHOWN_CHARACTERS:
        return f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"
    return text


def tap(device: Any, log: logging.Logger) -> None:
    """Log what passes through the serial ports, VISA resources and sockets that a driver keeps as attributes.

    Objects that take no new attributes (C types) are left alone.
    """
    for transport in list(getattr(device, "__dict__", {}).values()):
        if type(transport).__module__.partition(".")[0] in _LOGGED_LIBRARIES:
            inside: set[int] = set()
            for method, word in [(method, word) for word, methods in _TAPPED.items() for method in methods.split()]:
                original = getattr(transport, method, None)
                if callable(original):
                    with suppress(AttributeError, TypeError):
                        setattr(transport, method, _logging(original, word, log, inside))


def _logging(original: Any, word: str, log: logging.Logger, inside: set[int]) -> Any:
    """Libraries call their own methods (``read_until`` calls ``read``): only the outermost in a thread is worth a record."""

    def call(*args: Any, **kwargs: Any) -> Any:
        thread = threading.get_ident()
        if thread in inside:
            return original(*args, **kwargs)
        inside.add(thread)
        try:
            result = original(*args, **kwargs)
        finally:
            inside.discard(thread)
        log.info("%s %s", word, shown(args[0] if word == "told" and args else result))
        return result

    return call
