"""Rigs for the scenes of Windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from windows_kit import Lab


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Make rigs in folders whose names the test chooses."""
    labs: list[Lab] = []

    def make(name: str = "lab", path: Path | None = None) -> Lab:
        folder = path or tmp_path / name
        folder.mkdir(parents=True)
        labs.append(Lab(folder))
        return labs[-1]

    yield make
    for one in labs:
        one.close()


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab()
