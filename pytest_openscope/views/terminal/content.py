"""What the area says, line by line, and the one-line version for logs of CI; made from what the session knows at a moment."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ...records import SessionRecord
from ..values import size

#: What stands for these signs where a terminal shows ASCII only.
_PLAIN_SIGNS = str.maketrans({"─": "-", "█": "#", "░": ".", "·": "|", "▶": ">", "…": "~"})
#: A message on what Ctrl-C has set in motion takes at most so many lines.
_MOST_LINES = 3


@dataclass(frozen=True)
class Progress:
    """How far a step is: ``done`` of ``total`` of what ``unit`` names, from ``began`` to ``at`` on the monotonic clock."""

    done: float
    total: float | None
    unit: str
    began: float
    at: float

    @property
    def share(self) -> float | None:
        """From 0 to 1; None without a total."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total and self.total > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest takes at the pace so far; None where that cannot be told."""
        share, passed_s = self.share, self.at - self.began
        return passed_s * (1 - share) / share if share and passed_s > 0 else None

    def __str__(self) -> str:
        number = size if self.unit == "bytes" else "{:,.10g}".format
        text = number(self.done) if self.total is None else f"{number(self.done)} of {number(self.total)}"
        if self.unit != "bytes":
            text = f"{text} {self.unit}".rstrip()
        return text if self.share is None else f"{100 * self.share:.0f} % ({text})"


@dataclass(frozen=True)
class Stopping:
    """What an interrupt has set in motion. ``at``: a monotonic clock."""

    text: str
    at: float


class Shown(Protocol):
    """What people see of a session while it runs and at its end; read without a lock, and never changed."""

    record: SessionRecord
    folder: Path
    configuration: Any
    validating: bool
    log: Any
    mirror: dict[str, Any]
    mirror_lag: dict[str, Any] | None
    progress: Progress | None
    stopping: Stopping | None
    last_output: tuple[str, bytes] | None
    doing: str
    reports: list[dict[str, Any]]
    missing_token: str
    recorder: Any
    sidecar: Any

    def guard(self, what: str, action: Callable[[], object]) -> bool:
        """Run what only helps; False when it failed."""

    def fresh_notices(self) -> list[str]:
        """Return the notices that the terminal has not shown yet."""


@dataclass
class Seen:
    """What there is to show at a moment; times in seconds."""

    title: str = ""
    step: str = ""
    step_s: float | None = None
    session_s: float = 0.0
    doing: str = ""
    last_output: tuple[str, str] | None = None
    progress: Progress | None = None
    waiting: str = ""
    waiting_s: float = 0.0
    stopping: str = ""
    stopping_s: float = 0.0
    errors: int = 0
    warnings: int = 0
    facts: Sequence[str] = ()

    @property
    def now(self) -> str:
        """The step that runs, or what the session does else."""
        return self.step or self.doing or "between two steps"


def plain_line(seen: Seen) -> str:
    """Return the sign of life: all that matters in one line."""
    took = f" for {clock(seen.step_s)}" if seen.step_s is not None else ""
    parts = [f"{seen.now}{took}", f"session {clock(seen.session_s)}"]
    if seen.waiting:
        parts.insert(0, f"WAITING for an answer for {clock(seen.waiting_s)}: {seen.waiting}")
    if seen.stopping:
        parts.insert(0, f"{seen.stopping} ({clock(seen.stopping_s)} ago)")
    if seen.progress is not None:
        parts.append(str(seen.progress))
    if seen.last_output is not None:
        parts.append(": ".join(seen.last_output))
    parts.append(f"{_count(seen.errors, 'error')}, {_count(seen.warnings, 'warning')}")
    return f"still running: {'; '.join([*parts, *seen.facts])}"


def clean(text: str) -> str:
    """Return a text in one line without control characters: what a program prints must not move the cursor."""
    return "".join(sign if sign.isprintable() else " " for sign in text).strip()


def clock(seconds: float) -> str:
    """Return a duration as ``0:03:12``."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


class Picture:
    """Makes the area's lines, with rich.

    Args:
        colour: False leaves every attribute away, bold included; what matters is said in words in any case.
        ascii_only: use no other characters.
    """

    def __init__(self, colour: bool, ascii_only: bool = False) -> None:
        self._colour, self._ascii_only = colour, ascii_only

    def lines(self, seen: Seen, width: int) -> list[str]:
        """Return the lines, none wider than ``width``."""
        rows: list[RenderableType] = [
            _rule(seen, width),
            _row(Text(f"▶ {seen.now}", "bold cyan"), "" if seen.step_s is None else clock(seen.step_s)),
        ]
        if seen.progress is not None:
            rows.append(_bar(seen.progress, width))
        if seen.last_output is not None:
            source, line = seen.last_output
            rows.append(_row(Text.assemble((f"  {source}: ", "dim"), line)))
        counts = Text.assemble(
            ("  " + _count(seen.errors, "error"), "bold red" if seen.errors else ""),
            " · ",
            (_count(seen.warnings, "warning"), "yellow" if seen.warnings else ""),
            *(part for fact in seen.facts for part in (" · ", fact)),
        )
        rows.append(_row(counts))
        if seen.stopping:
            since = f"{clock(seen.stopping_s)} ago"
            lines = textwrap.wrap(f"!! {seen.stopping}", width - len(since) - 1, max_lines=_MOST_LINES, placeholder=" …")
            rows += [_row(Text(line, "bold yellow"), "" if number else since) for number, line in enumerate(lines)]
        if seen.waiting:
            rows.append(_row(Text(f">> ANSWER NEEDED: {seen.waiting}", "bold reverse"), f"waiting {clock(seen.waiting_s)}"))
        return self._drawn(rows, width).split("\n")

    def prompt_line(self, text: str, width: int) -> str:
        """Return the line above a question, which rings the bell."""
        return "\a" + self._drawn([Text(text, "bold reverse", no_wrap=True, overflow="ellipsis")], width)

    def _drawn(self, rows: Iterable[RenderableType], width: int) -> str:
        console = Console(
            file=io.StringIO(),
            width=width,
            force_terminal=True,
            color_system="standard" if self._colour else None,
            no_color=not self._colour,
            legacy_windows=False,
        )
        with console.capture() as captured:
            for row in rows:
                console.print(row)
        text = captured.get().removesuffix("\n")
        return text.translate(_PLAIN_SIGNS) if self._ascii_only else text


def _rule(seen: Seen, width: int) -> Text:
    end = f" session {clock(seen.session_s)} ──"
    title = Text(f"── openscope · {seen.title} ", no_wrap=True)
    title.truncate(width - len(end), overflow="ellipsis")
    return Text(f"{title.plain}{'─' * (width - len(end) - title.cell_len)}{end}", "dim", no_wrap=True)


def _row(left: Text, right: str = "") -> Table:
    row = Table.grid(expand=True, padding=(0, 1))
    row.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    row.add_column(justify="right", no_wrap=True, style="bold")
    row.add_row(left, Text(right))
    return row


def _bar(progress: Progress, width: int) -> Table:
    left = progress.left_s
    text = f"{progress}{'' if left is None or progress.share == 1 else f', about {clock(left)} left'}"
    if progress.share is None:
        return _row(Text(f"  {text}"))
    columns = max(8, min(40, width - len(text) - 4))
    filled = int(progress.share * columns)
    return _row(Text.assemble("  ", ("█" * filled, "green"), ("░" * (columns - filled), "dim"), f" {text}"))
