"""The history on a terminal: rich tables, every text from a rig shown as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
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
    totals = answer.totals
    summary = (
        f"{totals['sessions']} sessions, {day(totals['first'])} to {day(totals['last'])}, {number(totals['hours'])} h; "
        f"{totals['passed']} passed, {totals['failed']} failed ({totals['crashed']} of them crashed), "
        f"{totals['interrupted']} interrupted, {totals['unknown']} without a known end; "
        f"{totals['dry_runs_left_out']} dry runs left out"
    )
    console.print(shown(summary))
    if not totals["sessions"]:
        return
    console.print()
    console.print(
        Text("Look at these first" if answer.told else "No series drifts or is outside its control limits", style="bold")
    )
    for line in answer.told[:_MOST]:
        console.print(shown(f"  ! {line}"))
    if len(answer.told) > _MOST:
        console.print(Text(f"  and {len(answer.told) - _MOST} more: --html or --json shows all"))
    last: _Column = ("last", lambda one: day(one["last"]))
    _print_table(
        console,
        "Failures by fingerprint",
        answer.failures,
        ["fingerprint", "failures", ("what", what), "step", ("rigs", lambda one: ", ".join(one["rigs"])), last, "days_between"],
    )
    _print_table(
        console,
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
    _print_table(console, "Weeks", answer.weeks[-_MOST_WEEKS:], [("week of", "week"), *_COUNTS], len(answer.weeks))
    times: list[_Column] = [("median s", "median_s"), ("95 % s", "percentile_95_s")]
    _print_table(console, "Steps", answer.steps, ["step", "phase", "runs", "failed", "skipped", "repeated", *times])
    _print_table(
        console,
        "Devices",
        answer.devices,
        [("rig", "rig_id"), "device", "sessions", "simulated", "failed", "failures_that_name_it"],
    )
    _print_table(
        console,
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


def _print_table(console: Console, title: str, rows: Sequence[Row], columns: Sequence[_Column], known: int = 0) -> None:
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
    console.print()
    console.print(table)
    left = max(known, len(rows)) - len(shown_rows)
    if left:
        console.print(Text(f"and {left} more: --html or --json shows all"))


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
