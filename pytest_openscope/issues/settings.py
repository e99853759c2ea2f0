"""How long the dealings with GitHub may take, and the warning of a missing token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..config import GithubIssueSettings


def missing_token(settings: GithubIssueSettings, environ: Mapping[str, str]) -> str:
    """Return the one warning for an enabled report without a token; "" when there is one or none is needed."""
    if not settings.enabled or environ.get(settings.token_env, "").strip():
        return ""
    return (
        f"github_issue: the environment variable {settings.token_env} holds no token; no issue will be reported"
        f" -> set {settings.token_env}, or set github_issue.enabled to false"
    )


@dataclass(frozen=True)
class Timing:
    """How long things may take and when they are tried again; all in seconds.

    Attributes:
        attempt_s: hard limit of one report's dealings with the server; the worker process is killed then.
        request_timeout_s: per socket operation; PyGithub takes whole seconds only.
        write_pace_s: between two writes; GitHub asks for one second.
        settle_s: after a creation, when to look for a lower number (lists lag seconds, at times a minute).
        trust_s: age at which a list must show an issue; until then a lost answer is looked up, not repeated.
        resettle_s: interval of further looks while the list does not show the own issue, at most ``resettle_times``.
        retry_s: first and longest interval after a passing fault.
    """

    attempt_s: float = 30.0
    request_timeout_s: int = 10
    write_pace_s: float = 1.0
    settle_s: tuple[float, ...] = (6.0, 25.0, 90.0)
    trust_s: float = 90.0
    resettle_s: float = 60.0
    resettle_times: int = 10
    retry_s: tuple[float, float] = (15.0, 3600.0)
    max_delay_s: float = 24 * 3600.0
    give_up_s: float = 30 * 24 * 3600.0

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Timing:
        """Rebuild from ``dataclasses.asdict`` after a way through JSON."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name in ("settle_s", "retry_s"):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)

    def backoff_s(self, attempts: int) -> float:
        """Doubled with every attempt, from the first to the longest interval."""
        first, longest = self.retry_s
        return float(min(longest, first * 2 ** min(attempts, 30)))
