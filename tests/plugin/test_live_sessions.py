"""Whole sessions with ``--live``: at a terminal and in Chromium, stopped from the page, killed beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import warm
from share_kit import living_processes

from tests.unit.test_live_page import Stream

pytest.importorskip("uvicorn", reason="the extra 'live' is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
URL = re.compile(r"live page: (http://\S+)")
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(autouse=True)
def no_page_stays(bench: Any) -> Iterator[None]:
    yield
    for process, line in living_processes():
        if "pytest_openscope.views.live.server" in line:
            files = {one.path for one in _files(process)} if process.is_running() else set()
            if any(path.startswith(str(bench.path)) for path in files):
                process.kill()


def _files(process: psutil.Process) -> list[Any]:
    try:
        return list(process.open_files())
    except (psutil.Error, OSError):
        return []


class Live:
    """A session with a live page; nobody sits at a terminal."""

    def __init__(self, bench: Any, *arguments: str) -> None:
        self.bench = bench
        command = [*bench.command("--live", *arguments, ids=False), "--subject-id", "m", "--user-id", "u"]
        environment = {key: value for key, value in os.environ.items() if key != "CI"}
        self.said = bench.path / "said.txt"
        with open(self.said, "wb") as said:
            self.process = warm.start(command, cwd=bench.path, env=environment, stdout=said, stderr=said)
        self.url = str(bench.wait_for(self._url))

    def _url(self) -> str | None:
        found = URL.search(self.said.read_text(encoding="utf-8"))
        return found[1] if found else None

    def post(self, what: str, **body: Any) -> Any:
        headers = {"Content-Type": "application/json", "Origin": self.url.rpartition("/")[0].rpartition("/")[0]}
        request = urllib.request.Request(self.url + what, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture
def start(bench: Any) -> Iterator[Callable[..., Live]]:
    started: list[Live] = []

    def start(*arguments: str) -> Live:
        started.append(Live(bench, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def test_answers_and_one_stop_without_a_terminal(bench: Any, start: Callable[..., Live]) -> None:
    """The page's answers reach the step; its stop is one Ctrl-C: post-acquisition runs."""
    bench.steps(
        """
def test_record(operator, experiment):
    experiment.measure("weight", operator.number("Weight?", minimum=10, maximum=60, unit="g"), unit="g")
    try:
        time.sleep(60)
    finally:
        print("stopped")

@pytest.mark.post_acquisition
def test_save():
    print("saved")
"""
    )
    live = start()
    stream = Stream(live.url)
    question = stream.state(lambda state: state["question"])["question"]
    assert (question["kind"], question["text"], question["maximum"]) == ("number", "Weight?", 60)
    live.post("answer", question=question["id"], text="7")
    again = stream.state(lambda state: state["question"] and state["question"]["id"] != question["id"])["question"]
    assert again["text"] == "7 is outside 10 to 60 g. Weight?"
    live.post("answer", question=again["id"], text="24,5")
    assert stream.state(lambda state: state["measurements"])["measurements"][0]["value"] == 24.5
    live.post("stop", stops=0)
    notes = stream.state(lambda state: state["question"] and state["question"]["kind"] == "lines")["question"]
    live.post("answer", question=notes["id"], text="stopped by hand\nsince the animal slept")
    assert stream.session(status="ended")["outcome"] == {"outcome": "interrupted", "exit_code": 2}
    assert live.process.wait(100) == 2
    assert [(step["name"], step["outcome"]) for step in bench.end["steps"]] == [
        ("test_record", "interrupted"),
        ("test_save", "passed"),
    ]
    assert bench.end["experiment_data"]["experiment_notes"] == "stopped by hand\nsince the animal slept"
    assert "the live page's stop button: " in bench.messages
    token = live.url.rstrip("/").rpartition("/")[2]
    for path in bench.folder.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


def test_the_page_tells_of_a_crash(bench: Any, start: Callable[..., Live]) -> None:
    bench.steps("def test_it():\n    open('begun', 'w').close()\n    time.sleep(60)\n")
    live = start()
    stream = Stream(live.url)
    bench.wait_for((bench.path / "begun").exists)
    live.process.kill()
    told = stream.state(lambda state: state["status"] == "died" and state["outcome"])
    assert (told["outcome"]["outcome"], len(told["failures"])) == ("crashed", 1)
    with urllib.request.urlopen(live.url, timeout=10) as page:
        assert page.status == 200


def test_nothing_is_created_where_the_page_cannot_be_served(bench: Any) -> None:
    bench.steps("def test_it():\n    pass\n")
    result = bench.run("--live", "test_experiment.py")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--live*'test_experiment.py' is no port*--live=PORT*"])
    result = bench.run("--live=192.0.2.1:0")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--live*192.0.2.1 port 0 cannot be listened on*"])
    assert bench.folders == []
    bench.write("pytest.ini", "[pytest]\nopenscope_live = 0\n")
    result = bench.run()
    assert (result.ret, bench.end["outcome"]) == (0, "passed")
    assert URL.search(result.stderr.str())


def test_a_page_that_dies_costs_the_session_nothing_but_its_answers(bench: Any, start: Callable[..., Live]) -> None:
    bench.steps(
        """
def test_asks(operator):
    with pytest.raises(EOFError, match="the live page has ended"):
        operator.ask("Weight?")

def test_goes_on():
    pass
"""
    )
    live = start("--param", "ask_notes=false")
    Stream(live.url).state(lambda state: state["question"])
    (page,) = [one for one in psutil.Process(live.process.pid).children() if "views.live" in " ".join(one.cmdline())]
    page.kill()
    assert live.process.wait(100) == 0
    code = 15 if sys.platform == "win32" else -9
    assert f"WARNING acquisition test_asks pytest_openscope.session the live page has ended with code {code}" in bench.messages


def test_no_input_is_kept(bench: Any, start: Callable[..., Live]) -> None:
    bench.steps("def test_it(operator):\n    assert not operator.available\n")
    assert start("--no-input").process.wait(100) == 0


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals of POSIX")
def test_chromium_and_a_terminal_side_by_side(bench: Any, browser: Any) -> None:
    """Either answers, both show it; what the rig says is text; the browser complains of nothing and asks nobody else."""
    from tests.plugin.test_terminal import Terminal
    from tests.unit.test_report import png

    (bench.path / "eye.png").write_bytes(png())
    bench.steps(
        f"""
HOSTILE = {HOSTILE!r}

def test_focus(operator):
    logging.getLogger("lab").warning("a line " + HOSTILE)
    assert operator.confirm("In focus? " + HOSTILE, picture="eye.png")
    assert operator.ask("Which side?", choices=("left", "right")) == "right"
    assert operator.number("Weight?", minimum=10, maximum=60, unit="g") == 25
    assert operator.ask("Name?") == "ada"
    (open("done", "w")).close()
    while not os.path.exists("go"):
        time.sleep(0.02)
"""
    )
    often = ("--param", "resource_log_interval=0.2", "--live")
    command = [*bench.command(*often, ids=False), "--subject-id", "m", "--user-id", "u"]
    terminal = Terminal(command, bench.path)
    try:
        terminal.until("live page: http://")
        terminal.until("In focus?")
        url = URL.search(terminal.text)[1]  # type: ignore[index]
        page = browser.new_page()
        complaints: list[str] = []
        asked: list[str] = []
        referers: list[str] = []
        page.on("console", lambda one: complaints.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda one: complaints.append(str(one)))
        page.on("request", lambda one: (asked.append(one.url), referers.append(one.headers.get("referer", ""))))
        page.goto(url)
        page.wait_for_selector("html[data-live=ready]", state="attached")
        assert page.inner_text("#question-text").startswith("In focus? <img src=x")
        page.wait_for_selector("#question-picture:not([hidden])")
        assert page.eval_on_selector("#question-picture", "one => one.decode().then(() => one.naturalWidth)") == 2
        page.click("#question-form button:text-is('Yes')")
        terminal.until("(answered on the live page: yes)")
        page.wait_for_selector("#question-text:text-is('Which side?')")
        assert page.locator("#question-form button").all_inner_texts() == ["left", "right"]
        terminal.until("Which side? (left, right)")
        terminal.type("ri\n")
        page.wait_for_selector("#answered li:text('Which side? → ri (answered on the terminal)')")
        terminal.until("Weight?")
        page.fill("#answer", "25")
        page.press("#answer", "Enter")
        terminal.until("(answered on the live page: 25)")
        terminal.until("Name?")
        terminal.type("ada\n")
        page.wait_for_selector("#question", state="hidden")
        page.fill("#note", f"sneezed {HOSTILE}")
        page.click("#note-form button")
        page.wait_for_selector("#notes li:text('sneezed')")
        page.wait_for_selector("#log-view .row.WARNING .text:text('a line <img src=x')")
        page.select_option("#filter-level", "30")
        page.wait_for_selector("#log-view .row.INFO", state="hidden")
        page.fill("#filter-text", "no such text")
        page.wait_for_selector("#log-view .row.WARNING", state="hidden")
        page.wait_for_selector("#plots svg polyline[points*=' ']", state="attached")
        page.wait_for_selector("#steps td.running")
        assert page.locator("#pictures img").count() == 1
        shown = os.environ.get("LIVE_PAGE_SCREENSHOTS")
        if shown:
            page.fill("#filter-text", "")
            page.select_option("#filter-level", "0")
            page.screenshot(path=str(Path(shown) / "live.png"), full_page=True)
        page.click("#stop")
        page.click("#stop-now")
        terminal.until("the live page's stop button: ")
        terminal.until("Notes on this session")
        page.wait_for_selector("#question-form textarea")
        page.fill("#answer", "one\ntwo")
        page.click("#question-form button")
        assert terminal.end() == 2
        page.wait_for_selector("#ending:text('The session has ended: interrupted, exit code 2.')")
        assert page.is_hidden("#stop")
        assert "owned" not in page.title()
        assert complaints == []
        assert {one.split("/")[2] for one in asked if not one.startswith("data:")} == {url.split("/")[2]}
        assert set(referers) == {""}
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.fd)
    assert bench.end["outcome"] == "interrupted"
    assert bench.end["attachments"] == ["attachments/eye.png"]
    assert bench.end["experiment_data"]["experiment_notes"] == "one\ntwo"
    assert bench.end["notes"] == [f"sneezed {HOSTILE}"]
