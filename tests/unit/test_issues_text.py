"""The issue text: rendered as GitHub renders it, under logs that try to break out."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import cmarkgfm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openscope.issues import text
from pytest_openscope.issues.text import block, clean, code, cut_middle, plain, visible_lines
from pytest_openscope.records.phases import Outcome, Phase
from pytest_openscope.records.record import AcquisitionFacts, Failure

NAME = "v1:0123456789ab"
OTHER = "v1:ffffffffffff"


def render(markdown: str) -> str:
    return str(cmarkgfm.github_flavored_markdown_to_html(markdown))


class Outside(HTMLParser):
    """Collects tags and the text that stands outside of code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.depth = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self.depth += tag in ("code", "pre")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag in ("code", "pre")

    def handle_data(self, data: str) -> None:
        self.text += "" if self.depth else data


def make(message: str = "boom", log: str = "", limit: int = 60_000, traceback: str = "", tail: list[str] | None = None) -> str:
    failure = Failure(
        "exception",
        Outcome.FAILED,
        message,
        exception_type="lab.Stuck",
        traceback=traceback,
        phase=Phase.ACQUISITION,
        step=message[:50],
        acquisition=AcquisitionFacts("stim", ["stim", message], 3, stderr_tail=tail or [], stdout_tail=tail or []),
    )
    context = text.IssueContext(
        NAME, "0123abcd", "rig-a", "2026-01-02", "pytest-openscope 1", str, limit, log=log, command=message
    )
    return text.with_count(text.body(failure, context), "once")


EVIL = [
    "```\n# broken out @octocat #1 <b>bold</b>",
    "~~~\n```\n~~~\n@octocat",
    "`" * 40_000,
    "~" * 40_000 + "\n" + "`" * 40_000 + "\n@octocat",
    ("`" * 70 + "\n" + "~" * 70 + "\n@octocat #1\n") * 50,
    "</details>\n\n@octocat\n\n<script>alert(1)</script>",
    "</code></pre>@octocat<img src=x onerror=alert(1)>",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x00 \ud800 \udfff @octocat",
    "a\r\nb\rc\x0b\x0c\x1c\x85\u2028\u2029@octocat",
    "    indented\n\n\t@octocat\n> quote\n- list\n| a | b |\n|---|---|\n[link](http://x) ![](y)",
    f"Fingerprint: `{OTHER}`\nVersion: `fake`",
    f"```\n\nFingerprint: `{OTHER}`\n\n```",
    "x" * 500_000,
    "\u202eevil\u2066 \ufeff",
    "-->\n<!-- @octocat",
    "line\n" * 100_000,
]


def check(body: str, limit: int = 60_000) -> None:
    assert len(body) <= limit
    body.encode("utf-8")
    assert "\x00" not in body
    seen = Outside(render(body))
    assert "octocat" not in seen.text
    assert not seen.tags & {"script", "img", "a", "b", "blockquote", "table", "h1"}
    assert text.fingerprints_in({"title": "", "body": body}) == {NAME}
    assert text.versions_in(body) == {"pytest-openscope 1"}
    assert "Fingerprint: " in seen.text


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
@pytest.mark.parametrize("limit", [2_000, 8_000, 60_000])
def test_nothing_breaks_out(evil: str, limit: int) -> None:
    check(make(evil, evil, limit, evil, evil.split("\n")), limit)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["`" * n for n in (1, 2, 3, 4, 9, 80)] + ["~" * n for n in (3, 5, 80)]),
            st.sampled_from(
                ["@octocat", "#1", "<b>", "</details>", "\n", "\r\n", "    ", "\t", "\x00", "\ud800", "\x1b[1m", "$$"]
            ),
            st.text(max_size=20),
        ),
        max_size=60,
    ).map("".join),
    st.sampled_from([2_000, 5_000, 60_000]),
)
def test_nothing_breaks_out_of_any_text(evil: str, limit: int) -> None:
    check(make(evil, evil * 20, limit, evil * 20, (evil * 5).split("\n")), limit)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="`~ \n\tab<>@", max_size=200))
def test_a_block_renders_as_its_text(evil: str) -> None:
    content = clean(evil).strip("\n")
    html = render("before\n\n" + block(content) + "\n\nafter\n")
    assert html.startswith("<p>before</p>")
    assert html.endswith("<p>after</p>\n")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="` ab<@#\\", min_size=1, max_size=50).filter(lambda value: value.strip()))
def test_a_code_span_renders_as_its_text(evil: str) -> None:
    html = render("x " + code(evil) + " y")
    inside = re.fullmatch(r"<p>x <code>(.*)</code> y</p>\n", html)
    assert inside
    expected = " ".join(evil.split()).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    assert inside[1].strip() == expected


def test_the_log_is_cut_in_its_middle() -> None:
    body = make(log="".join(f"line {number} of the log\n" for number in range(20_000)))
    assert "line 0 of the log" in body
    assert "line 19999 of the log" in body
    assert re.search(r"\[… \d+ lines, \d+ characters left out …\]", body)
    assert 55_000 < len(body) <= 60_000


def test_small_log_is_whole_and_folded() -> None:
    body = make(log="one\ntwo\n")
    assert "<details><summary>Session log</summary>\n\n```text\none\ntwo\n```\n\n</details>" in body


@given(st.text(max_size=400), st.integers(0, 300))
def test_cut_middle_keeps_its_limit(value: str, limit: int) -> None:
    assert len(cut_middle(value, limit)) <= max(limit, 0) or len(value) <= limit


def test_title_names_type_step_and_message_and_the_fingerprint() -> None:
    failure = Failure("exception", Outcome.FAILED, "the shutter\nis stuck", "lab.x.Stuck", phase=Phase.ACQUISITION, step="open")
    assert text.title(failure, NAME, str) == f"Stuck in acquisition/open: the shutter [{NAME}]"


@given(st.text(max_size=500), st.text(max_size=300))
def test_title_is_one_safe_line_with_one_fingerprint(message: str, step: str) -> None:
    title = text.title(Failure("step", Outcome.FAILED, message + f" [{OTHER}]", step=step), NAME, str)
    assert len(title) <= 250
    assert "\n" not in title
    assert "`" not in title
    assert text.fingerprints_in({"title": title}) == {NAME}
    title.encode("utf-8")


def test_mentions_in_titles_are_broken() -> None:
    assert "@octocat" not in plain("ask @octocat", 50)


def test_visible_lines_leave_code_out() -> None:
    assert visible_lines("a\n```x\nb\n~~~\n````\nc\n    d\n\te\n~~~\nf\n```\n~~~\ng") == ["a", "c", "g"]


def test_reproduction_offers_a_dry_run() -> None:
    assert "pytest --rig-config r.yaml --dry-run    # without hardware" in make("pytest --rig-config r.yaml")


def test_comment_tells_count_times_version() -> None:
    entry = {"count": 3, "first_at": "t1", "last_at": "t2"}
    comment = text.occurrence_comment("Seen again", "rig-a", entry, "v 1")
    assert "Seen again on rig `rig-a`: 3 times on this rig so far, first at `t1`, last at `t2`." in comment
    assert text.versions_in(comment) == {"v 1"}
