"""What the area says, line by line, and the one-line version for logs of CI; made from what the session knows at a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...records import SessionRecord
from ..values import size


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
    parts.append(f"{count(seen.errors, 'error')}, {count(seen.warnings, 'warning')}")
    return f"still running: {'; '.join([*parts, *seen.facts])}"


def clean(text: str) -> str:
    """Return a text in one line without control characters: what a program prints must not move the cursor."""
    return "".join(sign if sign.isprintable() else " " for sign in text).strip()


def clock(seconds: float) -> str:
    """Return a duration as ``0:03:12``."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def count(number: int, what: str) -> str:
    """Return ``1 error``, ``2 errors``, ``no errors``."""
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
