"""What the area says, line by line, and the one-line version for logs of CI; made from what the session knows at a moment."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

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
        if self.unit == "bytes":
            done, total = size(self.done), "" if self.total is None else size(self.total)
            unit = ""
        else:
            done, total = f"{self.done:,.10g}", "" if self.total is None else f"{self.total:,.10g}"
            unit = f" {self.unit}" if self.unit else ""
        text = f"{done} of {total}{unit}" if total else f"{done}{unit}"
        share = self.share
        return text if share is None else f"{100 * share:.0f} % ({text})"


@dataclass(frozen=True)
class Stopping:
    """What an interrupt has set in motion. ``at``: a monotonic clock."""

    text: str
    at: float


@dataclass(frozen=True)
class Waiting:
    """A question that waits for the operator. ``since``: a monotonic clock."""

    question: str
    since: float


@dataclass(frozen=True)
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
    facts: Sequence[str] = field(default_factory=tuple)

    @property
    def now(self) -> str:
        """The step that runs, or what the session does else."""
        return self.step or self.doing or "between two steps"

    @property
    def counts(self) -> str:
        """How many warnings and errors there were so far."""
        return f"{_count(self.errors, 'error')} · {_count(self.warnings, 'warning')}"


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
    return f"still running: {'; '.join([*parts, seen.counts.replace(' · ', ', '), *seen.facts])}"


def clean(text: str) -> str:
    """Return a text in one line without control characters: what a program prints must not move the cursor."""
    return "".join(sign if sign.isprintable() else " " for sign in text).strip()


def clock(seconds: float) -> str:
    """Return a duration as ``0:03:12``."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def size(count: float) -> str:
    """Return a number of bytes in the unit in which it reads best."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count:.0f} bytes"


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
        from rich.text import Text

        console = self._console(width)
        rows: list[RenderableType] = [
            self._rule(seen, width),
            _row(Text(f"▶ {seen.now}", "bold cyan"), Text("" if seen.step_s is None else clock(seen.step_s), "bold")),
        ]
        if seen.progress is not None:
            rows.append(_bar(seen.progress, width))
        if seen.last_output is not None:
            source, line = seen.last_output
            rows.append(_row(Text.assemble((f"  {source}: ", "dim"), line), Text("")))
        counts = Text.assemble(
            ("  " + _count(seen.errors, "error"), "bold red" if seen.errors else ""),
            " · ",
            (_count(seen.warnings, "warning"), "yellow" if seen.warnings else ""),
            *(part for fact in seen.facts for part in (" · ", fact)),
        )
        rows.append(_row(counts, Text("")))
        if seen.stopping:
            rows += self._wrapped(console, f"!! {seen.stopping}", f"{clock(seen.stopping_s)} ago")
        if seen.waiting:
            rows.append(
                _row(
                    Text(f">> ANSWER NEEDED: {seen.waiting}", "bold reverse"), Text(f"waiting {clock(seen.waiting_s)}", "bold")
                )
            )
        with console.capture() as captured:
            for row in rows:
                console.print(row, soft_wrap=False)
        text = captured.get().removesuffix("\n")
        return (text.translate(_PLAIN_SIGNS) if self._ascii_only else text).split("\n")

    def prompt_line(self, text: str, width: int) -> str:
        """Return the line above a question, which rings the bell."""
        from rich.text import Text

        console = self._console(width)
        with console.capture() as captured:
            console.print(Text(text, "bold reverse", no_wrap=True, overflow="ellipsis"))
        shown = captured.get().removesuffix("\n")
        return "\a" + (shown.translate(_PLAIN_SIGNS) if self._ascii_only else shown)

    def _console(self, width: int) -> Console:
        from rich.console import Console

        return Console(
            file=io.StringIO(),
            width=width,
            force_terminal=True,
            color_system="standard" if self._colour else None,
            no_color=not self._colour,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def _rule(self, seen: Seen, width: int) -> RenderableType:
        from rich.text import Text

        end = f" session {clock(seen.session_s)} ──"
        title = Text(f"── openscope · {seen.title} ", no_wrap=True)
        title.truncate(width - len(end), overflow="ellipsis")
        return Text(f"{title.plain}{'─' * (width - len(end) - title.cell_len)}{end}", "dim", no_wrap=True)

    @staticmethod
    def _wrapped(console: Console, text: str, right: str) -> list[RenderableType]:
        from rich.text import Text

        width = console.width - len(right) - 1
        lines = list(Text(text, "bold yellow").wrap(console, width))
        if len(lines) > _MOST_LINES:
            lines = lines[:_MOST_LINES]
            lines[-1].truncate(width - 1)
            lines[-1].append("…")
        return [_row(line, Text("" if number else right, "bold")) for number, line in enumerate(lines)]


def _row(left: RenderableType, right: RenderableType) -> RenderableType:
    from rich.table import Table

    row = Table.grid(expand=True, padding=(0, 1))
    row.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    row.add_column(justify="right", no_wrap=True)
    row.add_row(left, right)
    return row


def _bar(progress: Progress, width: int) -> RenderableType:
    from rich.text import Text

    left = progress.left_s
    text = f"{progress}{'' if left is None or progress.share == 1 else f', about {clock(left)} left'}"
    if progress.share is None:
        return _row(Text(f"  {text}"), Text(""))
    columns = max(8, min(40, width - len(text) - 4))
    filled = int(progress.share * columns)
    return _row(Text.assemble("  ", ("█" * filled, "green"), ("░" * (columns - filled), "dim"), f" {text}"), Text(""))
