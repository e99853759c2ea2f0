"""The history on a terminal: rich tables, every text from a rig shown as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .answers import HistoryAnswer, Row, number

#: Rows of one table; the page and JSON have all.
_MOST = 15
_MOST_WEEKS = 12
_WHOLE = ("fingerprint", "last", "last failure", "week of", "median s", "95 % s", "control limits", "h between", "days between")

#: A key that is its own title, or a title with a key or with what makes the value of a row.
_Column = str | tuple[str, str | Callable[[Row], Any]]
_COUNTS: tuple[_Column, ...] = ("sessions", "passed", "failed", "crashed")


def history_tables(answer: HistoryAnswer, console: Console) -> None:
    """Print the answer."""
    console.print(Group(*_parts(answer)))


def _parts(answer: HistoryAnswer) -> Iterable[RenderableType]:
    totals = answer.totals
    yield shown(
        f"{totals['sessions']} sessions, {day(totals['first'])} to {day(totals['last'])}, {number(totals['hours'])} h; "
        f"{totals['passed']} passed, {totals['failed']} failed ({totals['crashed']} of them crashed), "
        f"{totals['interrupted']} interrupted, {totals['unknown']} without a known end; "
        f"{totals['dry_runs_left_out']} dry runs left out"
    )
    if not totals["sessions"]:
        return
    yield Text()
    yield Text("Look at these first" if answer.told else "No series drifts or is outside its control limits", style="bold")
    for line in answer.told[:_MOST]:
        yield shown(f"  ! {line}")
    if len(answer.told) > _MOST:
        yield Text(f"  and {len(answer.told) - _MOST} more: --html or --json shows all")
    last: _Column = ("last", lambda one: day(one["last"]))
    yield from _table(
        "Failures by fingerprint",
        answer.failures,
        ["fingerprint", "failures", ("what", what), "step", ("rigs", lambda one: ", ".join(one["rigs"])), last, "days_between"],
    )
    yield from _table(
        "Rigs",
        answer.rigs,
        [
            ("rig", "rig_id"),
            *_COUNTS,
            ("h between", "hours_between_failures"),
            ("days between", "days_between_failures"),
            ("sessions since", lambda one: one["sessions_since_failure"] if one["failed"] else None),
            ("last failure", lambda one: day(one["last_failure"])),
        ],
    )
    yield from _table("Weeks", answer.weeks[-_MOST_WEEKS:], [("week of", "week"), *_COUNTS], len(answer.weeks))
    times: list[_Column] = [("median s", "median_s"), ("95 % s", "percentile_95_s")]
    yield from _table("Steps", answer.steps, ["step", "phase", "runs", "failed", "skipped", "repeated", *times])
    yield from _table(
        "Devices",
        answer.devices,
        [("rig", "rig_id"), "device", "sessions", "simulated", "failed", "failures_that_name_it"],
    )
    yield from _table(
        "Measurements and durations against the median",
        answer.series,
        [
            ("", lambda one: "!" if one["told"] else ""),
            ("of", lambda one: one["rig_id"] if one["rig_id"] is not None else f"subject {one['subject_id']}"),
            ("what", lambda one: one["name"] if one["kind"] == "measurement" else f"duration of {one['name']}"),
            ("last", lambda one: f"{number(one['value'])} {one['unit']}"),
            "median",
            ("control limits", lambda one: f"{number(one['low'])} … {number(one['high'])}" if one["low"] is not None else None),
            ("values", lambda one: len(one["last_values"])),
        ],
    )


def _table(title: str, rows: Sequence[Row], columns: Sequence[_Column], known: int = 0) -> Iterable[RenderableType]:
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    shown_rows = rows[:_MOST]
    cells = []
    for column in columns:
        name, read = (column.replace("_", " "), column) if isinstance(column, str) else column
        values = [one[read] if isinstance(read, str) else read(one) for one in shown_rows]
        texts = [number(value) if value is None or isinstance(value, float) else str(value) for value in values]
        cells.append(map(shown, texts))
        numeric = all(isinstance(value, int) for value in values)
        # A number or a day is read at a glance or not at all: its column is never cut, the long texts beside it give way.
        whole = numeric or name in _WHOLE
        table.add_column(
            name.replace(" ", "\n", 1) if whole and len(name) > max(map(len, texts)) else name,
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=whole,
            min_width=max(map(len, name.split()), default=0),
        )
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    yield Text()
    yield table
    left = max(known, len(rows)) - len(shown_rows)
    if left:
        yield Text(f"and {left} more: --html or --json shows all")


def what(one: Row) -> str:
    """Return what a group of failures is, in a line."""
    line = (one["message"].strip().splitlines() or [""])[0][:160]
    return f"{one['exception_type'].rpartition('.')[2]}: {line}" if one["exception_type"] else line


def day(time: str | None) -> str:
    """Return the day of a time, as the clock of this computer tells it."""
    return datetime.fromisoformat(time).astimezone().date().isoformat() if time else "–"


def shown(text: str) -> Text:
    """Return text from a rig as text: no markup, and no sign that moves the cursor or hides what follows."""
    return Text("".join(sign if sign.isprintable() else "�" for sign in text))
