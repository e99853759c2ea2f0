"""Untrusted text inside Markdown, so that nothing in it is rendered, linked, or mentions anybody.

Everything that a rig did not write itself stands in a code block or a code span. GitHub renders with cmark-gfm; the tests
render with it too. See GitHub Flavored Markdown 0.29, sections 4.4 (indented code), 4.5 (fenced code), 6.3 (code spans).
"""

from __future__ import annotations

import re

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[@-Z\\-_])?")
#: Control characters but tab and newline, and the bidirectional overrides that make text read differently than it is.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MENTION = re.compile(r"@(?=[\w\-])")
#: Beyond this a fence would be longer than what it fences.
MAX_FENCE = 64
MAX_TICKS = 8
_MANY_TICKS = re.compile(f"`{{{MAX_TICKS + 1},}}")


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
    ticks = "`" * (_longest(line, "`") + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def block(text: str) -> str:
    """Return a code block that holds the text; sized after the text is final, so cut before.

    The fence is of backticks or tildes, whichever the text has shorter runs of; a text full of both is indented instead.
    """
    ticks, tildes = _longest(text, "`"), _longest(text, "~")
    sign, longest = ("`", ticks) if ticks <= tildes else ("~", tildes)
    if longest < MAX_FENCE:
        fence = sign * max(3, longest + 1)
        return f"{fence}text\n{text}\n{fence}"
    lines = text.strip("\n").split("\n")
    return "\n".join("    " + line for line in lines)


def block_overhead(text: str) -> int:
    """Characters that :func:`block` adds to a text."""
    return len(block(text)) - len(text)


def _longest(text: str, sign: str) -> int:
    return max(map(len, re.findall(re.escape(sign) + "+", text)), default=0)


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
