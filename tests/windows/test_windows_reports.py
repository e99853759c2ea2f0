"""A session that fails on Windows, and one that is killed there, become issues of a GitHub of our own on loopback.

The gate runs those that stand in ``gate.txt``; ``tests/windows/run --all`` runs all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from issues.fake_github import REPO, FakeGithub
from issues.outgoing import TOKEN

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="scenes of Windows: tests/windows/run runs them under Wine")

TOKEN_ENV, LOGIN = "RIG_GITHUB_TOKEN", "jqualm"


@pytest.fixture
def github() -> Iterator[FakeGithub]:
    server = FakeGithub()
    server.private = {"token": TOKEN, "login": LOGIN, "home": f"Users\\{LOGIN}", "escaped home": f"Users\\\\{LOGIN}"}
    server.labels["auto-report"] = {"name": "auto-report"}
    yield server
    server.close()


@pytest.mark.stress
def test_a_failure_and_a_kill_are_reported_without_the_users_profile(make_lab: Any, tmp_path: Path, github: FakeGithub) -> None:
    profile = tmp_path / "Users" / LOGIN
    lab = make_lab(path=profile / "rig")
    environment = {TOKEN_ENV: TOKEN, "USERPROFILE": str(profile), "USERNAME": LOGIN}
    lab.rig(github_issue={"enabled": True, "repo": REPO, "token_env": TOKEN_ENV, "api_base_url": github.base_url})
    lab.steps(
        """
def test_acquire(acquisition):
    acquisition.run(command=[sys.executable, "-c", "raise OSError('no camera at ' + __import__('os').getcwd())"])
"""
    )
    assert lab.run(**environment).code == 1
    lab.wait_for(lambda: lab.debug_state["github"]["status"] == "created")
    # Sidecars stay for a while, to see their reports settle.
    lab.kill(*lab.processes())
    (first,) = github.issues.values()
    assert "test_acquire" in first["title"]
    assert "no camera at" in first["body"]
    assert "C:" not in first["title"]
    folder = lab.folder
    lab.steps(
        """
def test_hang():
    Path("begun.txt").write_text("x")
    time.sleep(600)
"""
    )
    running = lab.begin(**environment)
    lab.wait_for(lambda: (lab.path / "begun.txt").exists())
    running.kill()
    (killed,) = [path for path in lab.folders if path != folder]
    lab.wait_for(lambda: lab.metadata("debug_state.json", killed)["github"]["status"] == "created")
    lab.kill(*lab.processes())
    assert len(github.issues) == 2
    github.search()
