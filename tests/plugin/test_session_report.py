"""``session_report.html`` is made when a session has ended, by whoever ended it, and never keeps the experiment waiting."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("bokeh", reason="the extra 'report' is not installed")


@pytest.fixture(autouse=True)
def reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENSCOPE_NO_SESSION_REPORT", raising=False)


def page(bench: Any) -> str:
    text: str = bench.wait_for(lambda: (bench.folder / "session_report.html").read_text(encoding="utf-8"), 60)
    return text


@pytest.mark.parametrize("ending", ["passed", "crashed"])
def test_it_is_there_after_every_ending(bench: Any, ending: str) -> None:
    last = "kill_me()" if ending == "crashed" else "pass"
    bench.steps(f"def test_it(experiment):\n    logging.getLogger('lab').info('a word of the lab')\n    {last}\n")
    bench.run()
    text = page(bench)
    assert f'class="outcome {ending}"' in text
    assert "test_it" in text


def test_it_can_be_turned_off(bench: Any) -> None:
    bench.steps("def test_it(experiment):\n    pass\n")
    bench.run("--no-session-report")
    bench.wait_for(lambda: '"finished"' in (bench.folder / "launcher_metadata" / "witness.jsonl").read_text())
    assert not (bench.folder / "session_report.html").exists()
    parameters = bench.metadata("input_parameters.json")
    assert parameters["session_report"] is False
