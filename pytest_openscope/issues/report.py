"""From a failed session to reports that can be sent without it: one per distinct failure, whole, masked, JSON-safe."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import GithubIssueSettings
from ..log import mask_json
from ..records import METADATA, Failure, Outcome, Phase, failures_in
from ..system import command_line, now_iso
from .fingerprint import Sources, fingerprint_of
from .privacy import Privacy
from .text import IssueContext, body, clean, first_line, plain, title

#: Bytes read at each end of a log, per character of the body.
LOG_READ_FACTOR = 4
#: What is dropped at an edge that was cut within a line, so that half a secret cannot stay.
EDGE_CHARS = 4096


def missing_token(settings: GithubIssueSettings, environ: Mapping[str, str]) -> str:
    """Return the one warning for an enabled report without a token; "" when there is one or none is needed."""
    if not settings.enabled or environ.get(settings.token_env, "").strip():
        return ""
    return (
        f"github_issue: the environment variable {settings.token_env} holds no token; no issue will be reported"
        f" -> set {settings.token_env}, or set github_issue.enabled to false"
    )


def is_reportable(failure: Failure, settings: GithubIssueSettings) -> bool:
    """Tell whether ``report_on`` asks for this failure; never for an operator's interrupt or slip."""
    if failure.kind in ("interrupt", "usage") or failure.outcome in (Outcome.INTERRUPTED, Outcome.PASSED):
        return False
    if failure.phase is not None and str(failure.phase) in settings.report_on:
        return True
    if "exception" not in settings.report_on:
        return False
    unexpected = (
        failure.kind in ("acquisition", "timeout", "crash", "internal", "collection") or failure.outcome is not Outcome.FAILED
    )
    return unexpected or failure.phase in (None, Phase.ACQUISITION)


def build_report(
    debug_state: Mapping[str, Any],
    settings: GithubIssueSettings | Mapping[str, Any],
    *,
    facts: Mapping[str, Any],
    session_folder: Path,
    secrets: Iterable[str] = (),
    rig_config: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[dict[str, Any]]:
    """Return one report per distinct reportable failure of a session, ready for :func:`.outbox.enqueue`.

    Args:
        facts: the journal's ``session`` event.
        secrets: exact values that must not leave the rig; the token is added.
        rig_config: the rig's values, sent only if ``include_rig_config``.
    """
    settings = GithubIssueSettings.of(settings)
    dry_run = bool(facts.get("dry_run"))
    if not settings.enabled or not settings.repo or (dry_run and not settings.report_dry_runs):
        return []
    people = {"Session": facts.get("session_uuid"), "Subject": facts.get("subject_id"), "User": facts.get("user_id")}
    privacy = Privacy(
        secrets=[*secrets, environ.get(settings.token_env, "")],
        session_uuid=people["Session"],
        subject_id=people["Subject"],
        user_id=people["User"],
    )
    shows_people = settings.include_subject_user
    mask = privacy.always if shows_people else privacy.private
    platform = debug_state.get("platform") or {}
    shared = IssueContext(
        fingerprint="",
        report_id="",
        rig=mask(privacy.rig_name(facts["rig_id"])),
        occurred_at=str(debug_state.get("timestamp") or now_iso()),
        version_line=version_of(session_folder, mask),
        mask=mask,
        max_chars=settings.body_chars,
        max_output_lines=settings.max_output_lines,
        versions=debug_state.get("versions") or {},
        platform=platform,
        command=mask(command_line(facts.get("command_line") or ())),
        rig_config=mask_json(rig_config, privacy.masker) if settings.include_rig_config else None,
        people=tuple((key, privacy.always(value)) for key, value in people.items() if value and shows_people),
        dry_run=dry_run,
    )
    names = [*people.values(), facts["rig_id"], *privacy.machine.hosts, *privacy.machine.user_names]
    private, sources = tuple(filter(None, names)), Sources(platform.get("python", ""))
    log = _log_excerpts(session_folder, settings, privacy) if settings.include_launcher_log else ("", "", "")
    reports: dict[str, dict[str, Any]] = {}
    for failure in failures_in(debug_state):
        name = fingerprint_of(failure, private, sources) if is_reportable(failure, settings) else ""
        if name and name not in reports:
            report_id, occurred_at = report_id_of(facts, settings, name), failure.at or shared.occurred_at
            context = replace(shared, fingerprint=name, report_id=report_id, occurred_at=occurred_at)
            reports[name] = _report(failure, context, log, settings, session_folder / METADATA)
    return list(reports.values())


def _report(
    failure: Failure, context: IssueContext, log: tuple[str, str, str], settings: GithubIssueSettings, metadata: Path
) -> dict[str, Any]:
    text, text_public, note = log
    made = public = body(failure, replace(context, log=text, log_note=note))
    if text_public != text:
        public = body(failure, replace(context, log=text_public, log_note=note + ", names masked"))
    name = context.fingerprint
    return {
        "version": 1,
        "id": context.report_id,
        "fingerprint": name,
        "title": title(failure, name, context.mask),
        "summary": plain(context.mask(f"{failure.exception_type or failure.kind}: {first_line(failure)}"), 160),
        "body": made,
        "body_public": "" if public == made else public,
        "rig": context.rig,
        "occurred_at": context.occurred_at,
        "version_line": context.version_line,
        "debug_state": str(metadata / "debug_state.json"),
        "sent_copy": str(metadata / f"github_report_{name.replace(':', '_')}.md"),
        "settings": settings.as_json(),
        "state": {"attempts": 0, "next_try": 0.0, "queued_at": now_iso()},
    }


def report_id_of(facts: Mapping[str, Any], settings: GithubIssueSettings, name: str) -> str:
    """Return the id of a session's report on one defect: the same whoever makes it and however often, so it counts once.

    It is public, and nobody can find the session's name by trying: the monotonic clock of a start is not to be guessed.
    """
    if "mono" not in facts:
        return uuid.uuid4().hex[:12]
    parts = [facts["session_uuid"], facts["rig_id"], str(facts["pid"]), repr(facts["mono"])]
    parts += [settings.api_base_url, settings.repo, name]
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:12]


def version_of(session_folder: Path, mask: Callable[[str], str]) -> str:
    """Return one line that changes whenever the code does: this package's version, and the commits in use.

    A failure of a version that an issue knows already is no regression.
    """
    try:
        revisions = json.loads((session_folder / METADATA / "git_revisions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        revisions = []
    found = [f"pytest-openscope {__version__}"]
    for revision in revisions:
        mark = (revision.get("commit") or "")[:12] or revision.get("package_version")
        if mark and revision["name"] != "pytest-openscope":
            found.append(f"{revision['name']} {mark}")
    return clean(mask(", ".join(dict.fromkeys(found)))).replace("`", "'").replace("\n", " ")[:280]


def _log_excerpts(session_folder: Path, settings: GithubIssueSettings, privacy: Privacy) -> tuple[str, str, str]:
    """Return the excerpt for a private repository, the one for a public one, and how it was made."""
    raw = read_ends(session_folder / METADATA / "launcher.log", settings.body_chars * LOG_READ_FACTOR)
    note = "whole, as far as it fits"
    if settings.launcher_log_mode == "tail":
        lines = raw.rstrip("\n").split("\n")
        raw = "\n".join(lines[-settings.max_output_lines :] if settings.max_output_lines > 0 else [])
        note = f"last {settings.max_output_lines} lines"
    masked = privacy.private(raw)
    sanitize = settings.sanitize_launcher_log and not settings.include_subject_user
    return (masked, masked, note + ", names masked") if sanitize else (privacy.always(raw), masked, note)


def read_ends(path: Path, max_bytes: int) -> str:
    """Return a text file; of one larger than ``2 * max_bytes`` only both ends, whole lines where lines are short enough.

    Programs on Windows end lines with two characters. A report has one.
    """
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size <= 2 * max_bytes:
                return stream.read().decode("utf-8", "replace").replace("\r\n", "\n")
            head = stream.read(max_bytes).decode("utf-8", "replace")
            stream.seek(size - max_bytes)
            tail = stream.read(max_bytes).decode("utf-8", "replace")
    except OSError:
        return ""
    head = head.rpartition("\n")[0] or head[:-EDGE_CHARS]
    tail = tail.partition("\n")[2] or tail[EDGE_CHARS:]
    return f"{head}\n[… {size - len(head) - len(tail)} bytes left out …]\n{tail}".replace("\r\n", "\n")
