"""What a lab may import: the door, the documentation and the examples agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_openscope

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "python.md"
#: What is imported by name of the module: a suite for ``--pyargs``, the plugin for ``-p``, the commands.
_MODULES = {"pytest_openscope.checks", "pytest_openscope.plugin"}


def _imports(text: str) -> set[tuple[str, str]]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pytest_openscope":
            found |= {(str(node.module), alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names if alias.name.split(".")[0] == "pytest_openscope"}
    return found


def _examples() -> dict[str, str]:
    texts = {
        str(path.relative_to(ROOT)): path.read_text("utf-8")
        for path in (ROOT / "example_rigs").rglob("*.py")
        if "sessions" not in path.parts
    }
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for number, (language, block) in enumerate(re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)):
            if language == "python":
                plain = "\n".join(line.removeprefix(">>> ") for line in block.splitlines() if not line.startswith("..."))
                texts[f"{page.relative_to(ROOT)}, block {number}"] = (
                    plain
                    if not block.startswith(">>> ")
                    else "\n".join(line[4:] for line in block.splitlines() if re.match(r">>> (from|import) ", line))
                )
    return texts


def test_every_name_can_be_imported_and_has_words_for_its_reader() -> None:
    for name in pytest_openscope.__all__:
        assert getattr(pytest_openscope, name).__doc__, name
    assert set(pytest_openscope.__all__) == {name for names in pytest_openscope._HOME.values() for name in names}
    assert set(dir(pytest_openscope)) == {*pytest_openscope.__all__, "__version__", "LAUNCHER_FORMAT_VERSION"}
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        pytest_openscope.Nothing


def test_the_page_names_all_of_them_and_nothing_else() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|$", PAGE.read_text("utf-8"), re.M)
    assert [name for name, _ in rows] == sorted(pytest_openscope.__all__, key=str.lower)
    assert all(len(words) > 10 for _, words in rows)


def test_examples_and_documentation_import_from_the_door_only() -> None:
    wrong = {
        place: (module, name)
        for place, text in _examples().items()
        for module, name in _imports(text)
        if module not in _MODULES and (module != "pytest_openscope" or name not in pytest_openscope.__all__)
    }
    assert wrong == {}


def test_importing_the_door_loads_no_room() -> None:
    code = "import sys, pytest_openscope; print([name for name in sys.modules if name.startswith('pytest_openscope.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
