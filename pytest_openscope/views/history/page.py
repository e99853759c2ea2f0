"""The history as one HTML file without any script: tables, and control charts drawn as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ... import __version__
from ...system import write_atomic
from ..pages import template_environment
from .answers import HistoryAnswer, number
from .tables import day, what

_TEMPLATE = Path(__file__).with_name("template")
#: The session report's style, since both are looked at side by side.
_REPORT_STYLE = Path(__file__).parents[1] / "report" / "template" / "report.css"
#: Rows that a browser shows without effort; JSON has all.
_MOST_ROWS = 500
_MOST_CHARTS = 60
_WIDTH, _HEIGHT = 360.0, 90.0


def write_history_page(answer: HistoryAnswer, path: Path) -> None:
    """Write the page.

    Raises:
        ImportError: Jinja2 is not installed (extra ``history``).
        OSError: the file cannot be written.
    """
    import jinja2

    environment = template_environment(_TEMPLATE, jinja2.StrictUndefined)
    environment.filters.update(number=number, day=day, what=what)
    style = "".join(path.read_text(encoding="utf-8") for path in (_REPORT_STYLE, _TEMPLATE / "history.css"))
    page = environment.get_template("history.html").render(
        answer=answer,
        weeks=_bars(answer.weeks),
        charts=[
            (one, _chart(one))
            for one in answer.series
            if (one["median"] is not None and one["rig_id"] is not None) or one["told"]
        ][:_MOST_CHARTS],
        most=_MOST_ROWS,
        style=style,
        version=__version__,
    )
    write_atomic(path, page.encode("utf-8", "backslashreplace"))


def _bars(weeks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each week with the heights of its bar's parts, in percent of the highest bar."""
    highest = max((one["sessions"] for one in weeks), default=1)
    return [
        {
            **one,
            "heights": [(kind, round(100 * one[kind] / highest, 2)) for kind in ("failed", "interrupted", "unknown", "passed")],
        }
        for one in weeks[-156:]
    ]


def _chart(one: dict[str, Any]) -> dict[str, Any]:
    """Return a control chart: the values as a line, with the heights of median and limits, in a box of 360 by 90."""
    values: list[float] = one["last_values"]
    lines = {name: one[name] for name in ("median", "low", "high", "minimum", "maximum") if one[name] is not None}
    bottom: float = min(*values, one["low"])
    top: float = max(*values, one["high"])
    # A measurement's own limits may be far away; then the line would be flat.
    span = (top - bottom) or 1.0
    near = {name: value for name, value in lines.items() if bottom - span <= value <= top + span}
    bottom, top = min(bottom, *near.values()), max(top, *near.values())
    span = float(top - bottom) or 1.0

    def height(value: float) -> float:
        return round(_HEIGHT - 4 - (_HEIGHT - 8) * (value - bottom) / span, 1)

    step = _WIDTH / max(1, len(values) - 1)
    points = [(round(place * step, 1), height(value), value) for place, value in enumerate(values)]
    return {
        "points": " ".join(f"{x},{y}" for x, y, _ in points),
        "marks": points,
        "lines": {name: height(value) for name, value in near.items()},
    }
