"""The ``github_issue`` block in the form that travels: plain JSON values, and never a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

DEFAULT_API = "https://api.github.com"
DEFAULT_TOKEN_ENV = "GITHUB_ISSUE_TOKEN"
#: GitHub answers 422 to a body beyond 65,536 characters; the count line is filled in when a report is sent.
GITHUB_BODY_CHARS = 65_536
MIN_BODY_CHARS = 1_000
REPORT_ON = ("exception", "pre_acquisition", "post_acquisition")


@dataclass(frozen=True)
class ReportSettings:
    """What to report, where to, and how much of it.

    Attributes:
        token_env: *name* of the environment variable that holds the token.
        report_on: any of :data:`REPORT_ON`.
        max_output_lines: lines of acquisition output, and of the log in mode ``tail``.
        launcher_log_mode: ``full`` or ``tail``.
        report_wait_s: how long a session waits at its end for the link.
        max_new_issues_per_day: per rig; further failures of that day share one issue.
        max_comments_per_issue: of this rig on one issue; from then on occurrences are only counted on the rig.
        timeout_s: hard limit of one report's dealings with the server.
    """

    enabled: bool = False
    repo: str = ""
    token_env: str = DEFAULT_TOKEN_ENV
    labels: tuple[str, ...] = ("auto-report",)
    report_on: tuple[str, ...] = REPORT_ON
    max_output_lines: int = 80
    include_launcher_log: bool = True
    launcher_log_mode: str = "full"
    sanitize_launcher_log: bool = False
    include_subject_user: bool = False
    include_rig_config: bool = False
    api_base_url: str = DEFAULT_API
    max_body_chars: int = 60_000
    report_dry_runs: bool = False
    report_wait_s: float = 5.0
    max_new_issues_per_day: int = 10
    max_comments_per_issue: int = 30
    timeout_s: float = 20.0

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ReportSettings:
        """Rebuild the settings from :meth:`as_json` or a like mapping; unknown keys (a newer version's) are left out."""
        known = {field.name: values[field.name] for field in fields(cls) if values.get(field.name) is not None}
        for name in ("labels", "report_on"):
            if name in known:
                given = known[name]
                known[name] = tuple(str(item) for item in ([given] if isinstance(given, str) else given))
        return cls(**known)

    @classmethod
    def from_any(cls, settings: Any) -> ReportSettings:
        """Accept a mapping or any dataclass with these fields."""
        if isinstance(settings, cls):
            return settings
        if isinstance(settings, Mapping):
            return cls.from_mapping(settings)
        return cls.from_mapping({field.name: getattr(settings, field.name, None) for field in fields(cls)})

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; there is no secret in them."""
        data = asdict(self)
        data["labels"], data["report_on"] = list(self.labels), list(self.report_on)
        return data

    @property
    def body_chars(self) -> int:
        """``max_body_chars`` within what GitHub takes and what a report needs."""
        return max(MIN_BODY_CHARS, min(int(self.max_body_chars), GITHUB_BODY_CHARS - 536))


def missing_token(settings: ReportSettings, environ: Mapping[str, str]) -> str:
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
