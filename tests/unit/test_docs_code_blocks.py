"""What the pages show must at least parse, what they link to must be there, and the tutorial is run as it is written."""

from __future__ import annotations

import ast
import doctest
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_openscope.config import yaml_rules

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("example_rigs/*/README.md"), *ROOT.glob("benchmarks/*.md")]
)
TUTORIAL = ROOT / "docs" / "tutorial" / "first-experiment.md"
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One code block of a page."""

    where: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        indent = len(match[1])
        body = "".join(part[indent:] for part in match[3].splitlines(keepends=True))
        found.append(Block(f"{page.relative_to(ROOT).as_posix()}:{line}", match[2], body))
    return found


def _parse(language: str, text: str) -> None:
    if language == "python" and text.startswith(">>> "):
        for example in doctest.DocTestParser().get_examples(text):
            compile(example.source, "page", "single")
    elif language == "python":
        compile(ast.parse(text), "page", "exec")
    elif language == "json":
        json.loads(text)
    elif language in ("yaml", "yml"):
        yaml_rules.load_yaml(text)
    elif language == "toml":
        tomllib.loads(text)


CHECKED = [block for page in PAGES for block in blocks(page) if block.language in ("python", "json", "yaml", "yml", "toml")]


@pytest.mark.parametrize("block", CHECKED, ids=lambda block: block.where)
def test_blocks_parse(block: Block) -> None:
    _parse(block.language, block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in _LINK.findall(text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(linked), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_index_leads_to_every_page() -> None:
    docs = ROOT / "docs"
    linked = {(docs / target.partition("#")[0]).resolve() for target in _LINK.findall((docs / "index.md").read_text("utf-8"))}
    assert set(docs.glob("*/*.md")) - linked == set()


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "OPENSCOPE_"))}
    environment["OPENSCOPE_STATE_DIRECTORY"] = str(folder / "state")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rig-config", "rig.yaml", "--no-input"]
    command += ["--rootdir", str(folder), "--subject-id", "mouse1", "--user-id", "me", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_the_tutorial_runs(tmp_path: Path) -> None:
    for block in blocks(TUTORIAL):
        named = re.match(r"# (\S+\.\w+)\n", block.text)
        if block.language in ("python", "yaml") and named:
            (tmp_path / named[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "json":
            (tmp_path / "day1.json").write_text(block.text, encoding="utf-8")
    runs = {
        ("--dry-run",): (0, "outcome: passed (dry run"),
        ("-v",): (0, "test_recording.py::test_frames PASSED"),
        ("--param", "duration_s=0.5"): (1, "post_acquisition step test_frames: frames = 25 is outside [50, inf]"),
        ("-v", "day1.json"): (0, "day1.json::acquisition::camera PASSED"),
    }
    for arguments, (code, said) in runs.items():
        ended, printed = run(tmp_path, *arguments)
        assert ended == code, printed
        assert said in printed


def test_the_experiment_of_the_readme_runs(tmp_path: Path) -> None:
    shown = blocks(ROOT / "README.md")
    (rig,) = (block.text for block in shown if block.language == "yaml")
    (steps,) = (block.text for block in shown if block.language == "python")
    (tmp_path / "rig.yaml").write_text(rig, encoding="utf-8")
    (tmp_path / "test_day1.py").write_text(steps, encoding="utf-8")
    ended, printed = run(tmp_path)
    assert ended == 0, printed
    assert "3 passed" in printed
    ended, printed = run(tmp_path, "--dry-run")
    assert ended == 0, printed
