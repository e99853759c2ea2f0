"""The page on endings names exactly the endings that are tested, with the results that the tests demand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "endings.md"


@pytest.fixture(scope="module")
def endings() -> Any:
    spec = importlib.util.spec_from_file_location("endings_that_are_tested", ROOT / "tests" / "plugin" / "test_endings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tests" / "plugin")
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules[spec.name]
    return module.ENDINGS


def rows() -> dict[str, list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| ending |")) + 2
    found: dict[str, list[str]] = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert name not in found
        found[name] = cells
    return found


def test_the_table_names_exactly_the_tested_endings(endings: Any) -> None:
    assert list(rows()) == list(endings)


@pytest.mark.skipif(sys.platform == "win32", reason="the table's results are of POSIX: Windows interrupts no wait for a lock")
def test_the_table_says_what_the_tests_demand(endings: Any) -> None:
    for name, (what, outcome, code, saved, disk) in rows().items():
        ending = endings[name]
        assert what
        assert (outcome, code, saved) == (ending.outcome, str(ending.code), "yes" if ending.saved else "no"), name
        assert ("debug_state.json" in disk) == (ending.outcome != "passed"), name
        assert ending.kind in disk, name
        assert ("by the sidecar" in disk) == (ending.outcome == "crashed" or ending.code < 0), name
