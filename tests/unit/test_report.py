"""The session report in a real browser: what it shows, how fast it filters, and that nothing from the rig runs in it."""

from __future__ import annotations

import base64
import json
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.cli import main
from pytest_openscope.log.lines import encode_record
from pytest_openscope.views.report import SessionFiles, write_report
from pytest_openscope.views.report.page import advice

pytest.importorskip("bokeh", reason="the extra 'report' is not installed")
HOSTILE = '</script><script>document.title = "owned"</script><img src=x onerror="document.title=\'owned\'">{{ 7*7 }}'


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + b"\xff\0\0" * 2 for _ in range(2))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def session(
    folder: Path, records: int = 500, *, hostile: str = "", start: str = "2026-03-04T09:00:00+00:00", **more: Any
) -> Path:
    """Write a session folder with all that a report shows."""
    metadata = folder / "launcher_metadata"
    metadata.mkdir(parents=True)
    steps = [
        {
            "name": f"test_{name}{hostile}",
            "nodeid": name,
            "phase": phase,
            "kind": "test",
            "outcome": outcome,
            "skipped": skipped,
        }
        | {"started": f"2026-03-04T09:0{number}:00+00:00", "duration_s": 30.0, "attempts": []}
        for number, (name, phase, outcome, skipped) in enumerate(
            [
                ("weight", "pre_acquisition", "passed", ""),
                ("camera", "acquisition", "failed", ""),
                ("count", "post_acquisition", None, "camera failed"),
            ]
        )
    ]
    failure = {"kind": "exception", "outcome": "failed", "phase": "acquisition", "step": f"test_camera{hostile}"}
    end = {
        "session_uuid": folder.name,
        "subject_id": f"mouse7{hostile}",
        "user_id": "ada",
        "rig_id": "bench",
        "start_time": start,
        "stop_time": "2026-03-04T09:03:00+00:00",
        "outcome": "failed",
        "exit_code": 1,
        "steps": steps,
        "failures": [{**failure, "exception_type": "OSError", "message": f"the camera is gone{hostile}"}],
        "measurements": [
            {"name": f"weight{hostile}", "value": 25.5, "unit": "g", "minimum": 10, "maximum": 60, "passed": True, "step": "x"}
        ],
        "attachments": ["plot.png", f"{hostile.replace('/', '')}table.csv", "gone.png"],
        "notes": [f"sneezed{hostile}"],
        "experiment_data": {"experiment_notes": f"all well{hostile}"},
        "acquisitions": [{"name": f"camera{hostile}", "command": ["cam", hostile], "returncode": 1, "duration_s": 2.0}],
        "devices": {"laser": {"driver": "lab:Laser", "simulated": f"by its mock{hostile}"}},
        "mirror": {"status": "pending", "bytes_behind": 5, "reason": f"slow{hostile}"},
        **more,
    }
    (folder / "plot.png").write_bytes(png())
    (folder / f"{hostile.replace('/', '')}table.csv").write_text("a,b\n")
    texts = {
        "end_state.json": end,
        "debug_state.json": {"traceback": f"Traceback: {hostile}", "versions": {"numpy": "2.4"}, "github": {}},
        "processed_parameters.json": {"script_parameters": {"FrameRate": 60, "path": hostile}, "subject_id": "mouse7"},
        "command_line_arguments.json": {
            "value_sources": {"script_parameters": f"day1.json{hostile}", "subject_id": "--subject-id"}
        },
        "git_revisions.json": [{"name": "lab", "commit": "a" * 40, "branch": hostile, "dirty": True}],
        "changes_since_last_good.json": {"lines": [f"numpy 2.3 -> 2.4{hostile}"]},
        "resource_usage.json": [
            {"timestamp": f"2026-03-04T09:0{minute}:{second:02}+00:00", "launcher": {"cpu_percent": second, "memory_mb": 60}}
            | {"acquisition": {"cpu_percent": 90, "memory_mb": 100} if minute else None}
            | {"system": {"disk": {"free_gb": 80 - second / 10}}}
            for minute in range(3)
            for second in range(0, 60, 5)
        ],
    }
    for name, content in texts.items():
        (metadata / name).write_text(json.dumps(content), encoding="utf-8")
    began = 1772614800.0
    with open(metadata / "launcher.log", "wb") as stream:
        for number in range(records):
            level = "ERROR" if number % 100 == 7 else "INFO"
            text = f"frame {number} of the camera{hostile if number % 50 == 0 else ''}" + (
                "\nsecond line ☃" if number % 10 == 0 else ""
            )
            stream.write(encode_record(level, f"lab.{number % 3}", text, "acquisition", "test_camera", began + number / 1000))
    return folder


#: How many canvases lie below an element, in the shadow trees of bokeh's parts too.
_CANVASES = """function canvases(node) {
  return [...node.querySelectorAll("*")].reduce(
    (sum, one) => sum + (one.tagName === "CANVAS") + (one.shadowRoot ? canvases(one.shadowRoot) : 0), 0);
}"""


class Page:
    """A report in the browser, with what the browser complained of and what it asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.page = context.new_page()
        self.page.on("console", lambda one: self.complaints.append(one.text) if one.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda one: self.complaints.append(str(one)))
        self.page.on("request", lambda one: self.requests.append(one.url))
        self.page.goto(path.as_uri())
        # By selectors: what waits for a text of JavaScript is refused by the page's policy.
        self.page.wait_for_selector("html[data-log=ready]", state="attached")
        if self.page.query_selector("#plot-data") is not None:
            self.page.wait_for_selector("html[data-plots=drawn]", state="attached")

    def rows(self) -> list[str]:
        return [row.inner_text() for row in self.page.query_selector_all("#log-rows .row")]

    @property
    def background(self) -> str:
        return str(self.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    @property
    def count(self) -> str:
        text: str = self.page.inner_text("#log-count")
        return text


def test_the_page_shows_the_session_and_filters_its_log(tmp_path: Path, browser: Any) -> None:
    for number, weight in enumerate((24.0, 26.0, 25.0)):
        earlier = [{"name": "weight", "value": weight}]
        session(tmp_path / f"earlier{number}", 0, start=f"2026-03-0{number + 1}T09:00:00+00:00", measurements=earlier)
    session(tmp_path / "dry", 0, start="2026-03-03T09:00:00+00:00", dry_run=True, measurements=[{"name": "weight", "value": 1}])
    path = write_report(session(tmp_path / "mouse7_2026-03-04_09-00-00"))
    page = Page(browser, path, color_scheme="light")
    text = page.page.inner_text("body")
    for words in (
        "✗ failed",
        "the camera is gone",
        "--continue-session last",
        "camera failed",
        "25.5 g",
        "by its mock",
        "numpy 2.3 -> 2.4",
    ):
        assert words in text
    # Outcome, failure and advice come before all else.
    order = [text.index(words) for words in ("✗ failed", "First failure", "What to do now", "Dotted lines")]
    assert order == sorted(order)
    assert "3 earlier values, median 25" in page.page.content()
    assert page.page.evaluate("document.querySelector('figure img').naturalWidth") == 2
    assert "gone.png (missing)" in text
    assert page.page.evaluate(f"({_CANVASES})(document.getElementById('plots'))") >= 4
    # The log: all of it, by level, by text, and none; one record whole, with the keyboard.
    assert page.count == "500 of 500 records"
    page.page.select_option("#filter-level", label="ERROR")
    assert page.count == "5 of 500 records"
    page.page.fill("#filter-text", "FRAME 107 ")
    assert page.count == "1 of 500 records"
    (row,) = page.rows()
    assert "frame 107 of the camera" in row
    page.page.click("button[type=reset]")
    page.page.wait_for_selector("#log-count:has-text('500 of 500')")
    page.page.focus("#log-view")
    page.page.keyboard.press("Home")
    assert "second line ☃" in page.page.inner_text("#log-detail")
    page.page.keyboard.press("End")
    assert "frame 499" in page.page.inner_text("#log-detail")
    page.page.fill("#filter-text", "nothing has this")
    assert (page.count, page.rows()) == ("0 of 500 records", [])
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.background == "rgb(255, 255, 255)"
    dark = Page(browser, path, color_scheme="dark")
    assert dark.background != "rgb(255, 255, 255)"
    assert dark.page.evaluate(f"({_CANVASES})(document.getElementById('plots'))") >= 4
    assert dark.complaints == []


def test_nothing_that_the_rig_wrote_runs(tmp_path: Path, browser: Any) -> None:
    page = Page(browser, write_report(session(tmp_path / "hostile", hostile=HOSTILE)))
    page.page.wait_for_timeout(200)  # an image that fails to load would have run its handler by then
    assert page.page.title() == "✗ hostile"
    assert page.page.evaluate("document.querySelectorAll('img:not(figure img)').length") == 0
    assert "{{ 7*7 }}" in page.page.inner_text("#failure-title ~ .message")
    page.page.fill("#filter-text", "onerror")
    assert page.count == "10 of 500 records"
    assert HOSTILE[:40] in page.rows()[0]
    assert page.complaints == []
    # And the page's policy stands even where something got through.
    page.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.page.wait_for_timeout(200)
    assert page.page.title() == "✗ hostile"
    assert any("Content Security Policy" in text for text in page.complaints)


def test_a_long_session_is_made_opened_and_filtered_in_time(tmp_path: Path, browser: Any) -> None:
    """Generous limits, since machines are noisy; the figures are in the benchmarks."""
    folder = session(tmp_path / "long", 200_000)
    path = write_report(folder)
    assert path.stat().st_size < 10_000_000
    began = time.perf_counter()
    page = Page(browser, path)
    assert page.count == "200000 of 200000 records"
    page.page.fill("#filter-text", "frame 199999 ")
    assert page.count == "1 of 200000 records"
    assert float(page.page.evaluate("document.documentElement.dataset.filterMs")) < 2000
    assert time.perf_counter() - began < 60
    assert page.complaints == []


@pytest.mark.parametrize("damage", ["empty", "torn", "null", "wrong kinds", "no folder"])
def test_a_damaged_session_has_a_report_all_the_same(tmp_path: Path, damage: str) -> None:
    folder = session(tmp_path / "damaged", 3)
    for path in (folder / "launcher_metadata").iterdir():
        if damage == "empty":
            path.write_bytes(b"")
        elif damage == "torn":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif damage == "null":
            path.write_text("null")
        elif damage == "no folder":
            path.unlink()
        elif path.name == "end_state.json":
            path.write_text(
                json.dumps({"steps": [{}], "measurements": [{}], "failures": [{}], "acquisitions": [{}], "devices": {"x": {}}})
            )
    assert "What to do now" in write_report(folder, tmp_path / "page.html").read_text(encoding="utf-8")


def test_advice_names_what_is_owed(tmp_path: Path) -> None:
    folder = session(tmp_path / "one", 0, outcome="crashed", rescued={"steps": ["a"], "problem": "no pytest"}, lost_records=3)
    files = SessionFiles(folder)
    files.end["helper_failures"] = ["laser may not be safe: its command ended with 1"]
    said = advice(files.end)
    assert said[0].startswith("Look at the hardware first: laser may not be safe")
    assert any("resume" in text for text in said)
    assert any("3 log records were lost" in text for text in said)
    assert advice(SessionFiles(session(tmp_path / "two", 0, outcome="passed", mirror={"status": "verified"})).end) == [
        "Nothing is left to do."
    ]
    unwritten = {"outcome": "passed", "helper_failures": ["writing end_state.json: FileNotFoundError: Q:/sessions"]}
    assert ["could not be written" in text for text in advice(unwritten)] == [True]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = session(tmp_path / "one", 3)
    target = tmp_path / "elsewhere.html"
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("pytest_openscope.cli.report.step_back", lambda: None)
    assert main(["report", str(folder), "--output", str(target), "--open"]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert opened == [target.as_uri()]
    assert b"Content-Security-Policy" in target.read_bytes()
    assert not (folder / "session_report.html").exists()
    assert main(["report", str(tmp_path)]) == 4
    assert "is no session folder" in capsys.readouterr().err
    assert main(["report", str(folder), "--output", str(tmp_path / "no" / "x.html")]) == 1
    assert base64.b64encode(png()).decode() in target.read_text(encoding="utf-8")
    assert os.sep in str(target)
