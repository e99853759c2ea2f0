"""What a check of a rig says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASS, WARN, FAIL, SKIP = "pass", "warn", "fail", "skip"


@dataclass(frozen=True)
class CheckResult:
    """One check.

    Attributes:
        status: pass, warn, fail or skip.
        message: what was found, in words.
        remedy: what to do about a warning or failure.
        value, unit, limit: what was measured, and the requirement it was held against.
        blocked_by: the failed check without which this one could not be measured; it is skipped, and not ready either.
        check: its name, from the test that made it; what stands before the first ``.`` or ``[`` is its group
            (``disk.write_speed``, ``devices[laser]``).
    """

    status: str
    message: str
    remedy: str = ""
    value: Any = None
    unit: str = ""
    limit: Any = None
    blocked_by: str = ""
    check: str = ""

    def __str__(self) -> str:
        remedy = f" -> {self.remedy}" if self.remedy and self.status in (WARN, FAIL) else ""
        return f"{self.check}: {self.status}: {self.message}{measured(self.value, self.unit, self.limit)}{remedy}"

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"check": self.check, **asdict(self)}


def measured(value: Any, unit: str, limit: Any) -> str:
    """Return `` [7.25 ms, limit 5 ms]``; "" where nothing was measured."""
    if not isinstance(value, float):
        return ""
    against = f", limit {limit:g} {unit}".rstrip() if isinstance(limit, (int, float)) else ""
    return f" [{value:.4g} {unit}".rstrip() + f"{against}]"


def group_of(check: str) -> str:
    """Return what stands before the first ``.`` or ``[``."""
    return check.partition("[")[0].partition(".")[0]


def at_least(value: float, limit: float | None, unit: str, what: str, remedy: str) -> CheckResult:
    """Hold a value against a minimum; without one it is measured and passes."""
    status = FAIL if limit is not None and value < limit else PASS
    return CheckResult(status, what, remedy, value, unit, limit)


def at_most(value: float, limit: float | None, unit: str, what: str, remedy: str) -> CheckResult:
    """Hold a value against a maximum; without one it is measured and passes."""
    status = FAIL if limit is not None and value > limit else PASS
    return CheckResult(status, what, remedy, value, unit, limit)


def failed_all(group: str, parts: Sequence[str], message: str, remedy: str) -> dict[str, CheckResult]:
    """Return a failure of the first part of a group, and skips of those that depend on it."""
    first = f"{group}.{parts[0]}"
    skipped = CheckResult(SKIP, f"not measured: {first} failed", blocked_by=first)
    return {**dict.fromkeys(parts, skipped), parts[0]: CheckResult(FAIL, message, remedy)}
