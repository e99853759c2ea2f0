"""The examples of the documentation are true."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def test_examples_of_the_fingerprint_page() -> None:
    page = ROOT / "docs" / "explanation" / "fingerprints.md"
    done = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert done.attempted > 10
    assert done.failed == 0


def report_blocks() -> dict[str, dict[str, Any]]:
    """Each ``github_issue`` block that a reader could copy, by its place."""
    texts = {str(path): path.read_text(encoding="utf-8") for path in (ROOT / "example_rigs").glob("*/rig.yaml")}
    for page in (ROOT / "docs").rglob("*.md"):
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            texts[f"{page}, block {number}"] = block
    found = {place: yaml.safe_load(text) for place, text in texts.items() if "github_issue:" in text}
    return {place: content["github_issue"] for place, content in found.items()}


def test_the_examples_recommend_a_masked_log() -> None:
    blocks = report_blocks()
    assert len(blocks) >= 2
    assert {place for place, block in blocks.items() if block.get("sanitize_launcher_log") is not True} == set()
