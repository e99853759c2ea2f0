"""The issue that a maintainer reads: title, body, and the comments on later occurrences.

Nothing in untrusted text is rendered, linked, or mentions anybody: everything that a rig did not write itself stands in a code
block or a code span. GitHub renders with cmark-gfm; the tests render with it too. See GitHub Flavored Markdown 0.29, sections
4.4 (indented code), 4.5 (fenced code), 6.3 (code spans).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..records import AcquisitionFacts, Failure

#: Which recipe a fingerprint is made by (:mod:`.fingerprint`).
VERSION = "v1"
FINGERPRINT = re.compile(rf"{VERSION}:[0-9a-f]{{12}}")
TITLE_CHARS = 200
#: Stands where the sender writes how often; no cleaned text can hold it.
COUNT = "\x00"
#: Room that is kept for what the sender writes in place of :data:`COUNT`.
COUNT_CHARS = 200
#: Shares of the whole body that the parts before the log may take.
SHARES = {"traceback": 0.22, "stderr": 0.12, "stdout": 0.08, "faulthandler": 0.10, "config": 0.08, "versions": 0.06}
#: Packages that explain failures of a session; the whole list would bury them.
TELLING = ("pytest", "pytest-timeout", "PyYAML", "psutil", "PyGithub", "numpy", "pyserial", "pyzmq", "PyVISA", "ophyd-async")

_IN_TITLE = re.compile(rf"\[({FINGERPRINT.pattern})\]")
_FINGERPRINT_LINE = re.compile(rf"^\W{{0,4}}Fingerprint:\W{{1,4}}({FINGERPRINT.pattern})\W{{0,4}}$")
_VERSION_LINE = re.compile(r"^\W{0,4}Version:\W{1,4}([^`]+)`?$")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[@-Z\\-_])?")
#: Control characters but tab and newline, and the bidirectional overrides that make text read differently than it is.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MENTION = re.compile(r"@(?=[\w\-])")
#: Beyond this a fence would be longer than what it fences.
MAX_FENCE = 64
MAX_TICKS = 8
_MANY_TICKS = re.compile(f"`{{{MAX_TICKS + 1},}}")


@dataclass(frozen=True)
class IssueContext:
    """What the text tells besides the failure; every text in it may be private, ``mask`` makes it fit to be sent.

    Attributes:
        log: excerpt of the session log, masked already, or "" for none.
        log_note: how the excerpt was made, in this package's words.
        people: lines about subject, user, and session; empty unless the user wants them shown.
    """

    fingerprint: str
    report_id: str
    rig: str
    occurred_at: str
    version_line: str
    mask: Callable[[str], str]
    max_chars: int = 60_000
    max_output_lines: int = 80
    versions: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    log: str = ""
    log_note: str = ""
    rig_config: Any = None
    people: tuple[tuple[str, str], ...] = ()
    dry_run: bool = False


def title(failure: Failure, fingerprint: str, mask: Callable[[str], str]) -> str:
    """Return type, step and short message, and at the end the fingerprint, which finds the issue when its body was edited."""
    what = (failure.exception_type or failure.kind).rpartition(".")[2]
    where = "/".join(part for part in (str(failure.phase or ""), failure.step) if part)
    head = plain(mask(f"{what} in {where}" if where else what), 90)
    said = FINGERPRINT.sub(VERSION, mask(first_line(failure)))
    message = plain(said, TITLE_CHARS - len(head) - len(fingerprint) - 5)
    return f"{head}: {message} [{fingerprint}]" if message else f"{head} [{fingerprint}]"


def first_line(failure: Failure) -> str:
    """Return the first telling line of the failure's message."""
    return next((line for line in clean(failure.message).split("\n") if line.strip()), "")


def body(failure: Failure, context: IssueContext) -> str:
    """Return the body, at most ``context.max_chars`` long once :data:`COUNT` is replaced; only the log gives way to that."""
    limit = context.max_chars - COUNT_CHARS
    head = _head(failure, context, max(16, min(400, limit // 16)))
    if len(head) > limit:
        head = _identity(context)
    text = head
    for part in (_reproduce(context), *_evidence(failure, context, limit)):
        if part and len(text) + len(part) + 2 <= limit:
            text = f"{text}\n\n{part}"
    if context.log:
        section = _log_section(context, limit - len(text) - 2)
        text = f"{text}\n\n{section}" if section else text
    return text + "\n"


def _head(failure: Failure, context: IssueContext, width: int) -> str:
    mask = context.mask
    short = min(width, 120)
    kind = failure.exception_type or failure.kind
    where = [("phase", str(failure.phase or "")), ("step", failure.step), ("during", failure.when)]
    lines = [
        "Reported by pytest-openscope; later occurrences are counted in comments.",
        "",
        f"- **What:** {code(mask(kind), short)}: {code(mask(first_line(failure)), width)}",
        "- **Where:** "
        + (", ".join(f"{name} {code(mask(value), short)}" for name, value in where if value) or "outside any step"),
        f"- **Outcome:** {code(str(failure.outcome), 40)}" + (" (dry run)" if context.dry_run else ""),
        f"- **Rig:** {code(context.rig, short)}",
        f"- **First seen:** {code(context.occurred_at, 60)}",
        f"- **How often:** {COUNT}",
        *(f"- **{name}:** {code(value, short)}" for name, value in context.people),
        "",
        _identity(context),
        "",
        "Keep the fingerprint here or in the title: by it the rigs find this issue.",
    ]
    return "\n".join(lines)


def _identity(context: IssueContext) -> str:
    """Return the lines by which rigs find the issue and know what was reported."""
    return f"Version: {code(context.version_line)}\n\nFingerprint: `{context.fingerprint}`\n\nReport: `{context.report_id}`"


def _evidence(failure: Failure, context: IssueContext, limit: int) -> list[str]:
    parts = []
    for heading, text, share, head_share in (
        ("Traceback", failure.traceback, "traceback", 0.4),
        ("Stack of the process that died", failure.faulthandler, "faulthandler", 0.8),
    ):
        if text.strip():
            parts.append(f"### {heading}\n\n{_cut_block(context.mask(clean(text)), int(limit * SHARES[share]), head_share)}")
    if failure.acquisition is not None:
        parts.append(_acquisition(failure.acquisition, context, limit))
    parts.append(_versions(context, int(limit * SHARES["versions"])))
    if context.rig_config is not None:
        text = context.mask(json.dumps(context.rig_config, indent=2, ensure_ascii=False, default=str))
        parts.append(folded("Rig configuration", _cut_block(clean(text), int(limit * SHARES["config"]), 0.6)))
    return parts


def _acquisition(facts: AcquisitionFacts, context: IssueContext, limit: int) -> str:
    mask = context.mask
    lines = ["### Acquisition", "", f"- **Name:** {code(mask(facts.name), 120)}"]
    if facts.command:
        lines.append(f"- **Command:** {code(mask(' '.join(map(str, facts.command))), 500)}")
    lines.append(f"- **Return code:** {code(str(facts.returncode), 40)}")
    if facts.duration_s is not None:
        lines.append(f"- **Duration:** {facts.duration_s:.1f} s")
    if facts.peak_memory_mb is not None:
        lines.append(f"- **Peak memory:** {facts.peak_memory_mb:.0f} MB")
    if facts.stop_reason:
        lines.append(f"- **Stopped because:** {code(mask(facts.stop_reason), 300)}")
    for name, tail in (("stderr", facts.stderr_tail), ("stdout", facts.stdout_tail)):
        kept = tail[-context.max_output_lines :] if context.max_output_lines > 0 else []
        text = mask(clean("\n".join(kept))).strip("\n")
        if text.strip():
            lines += ["", f"Last lines of {name}:", "", _cut_block(text, int(limit * SHARES[name]), 0.0)]
    return "\n".join(lines)


def _versions(context: IssueContext, max_chars: int) -> str:
    versions = {name.lower(): version for name, version in context.versions.items()}
    known = [f"{name} {versions[name.lower()]}" for name in TELLING if name.lower() in versions]
    lines = ["### Environment", ""]
    for name in ("python", "platform", "machine"):
        if context.platform.get(name):
            lines.append(f"- {name.capitalize()}: {code(context.mask(str(context.platform[name])), 120)}")
    if known:
        lines.append(f"- Packages: {code(', '.join(known), max(80, max_chars - 200))}")
    return "\n".join(lines) if len(lines) > 2 else ""


def _reproduce(context: IssueContext) -> str:
    if not context.command:
        return ""
    command = one_line(context.mask(context.command), 800)
    dry = command if "--dry-run" in command else f"{command} --dry-run"
    return "### How to reproduce\n\n" + block(f"{dry}    # without hardware\n{command}" if dry != command else dry)


def _log_section(context: IssueContext, room: int) -> str:
    summary = f"Session log ({context.log_note})" if context.log_note else "Session log"
    room -= len(folded(summary, "")) + 1
    if room < 200:
        return ""
    return folded(summary, _cut_block(clean(context.log).strip("\n"), room, 0.3))


def _cut_block(text: str, max_chars: int, head_share: float) -> str:
    """Return a code block of at most ``max_chars``: the text is cut first, the fence sized after it."""
    text = text.strip("\n")
    room = max_chars
    for _ in range(6):
        made = block(cut_middle(text, max(0, room), head_share))
        if len(made) <= max_chars:
            return made
        room -= len(made) - max_chars
    return block("[left out: too large]")


def with_count(text: str, sentence: str) -> str:
    """Return a body with the count line filled in."""
    return text.replace(COUNT, sentence[:COUNT_CHARS], 1).replace(COUNT, "")


def fingerprints_in(issue: Mapping[str, Any]) -> set[str]:
    """Return the fingerprints that an issue carries: as a whole visible line of its body, or in its title."""
    found = set(_IN_TITLE.findall(str(issue.get("title") or "")))
    for line in visible_lines(str(issue.get("body") or "")):
        match = _FINGERPRINT_LINE.match(line)
        if match:
            found.add(match[1])
    return found


def versions_in(text: str) -> set[str]:
    """Return the versions that a body or comment tells in its own visible lines."""
    return {match[1].strip() for line in visible_lines(text or "") for match in [_VERSION_LINE.match(line)] if match}


def times(count: int) -> str:
    """Return a number of times in words."""
    return "once" if count == 1 else f"{count} times"


def occurrence_comment(lead: str, rig: str, entry: Mapping[str, Any], version_line: str) -> str:
    """Return a comment on a later occurrence; the counts in the ledger's ``entry`` are the rig's own."""
    return (
        f"{lead} on rig {code(rig, 120)}: {times(entry['count'])} on this rig so far,"
        f" first at {code(entry['first_at'], 60)}, last at {code(entry['last_at'], 60)}.\n\nVersion: {code(version_line)}\n"
    )


def clean(text: str) -> str:
    """Return text with ``\\n`` line ends and without escape sequences, control characters, and lone surrogates."""
    text = _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("\ufffd", text))


def one_line(text: str, max_chars: int) -> str:
    """Return text as one line of at most ``max_chars``."""
    line = " ".join(clean(text).split())
    return line if len(line) <= max_chars else line[: max_chars - 1].rstrip() + "…"


def plain(text: str, max_chars: int) -> str:
    """Return one line for a title: no mention, no markup that a title would render."""
    return one_line(_MENTION.sub("@\u200b", one_line(text, max_chars).replace("`", "'")), max_chars)


def code(text: str, max_chars: int = 300) -> str:
    """Return a code span that holds the text, whatever backticks are in it; long runs of them are shortened.

    cmark-gfm takes spans of at most 80 backticks.
    """
    line = _MANY_TICKS.sub("`" * MAX_TICKS + "…", one_line(text, max_chars)).strip() or " "
    ticks = "`" * (_longest_ticks(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def block(text: str) -> str:
    """Return a code block that holds the text; sized after the text is final, so cut before.

    A text whose runs of backticks are too long for a fence is indented instead.
    """
    fence = "`" * max(3, _longest_ticks(text) + 1)
    if len(fence) <= MAX_FENCE:
        return f"{fence}text\n{text}\n{fence}"
    return "\n".join("    " + line for line in text.strip("\n").split("\n"))


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def folded(summary: str, content: str) -> str:
    """Return a section that opens on a click; ``summary`` is this package's own text, ``content`` is Markdown."""
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"


def cut_middle(text: str, max_chars: int, head_share: float = 0.25) -> str:
    """Return text of at most ``max_chars``, whole lines left out of its middle, lines too long cut themselves."""
    if len(text) <= max_chars:
        return text
    room = max_chars - 60
    if room < 40:
        return text[: max(0, max_chars)]
    head = text[: int(room * head_share)]
    tail = text[len(text) - (room - len(head)) :]
    head = head.rpartition("\n")[0] or head
    tail = tail.partition("\n")[2] or tail
    left_out = text[len(head) : len(text) - len(tail)]
    lines = max(1, left_out.count("\n") - 1)
    return f"{head}\n[… {lines} lines, {len(left_out)} characters left out …]\n{tail}"


def visible_lines(body: str) -> list[str]:
    """Return the lines of a body that stand outside fenced and indented code, so that a log cannot forge one."""
    found: list[str] = []
    fence = ""
    for line in body.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        match = re.match(r" {0,3}(`{3,}|~{3,})(.*)$", line)
        if fence:
            if match and match[1].startswith(fence) and not match[2].strip():
                fence = ""
        elif match and not (match[1].startswith("`") and "`" in match[2]):
            fence = match[1]
        elif not re.match(r" {4}| {0,3}\t", line):
            found.append(line.strip())
    return found
