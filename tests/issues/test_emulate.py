"""An independent check: the npm package ``emulate``, a GitHub that others wrote.

It is installed once into the user's cache. Without Node or network these tests are skipped, with the reason; never in CI.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from pytest_openscope.issues.client import Timing
from pytest_openscope.issues.sending import drain
from pytest_openscope.issues.worker import check_access

from .kit import NAMES, PRIVATE, TOKEN_ENV, Rig, SimClock, failure, run_until_idle
from .outgoing import Recorder

VERSION = "0.11.2"
TOKEN = "ghp_emulatedtoken0001"
REPO = "rig-bot/rigs"


def unavailable(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"emulate must run in CI: {reason}")
    pytest.skip(f"emulate cannot run: {reason}")


def install() -> Path:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        unavailable("Node is not installed")
    major = subprocess.run([str(node), "--version"], capture_output=True, text=True).stdout.lstrip("v").partition(".")[0]
    if not major.isdigit() or int(major) < 20:
        unavailable(f"Node {major} is older than 20")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pytest-openscope" / f"emulate-{VERSION}"
    script = cache / "node_modules" / "emulate" / "dist" / "index.js"
    if not script.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [
            str(npm),
            "install",
            "--prefix",
            str(cache),
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            f"emulate@{VERSION}",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        except subprocess.TimeoutExpired:
            unavailable("npm install took longer than 180 s")
        if done.returncode or not script.exists():
            unavailable(f"npm install failed: {done.stderr.strip()[-300:]}")
    return script


@pytest.fixture(scope="module")
def script() -> Path:
    # Of wider scope than the fixture that cuts the tests off from the network, so npm still has it.
    return install()


@pytest.fixture
def emulate(script: Path, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seed = {
        "tokens": {TOKEN: {"login": "rig-bot", "scopes": ["repo", "user"]}},
        "github": {"users": [{"login": "rig-bot"}], "repos": [{"owner": "rig-bot", "name": "rigs", "private": True}]},
    }
    (tmp_path / "seed.json").write_text(json.dumps(seed), encoding="utf-8")
    command = ["node", str(script), "start", "-s", "github", "-p", str(port), "--seed", str(tmp_path / "seed.json")]
    with open(tmp_path / "emulate.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process)
        recorder = Recorder(url)
        yield recorder.base_url
        recorder.private["emulate's token"] = TOKEN
        assert recorder.requests
        recorder.close()
    finally:
        process.kill()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            requests.get(url, timeout=1)
            return
        except requests.RequestException:
            time.sleep(0.1)
    raise AssertionError("emulate did not start")


@pytest.fixture
def rigs(emulate: str, make_rig: Callable[..., Rig], clock: SimClock) -> Callable[[int], list[Rig]]:
    clock._now = time.time()

    def make(count: int) -> list[Rig]:
        made = [make_rig(f"rig-{number:02}", api_base_url=emulate, repo=REPO) for number in range(count)]
        for rig in made:
            rig.token = TOKEN
        return made

    return make


def call(url: str, verb: str = "GET", path: str = "", **content: Any) -> Any:
    headers = {"Authorization": f"token {TOKEN}"}
    return requests.request(verb, f"{url}/repos/{REPO}{path}", headers=headers, json=content or None, timeout=10).json()


def issues(url: str, state: str) -> list[dict[str, Any]]:
    return list(call(url, path=f"/issues?state={state}&per_page=100"))


def test_created_found_again_and_commented(emulate: str, rigs: Callable[[int], list[Rig]], clock: SimClock) -> None:
    first, second = rigs(2)
    first.fail()
    run_until_idle([first], clock)
    assert first.answers[0]["status"] == "created", first.answers[0]["reason"]
    second.fail()
    run_until_idle([second], clock)
    assert second.status == "commented"
    (issue,) = issues(emulate, "all")
    assert [label["name"] for label in issue["labels"]] == ["auto-report"]
    assert issue["comments"] == 1
    assert not any(text.lower() in (issue["title"] + issue["body"]).lower() for text in {**PRIVATE, **NAMES}.values())


def test_regression_is_reopened_and_not_planned_is_left(
    emulate: str, rigs: Callable[[int], list[Rig]], clock: SimClock
) -> None:
    (rig,) = rigs(1)
    rig.fail()
    run_until_idle([rig], clock)
    call(emulate, "PATCH", "/issues/1", state="closed", state_reason="completed")
    clock.advance(86_400)
    rig.fail(version="stimulus 2")
    rig.drain()
    assert rig.status == "reopened"
    assert [issue["number"] for issue in issues(emulate, "open")] == [1]
    call(emulate, "PATCH", "/issues/1", state="closed", state_reason="not_planned")
    clock.advance(86_400)
    rig.fail(version="stimulus 3")
    rig.drain()
    assert rig.status == "known"
    assert issues(emulate, "open") == []


def test_eight_rigs_at_once_and_several_failures(emulate: str, rigs: Callable[[int], list[Rig]], clock: SimClock) -> None:
    made = rigs(8)
    for rig in made:
        rig.fail(failure(), failure(step="other", function="other"))
    run_until_idle(made, clock)
    assert len(issues(emulate, "open")) == 2


def test_four_worker_processes_at_once(emulate: str, rigs: Callable[[int], list[Rig]]) -> None:
    made = rigs(4)
    for rig in made:
        rig.fail()
    timing = Timing(write_pace_s=0.0, settle_s=(0.3, 0.6), trust_s=5.0)

    def send(rig: Rig) -> None:
        drain(rig.state, 60.0, {TOKEN_ENV: TOKEN}.get, rig.answers.append, timing=timing)

    with ThreadPoolExecutor(len(made)) as pool:
        list(pool.map(send, made))
    assert len(issues(emulate, "open")) == 1


def test_check(emulate: str) -> None:
    good = check_access({"repo": REPO, "api_base_url": emulate}, TOKEN)
    assert not [item for item in good if item["level"] == "error"]
    bad = check_access({"repo": "rig-bot/nothing", "api_base_url": emulate}, TOKEN)
    assert [item for item in bad if item["level"] == "error"]
    assert issues(emulate, "all") == []
