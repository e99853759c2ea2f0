"""The plots of a session report, by bokeh: the steps on a time line, and the computer's resources below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import getitem
from typing import Any

from ..values import time_of
from .content import SessionFiles

#: Readable on white and on black, and told apart by people who see no red or green (Okabe and Ito, 2008).
_COLORS = {"passed": "#009e73", "skipped": "#999999", "interrupted": "#e69f00", "failed": "#d55e00"}
_LINES = ("#0072b2", "#d55e00", "#999999")
#: More points than pixels only cost time.
_MOST_POINTS = 4000
#: What the time axis takes of the lowest plot.
_AXIS_PX = 35


def plots_of(files: SessionFiles) -> dict[str, Any] | None:
    """Return all plots as bokeh's script takes them, one below the other, zoomed together; None without any."""
    from bokeh.embed import json_item
    from bokeh.layouts import gridplot
    from bokeh.models import Range1d

    steps = [step for step in files.end.get("steps") or () if time_of(step.get("started")) is not None]
    samples = [one for one in files.list_in("resource_usage.json") if time_of(one.get("timestamp")) is not None]
    samples = samples[:: len(samples) // _MOST_POINTS + 1]
    times = [_local(step["started"]) for step in steps] + [_local(one["timestamp"]) for one in samples]
    times += [_local(files.end[key]) for key in ("start_time", "stop_time") if time_of(files.end.get(key)) is not None]
    if not (steps or samples):
        return None
    margin = max((max(times) - min(times)) * 0.02, timedelta(seconds=0.5))
    shown = Range1d(start=min(times) - margin, end=max(times) + margin)
    figures = [_steps(steps, shown)] if steps else []
    if samples:
        at = [_local(one["timestamp"]) for one in samples]
        begun = [_local(step["started"]) for step in steps if step.get("kind") != "fixture"]
        for title, unit, places in _RESOURCES:
            lines = {name: [_number(one, keys) for one in samples] for name, keys in places.items()}
            figures.append(_lines(title, unit, at, lines, begun, shown))
    for figure in figures[:-1]:
        # One time axis for all, and one set of tools.
        figure.xaxis.visible = False
    figures[-1].height += _AXIS_PX
    options: Any = {"merge_tools": True, "toolbar_options": {"logo": None}}
    plots = gridplot(figures, ncols=1, sizing_mode="stretch_width", toolbar_location="right", **options)
    return dict(json_item(plots))


#: Title and unit of a plot, and where a sample has the values of its lines.
_RESOURCES: tuple[tuple[str, str, dict[str, tuple[str, ...]]], ...] = (
    ("CPU", "% of one core", {"experiment": ("launcher", "cpu_percent"), "acquisition": ("acquisition", "cpu_percent")}),
    ("Memory", "MB", {"experiment": ("launcher", "memory_mb"), "acquisition": ("acquisition", "memory_mb")}),
    ("Free disk", "GB", {"session's disk": ("system", "disk", "free_gb")}),
)


def _steps(steps: Sequence[dict[str, Any]], shown: Any) -> Any:
    """Draw one bar per step; its words are in the table beside it as well."""
    from bokeh.models import ColumnDataSource

    rows = [f"{number + 1}. {step.get('name')}" for number, step in enumerate(steps)]
    begun = [_local(step["started"]) for step in steps]
    lengths_s = [float(step.get("duration_s") or 0.0) for step in steps]
    outcomes = [str(step.get("outcome") or "skipped") for step in steps]
    source = ColumnDataSource(
        {
            "row": rows,
            "begin": begun,
            "end": [at + timedelta(seconds=length_s) for at, length_s in zip(begun, lengths_s, strict=True)],
            "color": [_COLORS.get(outcome, _COLORS["failed"]) for outcome in outcomes],
            "outcome": outcomes,
            "phase": [str(step.get("phase")) for step in steps],
            "duration": [f"{length_s:.3f} s" for length_s in lengths_s],
        }
    )
    figure = _figure("Steps", shown, height=30 + 22 * len(steps), y_range=rows[::-1])
    figure.hbar(y="row", left="begin", right="end", height=0.7, fill_color="color", line_color="color", source=source)
    figure.hover.tooltips = [("step", "@row"), ("phase", "@phase"), ("outcome", "@outcome"), ("duration", "@duration")]
    return figure


def _lines(
    title: str,
    unit: str,
    at: Sequence[datetime],
    lines: Mapping[str, Sequence[float]],
    bounds: Sequence[datetime],
    shown: Any,
) -> Any:
    from bokeh.models import ColumnDataSource, VSpan

    figure = _figure(f"{title} ({unit})", shown, height=150)
    for (name, values), color in zip(lines.items(), _LINES, strict=False):
        source = ColumnDataSource({"at": at, "value": values, "name": [name] * len(values)})
        dash = "solid" if color == _LINES[0] else "dashed"
        figure.line("at", "value", source=source, line_color=color, line_width=2, line_dash=dash, legend_label=name)
    marks = ColumnDataSource({"x": list(bounds)})
    figure.add_glyph(marks, VSpan(x="x", line_color="#999999", line_dash="dotted"))
    figure.hover.tooltips = [("", "@name"), (unit, "@value{0.0}"), ("at", "@at{%H:%M:%S}")]
    figure.hover.formatters = {"@at": "datetime"}
    # Above the lines, not over them.
    legend = figure.legend[0]
    figure.add_layout(legend, "above")
    legend.orientation, legend.location, legend.padding, legend.margin = "horizontal", "top_left", 0, 0
    legend.background_fill_alpha = legend.border_line_alpha = 0.0
    return figure


def _figure(title: str, shown: Any, height: int, **more: Any) -> Any:
    from bokeh.plotting import figure

    made = figure(
        title=title,
        x_axis_type="datetime",
        x_range=shown,
        height=height,
        sizing_mode="stretch_width",
        tools="xpan,xwheel_zoom,box_zoom,reset,hover",
        active_scroll=None,
        **more,
    )
    made.background_fill_alpha = made.border_fill_alpha = 0.0
    return made


def _number(sample: Any, keys: Sequence[str]) -> float:
    """Return one value of a sample; no number where it has none, which leaves a gap in the line."""
    try:
        return float(reduce(getitem, keys, sample))
    except (KeyError, TypeError, ValueError):
        return float("nan")


def _local(text: str) -> datetime:
    """Return the rig's time of day, which is what the axis shows: bokeh knows no time zones."""
    return datetime.fromisoformat(text).replace(tzinfo=None)
