"""Lower the levels of loggers for the session log without anybody else's handlers noticing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

_CACHED = "pytest_openscope"


class Lease:
    """The time for which a session log lowers levels; afterwards every level lowered under it counts as its original."""

    over = False


class LoweredLevel(int):
    """A logger's level that the session log lowered, and the one that it had.

    A record below the original level is for the session log alone. That a plain number set later (``caplog.set_level``,
    ``basicConfig``) is another type makes it somebody's wish, which the other handlers then follow.
    """

    original: int
    lease: Lease

    def __new__(cls, level: int, original: int, lease: Lease) -> LoweredLevel:
        """Return ``level`` as a number that remembers ``original``."""
        lowered = super().__new__(cls, level)
        lowered.original = original
        lowered.lease = lease
        return lowered

    def __gt__(self, other: int) -> bool:
        """Count as greater than the same plain number, as the original level does.

        ``min(root.level, wanted)``, by which pytest's ``--log-level`` and ``--log-cli-level`` set the root logger, then takes
        the wanted number, even if it equals ours.
        """
        return int(self) >= other if type(other) is int else int(self) > int(other)

    __hash__ = int.__hash__


def plain_level(level: int) -> int:
    """Return the level that a logger would have without any session log."""
    while type(level) is LoweredLevel:
        level = level.original
    return level


def foreign_level(logger: logging.Logger) -> int:
    """Return the effective level for everybody but session logs.

    Kept in the cache in which the logger keeps its answers for ``isEnabledFor``: ``logging`` empties it when a level changes.
    """
    cache: dict[Any, Any] = logger._cache  # type: ignore[attr-defined]
    level = cache.get(_CACHED)
    if level is None:
        level = cache[_CACHED] = _find_foreign_level(logger)
    return level


def _find_foreign_level(logger: logging.Logger) -> int:
    this: logging.Logger | None = logger
    while this is not None:
        level = plain_level(this.level)
        if level:
            return level
        this = this.parent
    return logging.NOTSET


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
    """The thresholds of one session log, and the loggers that were lowered for them.

    A logger that its own code made quieter stays so, unless ``levels`` names it. The root logger and the named ones do not
    get quieter, whoever sets their level, nor does any logger by ``caplog``: only the other handlers follow.
    """

    def __init__(self, level: int | str, levels: Mapping[str, int | str]) -> None:
        self.level = level_number(level)
        self._named = {name: level_number(value) for name, value in levels.items() if name not in ("", "root")}
        for name in ("", "root"):
            self.level = level_number(levels[name]) if name in levels else self.level
        self._wanted: dict[logging.Logger, int] = {}
        self._held: list[tuple[logging.Logger, int]] = []
        self._lowered: set[logging.Logger] = set()
        self._lease = Lease()
        #: What :meth:`threshold` found, by logger.
        self.thresholds: dict[str, int] = {}

    def threshold(self, name: str) -> int:
        """Return the lowest level of a logger's records that belongs into the session log."""
        known = self.thresholds.get(name)
        if known is None:
            known = self.level
            part = name
            while part:
                if part in self._named:
                    known = self._named[part]
                    break
                part = part.rpartition(".")[0]
            if len(self.thresholds) > 4096:
                self.thresholds.clear()
            self.thresholds[name] = known
        return known

    def held(self) -> bool:
        """Tell whether the loggers' levels are still those that :meth:`apply` left."""
        for logger, level in self._held:
            if logger.level is not level:
                return False
        return bool(self._held)

    def apply(self) -> None:
        """Lower the root logger's level and those of the named loggers where that is needed; to be repeated at will."""
        self._wanted = {logging.getLogger(): self.level}
        self._wanted.update((logging.getLogger(name), level) for name, level in self._named.items())
        for logger, level in self._wanted.items():
            self._lower(logger, level)
        self._held = [(logger, logger.level) for logger in self._wanted]

    def mend(self, logger: logging.Logger, before: int, by_caplog: bool) -> None:
        """Lower a level again that somebody has just set; ``before`` is the effective one that it replaced."""
        wanted = self._wanted.get(logger)
        if wanted is not None:
            self._lower(logger, wanted)
        elif by_caplog:
            self._lower(logger, max(int(before), self.threshold(logger.name)))

    def _lower(self, logger: logging.Logger, wanted: int) -> None:
        if int(logger.getEffectiveLevel()) > wanted:
            logger.setLevel(LoweredLevel(max(wanted, 1), logger.level, self._lease))
            self._lowered.add(logger)

    def restore(self) -> None:
        """Give every logger that still has a lowered level its own one back."""
        self._lease.over, self._lease = True, Lease()
        self._wanted, self._held = {}, []
        for logger in self._lowered:
            level = logger.level
            while type(level) is LoweredLevel and level.lease.over:
                level = level.original
            if level is not logger.level:
                logger.setLevel(level)
        self._lowered.clear()
