"""What the pages show must at least parse, what they link to must be there, and the tutorial is run as it is written."""

from __future__ import annotations

import ast
import doctest
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import warm

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
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


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
    environment["OPENSCOPE_STATE_DIRECTORY"] = str(folder.parent / "state")
    environment["OPENSCOPE_NO_SESSION_REPORT"] = "1"
    environment["PYTEST_ADDOPTS"] = "-p no:hypothesispytest"  # a plugin of the tests, slow to import
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rig-config", "rig.yaml", "--no-input"]
    command += ["--subject-id", "mouse1", "--user-id", "me", *arguments]
    done = warm.run(command, cwd=folder, env=environment, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The tutorial's folder, in a clone whose own settings and ``conftest.py`` would end any run that took them."""
    clone = tmp_path / "clone"
    folder = clone / "first"
    folder.mkdir(parents=True)
    (clone / "pyproject.toml").write_text("[tool.pytest.ini_options]\n", encoding="utf-8")
    (clone / "conftest.py").write_text("raise ImportError('the conftest.py of the clone')\n", encoding="utf-8")
    for block in blocks(TUTORIAL):
        named = re.match(r"# (\S+\.\w+)\n", block.text)
        if block.language in ("python", "yaml", "ini") and named:
            (folder / named[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "json":
            (folder / "day1.json").write_text(block.text, encoding="utf-8")
    return folder


@pytest.mark.timeout(900)  # five sessions, of which each takes most of a minute under Wine on a busy computer
def test_the_tutorial_runs_in_a_folder_of_the_clone(first: Path) -> None:
    runs = {
        ("--dry-run",): (0, "outcome: passed (dry run"),
        ("-v",): (0, "test_recording.py::test_frames PASSED"),
        ("--param", "duration_s=0.5"): (1, "post_acquisition step test_frames: frames = 25 is not at least 50"),
        ("-v", "day1.json"): (0, "day1.json::acquisition::camera PASSED"),
        ("day1.json", "--param", "duration_s=0.5"): (0, "outcome: passed"),
    }
    for arguments, (code, said) in runs.items():
        ended, printed = run(first, *arguments)
        assert ended == code, printed
        assert said in printed
    tables = sorted(first.glob("sessions/*/frames.txt"), key=lambda path: path.stat().st_mtime_ns)
    assert [len(table.read_text(encoding="utf-8").splitlines()) for table in tables] == [50, 25, 50, 25]


def test_without_its_ini_file_the_tutorial_would_not_run_there(first: Path) -> None:
    (first / "pytest.ini").unlink()
    ended, printed = run(first, "--dry-run")
    assert ended == 4, printed
    assert "the conftest.py of the clone" in printed


def test_the_steps_of_write_an_experiment_pass_a_dry_run(tmp_path: Path) -> None:
    guide = ROOT / "docs" / "how-to" / "write-an-experiment.md"
    shown = [block.text for block in blocks(guide) if "experiment.measure(" in block.text]
    assert ["acquisition.run(" in text for text in shown] == [True, False]
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "rig.yaml").write_text("rig_id: desk\noutput_root_folder: sessions\n", encoding="utf-8")
    for number, text in enumerate(shown):
        (tmp_path / f"test_{number}.py").write_text(text, encoding="utf-8")
    ended, printed = run(tmp_path, "--dry-run")
    assert ended == 0, printed
    assert "2 passed" in printed


def test_the_experiment_of_the_readme_runs(tmp_path: Path) -> None:
    shown = blocks(ROOT / "README.md")
    (rig,) = (block.text for block in shown if block.language == "yaml")
    (steps,) = (block.text for block in shown if block.language == "python")
    folder = tmp_path / "day1"
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (folder / "rig.yaml").write_text(rig, encoding="utf-8")
    (folder / "test_day1.py").write_text(steps, encoding="utf-8")
    ended, printed = run(folder)
    assert ended == 0, printed
    assert "3 passed" in printed
    ended, printed = run(folder, "--dry-run")
    assert ended == 0, printed


def test_the_parameter_file_of_the_readme_is_that_of_the_minimal_rig() -> None:
    (shown,) = (block.text for block in blocks(ROOT / "README.md") if block.language == "json")
    assert json.loads(shown) == json.loads((ROOT / "example_rigs" / "minimal" / "day1.json").read_text(encoding="utf-8"))


def test_the_picture_of_the_house_is_true() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "pytest_openscope"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == rooms
    for path in set(re.findall(r"`(\w+/\w+\.py)`", page)):
        assert (package / path).is_file() or (ROOT / path).is_file(), path
    boxes = set(re.findall(r'(\w+)\["', page))
    assert rooms <= boxes
