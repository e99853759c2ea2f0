"""Sessions of ``fake_experiment.py`` for the sidecar's tests, and a browser for those of pages."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sidecar_kit import Run, Start, children_marked


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Starts a headless Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts runs in ``data/`` and leaves no process of theirs behind."""
    runs: list[Run] = []

    def begin(*plan: list[Any], name: str = "s1", **options: Any) -> Run:
        runs.append(Run(tmp_path / "data" / name, list(plan), **options))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
        run.kill_sidecars()
        for process in children_marked(run.folder):
            process.kill()
