"""Where the session log meets the logging package: two methods of :class:`logging.Logger`, replaced for a while.

``callHandlers`` gives every record that a logger lets through, whether it propagates or not and whatever handlers there are;
``getEffectiveLevel`` lets the records through that the session log wants, and only those of the logger's own level go on to the
handlers of others. No level is changed and no handler added, so nothing is there to be closed, removed or overwritten by
``basicConfig(force=True)``, ``dictConfig`` or ``caplog``, and nothing that silences ``logging.lastResort``.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

#: Never used to log: dictConfig disables it together with all other existing loggers, and so tells on itself.
_SENTINEL = "pytest_openscope_sentinel"
#: The level of a record that asks whether records still come here; below every threshold.
PROBE = -1

#: The effective level for everybody but session logs.
_own_level: Callable[[logging.Logger], int] = inspect.unwrap(logging.Logger.getEffectiveLevel)


def level_number(level: int | str) -> int:
    """Return a level as a number.

    Raises:
        ValueError: no level has that name.
    """
    number = level if isinstance(level, int) else logging.getLevelName(level.strip().upper())
    if not isinstance(number, int):
        raise ValueError(f"unknown log level {level!r}")
    return int(number)


class Levels:
    """The thresholds of one session log.

    A logger that was made quieter stays so, unless ``levels`` names it. The root logger and the named ones do not get quieter,
    whoever sets their level: only the other handlers follow.
    """

    def __init__(self, level: int | str, levels: Mapping[str, int | str]) -> None:
        self.level = level_number(level)
        self.named = {name: level_number(value) for name, value in levels.items() if name not in ("", "root")}
        for name in ("", "root"):
            self.level = level_number(levels[name]) if name in levels else self.level
        #: What :meth:`threshold` found, by logger.
        self.thresholds: dict[str, int] = {}

    def threshold(self, name: str) -> int:
        """Return the lowest level of a logger's records that belongs into the session log."""
        known = self.thresholds.get(name)
        if known is None:
            known = self.level
            part = name
            while part:
                if part in self.named:
                    known = self.named[part]
                    break
                part = part.rpartition(".")[0]
            if len(self.thresholds) > 4096:
                self.thresholds.clear()
            self.thresholds[name] = known
        return known

    def wanted(self, logger: logging.Logger) -> int | None:
        """Return the lowest level that a logger has to let through; None where its own level decides."""
        this: logging.Logger | None = logger
        while this is not None and this.parent is not None:
            if this.name in self.named:
                return self.named[this.name]
            if this.level:
                return None
            this = this.parent
        return self.level


class Tap:
    """Hands every record to ``take`` between :meth:`install` and :meth:`uninstall`; taps of nested sessions may overlap.

    Other handlers get the records that they would get without it.
    """

    def __init__(self, take: Callable[[logging.LogRecord], None], levels: Levels) -> None:
        self._take = take
        self._levels = levels
        self._call_handlers: Any = None
        self._effective_level: Any = None
        #: What was in the place of our method when records were last seen to come through it.
        self._seen: Any = None
        self._sentinel = logging.getLogger(_SENTINEL)
        self._disabled: set[str] = set()
        self._probed = False

    def install(self) -> None:
        """Begin to take records."""
        if self._call_handlers is None:
            self._attach()
            self._effective_level = self._make_effective_level(logging.Logger.getEffectiveLevel)
            logging.Logger.getEffectiveLevel = self._effective_level  # type: ignore[method-assign]
        self.use_levels(self._levels)

    def uninstall(self) -> None:
        """Undo :meth:`install`; where somebody else's method lies over ours, ours only passes on from now on."""
        ours = {"callHandlers": self._call_handlers, "getEffectiveLevel": self._effective_level}
        self._call_handlers = self._effective_level = self._seen = None
        for name, method in ours.items():
            if method is not None and getattr(logging.Logger, name) is method:
                setattr(logging.Logger, name, method.__wrapped__)
        _forget_levels()

    def use_levels(self, levels: Levels) -> None:
        """Take other thresholds from now on, and remember who is disabled on purpose."""
        for name in levels.named:
            logging.getLogger(name)
        self._levels = levels
        self._sentinel.disabled = False
        self._disabled = {name for name, logger in _loggers() if logger.disabled}
        _forget_levels()

    def ensure(self) -> None:
        """Mend what others did to ``logging``; see :meth:`SessionLog.ensure_attached`."""
        if self._call_handlers is None or (logging.Logger.callHandlers is self._seen and not self._sentinel.disabled):
            return
        if self._sentinel.disabled:
            for name, logger in _loggers():
                if logger.disabled and name not in self._disabled:
                    logger.disabled = False
        if logging.Logger.callHandlers is not self._seen and not self._is_reached():
            self._attach()
        self._seen = logging.Logger.callHandlers
        self.use_levels(self._levels)

    def _attach(self) -> None:
        self._call_handlers = self._seen = self._make_call_handlers(logging.Logger.callHandlers)
        logging.Logger.callHandlers = self._call_handlers  # type: ignore[method-assign]

    def _make_call_handlers(self, below: Any) -> Any:
        below_is_tap = hasattr(below, "__openscope__")
        take = self._take

        def callHandlers(logger: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 - the name in logging
            __tracebackhide__ = True
            if self._call_handlers is not callHandlers:
                below(logger, record)
                return
            if record.levelno == PROBE:
                self._probed = True
            take(record)
            if below_is_tap or record.levelno >= _own_level(logger):
                below(logger, record)

        callHandlers.__wrapped__ = below  # type: ignore[attr-defined]
        callHandlers.__openscope__ = True  # type: ignore[attr-defined]
        return callHandlers

    def _make_effective_level(self, below: Any) -> Any:
        def getEffectiveLevel(logger: logging.Logger) -> int:  # noqa: N802 - the name in logging
            level: int = below(logger)
            wanted = self._levels.wanted(logger) if self._effective_level is getEffectiveLevel else None
            return level if wanted is None else min(level, wanted)

        getEffectiveLevel.__wrapped__ = below  # type: ignore[attr-defined]
        return getEffectiveLevel

    def _is_reached(self) -> bool:
        """Tell whether a function that somebody put over our method still calls it."""
        self._probed = False
        probe = logging.Logger(_SENTINEL, level=1)
        probe.callHandlers(logging.LogRecord(_SENTINEL, PROBE, __file__, 0, "", None, None))
        return self._probed


def _forget_levels() -> None:
    """Let every logger ask for its effective level again: to set any level empties their caches."""
    root = logging.getLogger()
    root.setLevel(root.level)


def _loggers() -> list[tuple[str, logging.Logger]]:
    known = list(logging.Logger.manager.loggerDict.items())
    return [(name, logger) for name, logger in known if isinstance(logger, logging.Logger)]
