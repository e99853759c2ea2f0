"""``returns:`` of the rig file or of a test: what a simulated device answers instead of its own idea.

A plain value answers every call. A list is a sequence: one item a call, the last one for good. A mapping with ``value``,
``raise`` or ``delay`` says more: ``{raise: "TimeoutError: no frame"}``, ``{value: 3, delay: 2s}``.
"""

from __future__ import annotations

import builtins
import pkgutil
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..system import parse_duration_s

_KEYS = {"value", "raise", "delay"}


def make_exception(text: str) -> Exception:
    """Build ``TimeoutError``, ``TimeoutError: no frame`` or ``my_lab.errors:ShutterStuck: jammed``.

    Raises:
        ValueError: there is no such exception class, or it cannot be made from one text.
    """
    name, _, message = text.partition(":")
    if message and not message.startswith(" ") and not hasattr(builtins, name.strip()):
        cls_name, _, rest = message.partition(":")
        name, message = f"{name}:{cls_name}", rest
    kind = _exception_class(name.strip())
    try:
        return kind(message.strip() or "injected by the dry run")
    except Exception as error:
        raise ValueError(f"{name.strip()} cannot be made from a text: {error}") from error


def _exception_class(name: str) -> type[Exception]:
    try:
        kind = pkgutil.resolve_name(name if {".", ":"} & {*name} else f"builtins:{name}")
    except (ImportError, AttributeError, ValueError):
        raise ValueError(f"there is no exception {name!r}; write a builtin one (TimeoutError) or module:Class") from None
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        raise ValueError(f"{name!r} is no exception class")
    return kind


class Answers:
    """The overridden answers of one device; thread-safe, and changeable while a test runs."""

    def __init__(self, returns: Mapping[str, Any]) -> None:
        self._returns = dict(returns)
        self._calls: dict[str, int] = {}
        self._lock = threading.Lock()

    def override(self, returns: Mapping[str, Any]) -> None:
        """Replace the answers of the methods or attributes named; their sequences start anew."""
        with self._lock:
            self._returns.update(returns)
            for name in returns:
                self._calls.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._returns

    def __bool__(self) -> bool:
        return bool(self._returns)

    def answer(self, name: str) -> Any:
        """Return (or raise, or wait and return) what is set for ``name``."""
        with self._lock:
            count = self._calls.get(name, 0)
            self._calls[name] = count + 1
            item = self._returns[name]
        return _give(item, count)


def _give(item: Any, count: int) -> Any:
    if isinstance(item, (list, tuple)):
        return _give(item[min(count, len(item) - 1)], 0) if item else None
    if isinstance(item, BaseException) or (isinstance(item, type) and issubclass(item, BaseException)):
        raise item
    if not (isinstance(item, Mapping) and item and set(item) <= _KEYS):
        return item
    if "delay" in item:
        time.sleep(parse_duration_s(item["delay"]))
    if "raise" in item:
        raise make_exception(str(item["raise"]))
    return item.get("value")


def find_mistake(item: Any) -> str:
    """Return what is wrong with one value of ``returns:``, or ""."""
    if isinstance(item, (list, tuple)):
        return next((problem for problem in map(find_mistake, item) if problem), "")
    if not (isinstance(item, Mapping) and item and set(item) <= _KEYS):
        return ""
    try:
        parse_duration_s(item.get("delay", 0))
        if "raise" in item:
            make_exception(str(item["raise"]))
    except ValueError as error:
        return str(error)
    return ""
