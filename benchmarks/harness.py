"""Measuring ratios: both sides in turn, in one run, so that a slow machine is slow for both; CPU time beside wall time."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple


class Cost(NamedTuple):
    """What one round took.

    Attributes:
        wall_s: seconds on the clock.
        cpu_s: CPU time of this process and of its children that ended meanwhile; 0 where nobody counted it.
    """

    wall_s: float
    cpu_s: float = 0.0

    def per(self, count: float) -> Cost:
        """Return the cost of one of so many."""
        return Cost(self.wall_s / count, self.cpu_s / count)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


def cpu_s() -> float:
    """Return the CPU time of this process and of all its children that have ended (on Windows, which keeps no sum: its own)."""
    used_s = time.process_time()
    if sys.platform != "win32":
        import resource

        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        used_s += children.ru_utime + children.ru_stime
    return used_s


def cost_of(work: Callable[[], object]) -> Cost:
    """Do the work once and return what it took."""
    start_s, start_cpu_s = time.perf_counter(), cpu_s()
    work()
    return Cost(time.perf_counter() - start_s, cpu_s() - start_cpu_s)


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Return the medians of both clocks."""
    return Cost(statistics.median(cost.wall_s for cost in costs), statistics.median(cost.cpu_s for cost in costs))


Decides = Literal["wall", "cpu"]


@dataclass(frozen=True)
class Result:
    """What one benchmark found.

    Attributes:
        name: what was measured.
        floor: what it is compared with, which cannot or need not be beaten.
        base: what the floor took, per round.
        ours: what ours took, per round.
        target: the highest ratio that is good; None when no ratio was promised.
        limit_s: the longest time of ours that is good.
        added_limit_s: the most that ours may take longer than the floor: the best rounds of both, since whatever else the
            machine does only ever adds.
        decides: the clock that ratio and limits are taken from. CPU time changes least with what else the machine does; wall
            time is what is waited for. Without CPU time it is wall time.
        per: what the seconds are for (``record``, ``test``, ``run``); the printed times are for one of them.
        notes: further findings, printed below.
        broken: other promises that were not kept.
    """

    name: str
    floor: str
    base: Sequence[Cost]
    ours: Sequence[Cost]
    target: float | None = None
    limit_s: float | None = None
    added_limit_s: float | None = None
    decides: Decides = "wall"
    per: str = "run"
    notes: Sequence[str] = field(default=())
    broken: Sequence[str] = field(default=())

    @property
    def clock(self) -> Decides:
        """The clock that decides."""
        counted = all(cost.cpu_s > 0 for cost in (*self.base, *self.ours))
        return "cpu" if self.decides == "cpu" and counted else "wall"

    def _times(self, costs: Sequence[Cost]) -> list[float]:
        return [cost.cpu_s if self.clock == "cpu" else cost.wall_s for cost in costs]

    @property
    def ratios(self) -> list[float]:
        """Ours / floor of each round."""
        return [ours / base for base, ours in zip(self._times(self.base), self._times(self.ours), strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def takes_s(self) -> float:
        """What ours takes: the median of the rounds."""
        return statistics.median(self._times(self.ours))

    @property
    def added_s(self) -> float:
        """What ours takes longer than the floor, best rounds."""
        return min(self._times(self.ours)) - min(self._times(self.base))

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return (
            not self.broken
            and (self.target is None or self.ratio <= self.target)
            and (self.limit_s is None or self.takes_s <= self.limit_s)
            and (self.added_limit_s is None or self.added_s <= self.added_limit_s)
        )

    @property
    def promised(self) -> str:
        """The targets in words."""
        return "; ".join(
            [
                *([f"≤ {self.target:g} x"] if self.target is not None else []),
                *([f"≤ {time_text(self.limit_s)}"] if self.limit_s is not None else []),
                *([f"≤ {time_text(self.added_limit_s)} more"] if self.added_limit_s is not None else []),
            ]
        )

    @property
    def verdict(self) -> str:
        """``ok``, ``MISS``, or nothing where nothing was promised."""
        return "MISS" if not self.good else "ok" if self.promised else ""

    def __str__(self) -> str:
        spread = f"min {min(self.ratios):.3f}, max {max(self.ratios):.3f}, {len(self.ratios)} rounds, {self.clock} time decides"
        lines = [
            f"{self.verdict:4} {self.ratio:.3f} ({self.promised or 'no target'}; {spread})  {self.name}",
            f"       {cost_text(median_cost(self.ours))} per {self.per}; {self.floor}: {cost_text(median_cost(self.base))}",
        ]
        if self.added_limit_s is not None:
            lines.append(f"       {self.added_s * 1000:+.1f} ms in the best rounds")
        lines += [f"       {note}" for note in self.notes]
        lines += [f"       NOT KEPT: {promise}" for promise in self.broken]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return everything measured, round by round, with the verdict."""
        return {
            "name": self.name,
            "floor": self.floor,
            "ratio": self.ratio,
            "target": self.target,
            "limit_s": self.limit_s,
            "added_limit_s": self.added_limit_s,
            "added_s": self.added_s,
            "decides": self.clock,
            "per": self.per,
            "good": self.good,
            "promised": self.promised,
            "verdict": self.verdict,
            "ours": median_cost(self.ours)._asdict(),
            "base": median_cost(self.base)._asdict(),
            "rounds": {"ours": [list(cost) for cost in self.ours], "base": [list(cost) for cost in self.base]},
            "notes": list(self.notes),
            "broken": list(self.broken),
        }


class NotMeasuredError(Exception):
    """Something that the benchmark needs is not on this computer; the message says what."""


def time_text(seconds: float) -> str:
    """Return a time with three digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if abs(seconds) * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def cost_text(cost: Cost) -> str:
    """Return both times."""
    return f"{time_text(cost.wall_s)} (CPU {time_text(cost.cpu_s)})" if cost.cpu_s > 0 else time_text(cost.wall_s)


def in_turn(base: Callable[[], Cost], ours: Callable[[], Cost], rounds: int) -> tuple[list[Cost], list[Cost]]:
    """Run both sides once to warm up, then in turn (each first in every other round); return what they took."""
    base()
    ours()
    bases: list[Cost] = []
    others: list[Cost] = []
    for number in range(rounds):
        if number % 2:
            others.append(ours())
            bases.append(base())
        else:
            bases.append(base())
            others.append(ours())
    return bases, others
