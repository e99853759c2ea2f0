"""The page for labs that come from the launcher names keys that exist, and every ready-made step."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_openscope.config.models import KNOWN_PARAMETERS, PipelineEntry
from pytest_openscope.modules.ready_made import READY_MADE

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "move-from-the-launcher.md").read_text(encoding="utf-8")


def names(heading: str) -> list[str]:
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    firsts = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for first in firsts for name in re.findall(r"`([$\w]+)`", first)]


def test_the_keys_are_known() -> None:
    assert [name for name in names("Keys") if name not in KNOWN_PARAMETERS and name not in PipelineEntry.model_fields] == []


def test_every_ready_made_step_is_there() -> None:
    assert set(READY_MADE) - set(names("Modules")) == set()
