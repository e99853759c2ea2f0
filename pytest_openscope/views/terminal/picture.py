"""Draws the area at the terminal's foot with rich."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from .content import Progress, Seen, clock, count

#: What stands for these signs where a terminal shows ASCII only.
_PLAIN_SIGNS = str.maketrans({"─": "-", "█": "#", "░": ".", "·": "|", "▶": ">", "…": "~"})
#: A message on what Ctrl-C has set in motion takes at most so many lines.
_MOST_LINES = 3


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
            ("  " + count(seen.errors, "error"), "bold red" if seen.errors else ""),
            " · ",
            (count(seen.warnings, "warning"), "yellow" if seen.warnings else ""),
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
