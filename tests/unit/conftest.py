"""Sessions of ``fake_experiment.py`` for the sidecar's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sidecar_kit import Run, Start, children_marked


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
