"""Where the session log meets the logging package: two methods of :class:`logging.Logger`, replaced for a while.

``callHandlers`` gives every record that a logger lets through, whether it propagates or not and whatever handlers there are;
``setLevel`` keeps the levels low enough. No handler is added anywhere, so nothing is there to be closed or removed by
``basicConfig(force=True)`` or ``dictConfig``, and nothing that silences ``logging.lastResort``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from .levels import Levels, foreign_level

#: Never used to log: dictConfig disables it together with all other existing loggers, and so tells on itself.
_SENTINEL = "pytest_openscope_sentinel"
#: The level of a record that asks whether records still come here; below every threshold.
PROBE = -1

_Method = Callable[..., None]


class Tap:
    """Hands every record to ``take`` between :meth:`install` and :meth:`uninstall`; taps of nested sessions may overlap.

    Other handlers get the records that they would get without it (:mod:`pytest_openscope.log.levels`).
    """

    def __init__(self, take: Callable[[logging.LogRecord], None], levels: Levels) -> None:
        self._take = take
        self._levels = levels
        self._call_handlers: _Method | None = None
        self._set_level: _Method | None = None
        #: What was in the place of our method when records were last seen to come through it.
        self._seen: Any = None
        self._sentinel = logging.getLogger(_SENTINEL)
        self._disabled: set[str] = set()
        self._probed = False

    def install(self) -> None:
        """Begin to take records, and lower levels."""
        if self._call_handlers is None:
            self._attach()
        self._sentinel.disabled = False
        self.apply_levels()

    def uninstall(self) -> None:
        """Undo :meth:`install`; where somebody else's method lies over ours, ours only passes on from now on."""
        self._levels.restore()
        ours = (self._call_handlers, self._set_level)
        self._call_handlers = self._set_level = self._seen = None
        for name, method in zip(("callHandlers", "setLevel"), ours, strict=True):
            if method is not None and getattr(logging.Logger, name) is method:
                setattr(logging.Logger, name, method.__wrapped__)  # type: ignore[attr-defined]

    def use_levels(self, levels: Levels) -> None:
        """Take other thresholds from now on."""
        self._levels.restore()
        self._levels = levels
        if self._call_handlers is not None:
            self.apply_levels()

    def apply_levels(self) -> None:
        """Lower the levels again, and remember who is disabled on purpose."""
        self._levels.apply()
        self._disabled = {name for name, logger in _loggers() if logger.disabled}

    def ensure(self) -> None:
        """Mend what others did to ``logging``; see :meth:`SessionLog.ensure_attached`."""
        if logging.Logger.callHandlers is self._seen and not self._sentinel.disabled and self._levels.held():
            return
        if self._call_handlers is None:
            return
        if self._sentinel.disabled:
            self._sentinel.disabled = False
            for name, logger in _loggers():
                if logger.disabled and name not in self._disabled:
                    logger.disabled = False
        if logging.Logger.callHandlers is not self._seen and not self._is_reached():
            self._attach()
        self._seen = logging.Logger.callHandlers
        self.apply_levels()

    def _attach(self) -> None:
        self._call_handlers = self._seen = self._make_call_handlers(logging.Logger.callHandlers)
        logging.Logger.callHandlers = self._call_handlers  # type: ignore[method-assign]
        if logging.Logger.setLevel is not self._set_level:
            self._set_level = self._make_set_level(logging.Logger.setLevel)
            logging.Logger.setLevel = self._set_level  # type: ignore[method-assign]

    def _make_call_handlers(self, below: _Method) -> _Method:
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
            if below_is_tap or record.levelno >= foreign_level(logger):
                below(logger, record)

        callHandlers.__wrapped__ = below  # type: ignore[attr-defined]
        callHandlers.__openscope__ = True  # type: ignore[attr-defined]
        return callHandlers

    def _make_set_level(self, below: _Method) -> _Method:
        def setLevel(logger: logging.Logger, level: int | str) -> None:  # noqa: N802 - the name in logging
            __tracebackhide__ = True
            before = logger.getEffectiveLevel()
            below(logger, level)
            if self._set_level is setLevel:
                self._levels.mend(logger, before, sys._getframe(1).f_globals.get("__name__") == "_pytest.logging")

        setLevel.__wrapped__ = below  # type: ignore[attr-defined]
        return setLevel

    def _is_reached(self) -> bool:
        """Tell whether a function that somebody put over our method still calls it."""
        self._probed = False
        probe = logging.Logger(_SENTINEL, level=1)
        probe.callHandlers(logging.LogRecord(_SENTINEL, PROBE, __file__, 0, "", None, None))
        return self._probed


def _loggers() -> list[tuple[str, logging.Logger]]:
    known = list(logging.Logger.manager.loggerDict.items())
    return [(name, logger) for name, logger in known if isinstance(logger, logging.Logger)]
