"""Judges a series of values against its own past: is the last one outside, does it drift, when will it reach its limit?

The past is described by its median and its median absolute deviation, which a few odd values do not move.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: Values of one series that are looked at.
LOOKED_AT = 58
#: The last ones, which are held against those before them; eight on one side are chance once in 128 series.
RECENT = 8
#: Fewer values before are no past to be held against.
LEAST_PAST = 8
#: A drift needs a past of this many beside the recent ones.
LEAST_FOR_DRIFT = 12
#: For a spread taken from the median deviation (Iglewicz and Hoaglin, 1993).
LIMIT_SIGMAS = 3.5
_SIGMA_PER_MAD, _SIGMA_PER_MEAN_DEVIATION = 1.4826, 1.2533
#: A trend is a straight line through this many values that explains half of their variance; it is followed so far ahead.
_TREND_VALUES, _TREND_LEAST, _TREND_R2, _TREND_AHEAD = 20, 10, 0.5, 30


@dataclass(frozen=True)
class Verdict:
    """What a series says.

    Attributes:
        median, low, high: the past's median and the control limits, 3.5 robust standard deviations from it.
        outside: the last value is beyond a control limit.
        drift: ``up`` or ``down`` where all recent values lie on that side of the median, clearly; else "".
        reaches: ``minimum`` or ``maximum``, where a trend leads to a limit of the measurement; else "".
        reaches_in: in how many sessions at the pace of now.
    """

    median: float | None = None
    low: float | None = None
    high: float | None = None
    outside: bool = False
    drift: str = ""
    reaches: str = ""
    reaches_in: int | None = None

    @property
    def told(self) -> bool:
        """Whether somebody should look."""
        return self.outside or bool(self.drift) or bool(self.reaches)


def judge(
    values: Sequence[float], minimum: float | None = None, maximum: float | None = None, smallest_sigma: float = 0.0
) -> Verdict:
    """Judge a series, the oldest value first; the verdict is empty while it is too short.

    Args:
        minimum, maximum: the measurement's own limits.
        smallest_sigma: spread that is no news however even the past was.
    """
    values = values[-LOOKED_AT:]
    if len(values) < LEAST_PAST + 1:
        return Verdict()
    can_drift = len(values) >= LEAST_FOR_DRIFT + RECENT
    recent = values[-RECENT:]
    past = values[:-RECENT] if can_drift else values[:-1]
    median = statistics.median(past)
    deviations = [abs(value - median) for value in past]
    sigma = _SIGMA_PER_MAD * statistics.median(deviations) or _SIGMA_PER_MEAN_DEVIATION * statistics.fmean(deviations)
    # Digits that a conversion adds are no spread.
    sigma = max(sigma, smallest_sigma, abs(median) * 1e-9)
    low, high = median - LIMIT_SIGMAS * sigma, median + LIMIT_SIGMAS * sigma
    drift = ""
    if can_drift and abs(statistics.median(recent) - median) > sigma:
        drift = "up" if min(recent) > median else "down" if max(recent) < median else ""
    reaches, reaches_in = _reaches(values[-_TREND_VALUES:], minimum, maximum)
    return Verdict(median, low, high, not low <= values[-1] <= high, drift, reaches, reaches_in)


def _reaches(values: Sequence[float], minimum: float | None, maximum: float | None) -> tuple[str, int | None]:
    if len(values) < _TREND_LEAST or (minimum is None and maximum is None) or min(values) == max(values):
        return "", None
    places = range(len(values))
    slope, start = statistics.linear_regression(places, values)
    now = start + slope * (len(values) - 1)
    if statistics.correlation(places, values) ** 2 < _TREND_R2 or slope == 0:
        return "", None
    limit, name = (minimum, "minimum") if slope < 0 else (maximum, "maximum")
    if limit is None:
        return "", None
    ahead = (limit - now) / slope
    # Already beyond it: that failed by itself, and needs no forecast.
    return (name, max(1, round(ahead))) if 0 <= ahead <= _TREND_AHEAD else ("", None)
