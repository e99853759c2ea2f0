"""Alerts and OpenTelemetry in real sessions: what a user writes, what arrives, and where no address ever stands."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("apprise", reason="the extra 'alerts' is not installed")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra 'otel' is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from otlp_kit import Receiver, plain
from test_alerts import Inbox

RIG = "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\n"
TOKEN = "zq-tok3n-9x"
HOOK = "zq-h00k-7y"


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    one = Inbox()
    one.url = one.url.replace("tok3n-of-the-lab", TOKEN).replace("h00k-path", HOOK)
    yield one
    one.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


def holding(folder: Path, *words: str) -> list[str]:
    """Name the files below a folder that hold one of the words, however it is spelt there."""
    spelt = [form.encode() for word in words for form in (word, word.replace("-", "%2D"))]
    return [str(path) for path in folder.rglob("*") if path.is_file() and any(form in path.read_bytes() for form in spelt)]


@pytest.mark.parametrize("given", ["rig file", "environment", "command line", "replaced", "parameter file"])
def test_no_file_of_a_failed_session_holds_an_address(
    bench: Any, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("LAB_ALERTS", inbox.url)
    bench.write("p.json", json.dumps({"alerts": {"to": [inbox.url.replace(HOOK, "zq-other")]}}))
    to, more = {
        "rig file": (f"['{inbox.url}']", []),
        "environment": ("$LAB_ALERTS", []),
        "command line": ("[]", ["--param", f"alerts.to=['{inbox.url}']"]),
        "parameter file": ("[]", ["--params", "p.json", "--param", f"alerts.to=['{inbox.url}']"]),
        "replaced": (f"['{inbox.url.replace(HOOK, 'zq-other')}']", ["--param", f"alerts.to=['{inbox.url}']"]),
    }[given]
    bench.write("rig.yaml", f"{RIG}alerts:\n  to: {to}\n")
    bench.steps("def test_it(experiment):\n    assert False, 'no light for mouse7'\n")
    result = bench.run("-l" if given == "rig file" else "-v", *more)
    assert result.ret == 1
    message = bench.wait_for(lambda: inbox.messages)[0]
    assert message["title"] == "bench: the session ended as failed"
    assert "acquisition › test_it" in message["message"]
    assert "no light for <subject>" in message["message"]
    bench.wait_for(lambda: '"finished"' in (bench.folder / "launcher_metadata" / "witness.jsonl").read_text())
    assert len(inbox.messages) == 1
    words = (TOKEN, HOOK, "zq-other")
    assert holding(bench.path / "sessions", *words) == []
    assert holding(bench.path / "state", *words) == []
    assert not any(word in "\n".join([*result.outlines, *result.errlines]) for word in words)
    assert bench.metadata("processed_parameters.json")["alerts"]["to"] != [inbox.url]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals of POSIX")
def test_a_question_at_the_terminal_that_nobody_answers_is_told(bench: Any, inbox: Inbox) -> None:
    from test_terminal import Terminal

    bench.write("rig.yaml", f"{RIG}alerts:\n  to: ['{inbox.url}']\n  after_s: 1s\n")
    bench.steps("def test_it(operator):\n    operator.ask('Is mouse7 in?')\n")
    command = [*bench.command("--subject-id", "mouse7", "--user-id", "ada", ids=False)]
    terminal = Terminal(command, bench.path)
    try:
        terminal.until("Is mouse7 in?")
        message = bench.wait_for(lambda: inbox.messages)[0]
        assert message["title"] == "bench: a question waits for an answer"
        assert message["message"].endswith(": Is <subject> in?")
        terminal.type("yes\n")
        terminal.until("Notes on this session")
        terminal.type("\n")
        assert terminal.end() == 0
    finally:
        terminal.close()


def test_a_dry_run_tells_nobody_and_sends_nothing(bench: Any, inbox: Inbox, receiver: Receiver) -> None:
    bench.write("rig.yaml", f"{RIG}alerts:\n  to: ['{inbox.url}']\notel:\n  endpoint: {receiver.url}\n")
    bench.steps("def test_it(experiment):\n    assert False\n")
    assert bench.run("--dry-run").ret == 1
    bench.wait_for(lambda: '"finished"' in (bench.folder / "launcher_metadata" / "witness.jsonl").read_text())
    assert not inbox.tried
    assert not receiver.requests


@pytest.mark.parametrize("given", ["rig file", "command line"])
def test_a_crash_is_told_and_the_rest_of_post_acquisition_runs_all_the_same(bench: Any, inbox: Inbox, given: str) -> None:
    block = f"alerts:\n  to: ['{inbox.url}']\n" if given == "rig file" else ""
    more = [] if given == "rig file" else ["--param", f"alerts={{to: ['{inbox.url}'], on: [crashed]}}"]
    bench.write("rig.yaml", RIG + block)
    bench.steps(
        "def test_video(experiment):\n    kill_me()\n\n"
        "@pytest.mark.post_acquisition(after_crash=True)\ndef test_after(experiment):\n    pass\n"
    )
    bench.run(*more)
    bench.wait_for(lambda: '"finished"' in (bench.folder / "launcher_metadata" / "witness.jsonl").read_text(), 60)
    assert [one["title"] for one in inbox.messages] == ["bench: the session's process or the computer died"]
    assert bench.outcomes()["test_after"] == "passed"
    assert holding(bench.path / "sessions", TOKEN, HOOK) == []


def test_a_whole_session_reaches_the_collector(bench: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-key={TOKEN}")
    bench.write("rig.yaml", f"{RIG}otel:\n  endpoint: {receiver.url}/\n")
    bench.steps(
        "@pytest.mark.pre_acquisition\ndef test_before(experiment):\n    pass\n\n"
        "def test_video(experiment):\n    logging.getLogger('lab').info('a word of mouse7')\n\n"
        "@pytest.mark.post_acquisition\ndef test_after(experiment):\n    assert False\n"
    )
    assert bench.run().ret == 1
    bench.wait_for(lambda: not list((bench.path / "state" / "otel").iterdir()) and receiver.spans, 60)
    assert {headers["x-key"] for _, _, headers in receiver.requests} == {TOKEN}
    expected = [entry.message.replace("mouse7", "<subject>").replace("ada", "<user>") for entry in bench.log]
    # Windows keeps temporary folders in the user's profile.
    expected = [re.sub(r"[A-Z]:\\Users\\[^\\]+", "~", text, flags=re.IGNORECASE) for text in expected]
    assert receiver.bodies == expected
    spans = {span.name: (plain(span.attributes).get("openscope.phase"), span.status.code) for span in receiver.spans}
    assert spans == {
        "test_before": ("pre_acquisition", 1),
        "test_video": ("acquisition", 1),
        "test_after": ("post_acquisition", 2),
        "session": (None, 2),
    }
    (word,) = [record for _, scope, record in receiver.records if scope == "lab"]
    (video,) = [span for span in receiver.spans if span.name == "test_video"]
    assert word.span_id == video.span_id
    assert holding(bench.path / "sessions", TOKEN) == []


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("alerts: slack://zq-tok3n-9x/b/c", ["alerts: a mapping expected"]),
        ("alerts:\n  to: {a: slack://zq-tok3n-9x/b}", ["alerts.to: is no list of addresses"]),
        ("alerts:\n  to: [zq-tok3n-9x]", ["alerts.to: address number 1 does not begin with mailto://"]),
        ("alerts:\n  to: [$NOT_SET_ANYWHERE]", ["alerts.to: address number 1", "environment variable"]),
        ("alerts:\n  to: ['nosuch://zq-tok3n-9x']", ["alerts.to: address number 1 is none that apprise can send to"]),
        ("alerts:\n  on: [failed]", ["alerts.to: is missing"]),
        ("alerts:\n  url: slack://zq-tok3n-9x\n  to: ['json://h']", ["alerts.url: unknown key"]),
        ("alerts:\n  to: ['json://h']\n  on: [fails]", ["alerts.on", "did you mean failed?"]),
        ("otel:\n  endpoint: collector:4318", ["otel.endpoint", "no address"]),
        ("otel: {}", ["otel.endpoint: is missing"]),
        ("otel:\n  endpoint: http://h:1\n  signals: [spans]", ["otel.signals", "none of logs, traces, metrics"]),
    ],
)
def test_a_mistake_is_told_before_anything_starts_without_the_address(bench: Any, block: str, words: list[str]) -> None:
    bench.write("rig.yaml", f"{RIG}{block}\n")
    bench.steps("def test_it(experiment):\n    pass\n")
    result = bench.run_here()
    assert result.ret == 4
    text = "\n".join([*result.outlines, *result.errlines])
    assert all(word in text for word in words), text
    assert "zq-tok3n-9x" not in text
    assert not (bench.path / "sessions").exists()


def test_a_missing_extra_names_the_command_that_installs_it(bench: Any) -> None:
    bench.write("rig.yaml", f"{RIG}alerts:\n  to: ['json://h']\notel:\n  endpoint: http://h:1\n")
    bench.steps("def test_it(experiment):\n    pass\n")
    bench.write(
        "sitecustomize.py",
        "from importlib.machinery import PathFinder\n"
        "real = PathFinder.find_spec\n"
        "def find_spec(cls, name, path=None, target=None):\n"
        "    return None if name.split('.')[0] in ('apprise', 'opentelemetry') else real(name, path, target)\n"
        "PathFinder.find_spec = classmethod(find_spec)\n",
    )
    result = bench.run(fresh=True)
    text = "\n".join([*result.outlines, *result.errlines])
    assert result.ret == 4
    assert 'pip install "pytest-openscope[alerts]"' in text
    assert 'pip install "pytest-openscope[otel]"' in text
    assert not (bench.path / "sessions").exists()
    assert bench.run("--dry-run", fresh=True).ret == 0
