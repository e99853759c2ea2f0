"""Measuring ratios: both sides in turn, in one run, so that a slow machine is slow for both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Result:
    """What one benchmark found.

    Attributes:
        name: what was measured.
        target: the highest ratio that is good.
        base_s: seconds of the side that is compared with, per round.
        ours_s: seconds of ours, per round.
        per: what the seconds are for (``record``, ``test``, ``run``); the printed times are for one of them.
        notes: further findings, printed below.
        broken: promises other than the ratio that were not kept.
    """

    name: str
    target: float
    base_s: Sequence[float]
    ours_s: Sequence[float]
    per: str = "run"
    notes: Sequence[str] = field(default=())
    broken: Sequence[str] = field(default=())

    @property
    def ratios(self) -> list[float]:
        """Ours / base of each round."""
        return [ours / base for base, ours in zip(self.base_s, self.ours_s, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def good(self) -> bool:
        """Whether the target is met and every promise kept."""
        return self.ratio <= self.target and not self.broken

    def __str__(self) -> str:
        verdict = "ok  " if self.good else "MISS"
        spread = f"min {min(self.ratios):.3f}, max {max(self.ratios):.3f}, {len(self.ratios)} rounds"
        times = f"{_time(statistics.median(self.base_s))} -> {_time(statistics.median(self.ours_s))} per {self.per}"
        lines = [f"{verdict} {self.ratio:.3f} (target {self.target:g}; {spread})  {self.name}: {times}"]
        lines += [f"       {note}" for note in self.notes]
        lines += [f"       NOT KEPT: {promise}" for promise in self.broken]
        return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def in_turn(base: Callable[[], float], ours: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Run both sides once to warm up, then in turn (each first in every other round); return the seconds they gave."""
    base()
    ours()
    base_s: list[float] = []
    ours_s: list[float] = []
    for number in range(rounds):
        if number % 2:
            ours_s.append(ours())
            base_s.append(base())
        else:
            base_s.append(base())
            ours_s.append(ours())
    return base_s, ours_s
