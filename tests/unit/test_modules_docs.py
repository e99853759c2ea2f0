"""The pages about modules say what is so."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_openscope.config import PipelineEntry
from pytest_openscope.modules import ModuleContext, ModuleFailed, run_entry
from pytest_openscope.modules.ready_made import EXAMPLES, READY_MADE
from pytest_openscope.records.phases import Phase

DOCS = Path(__file__).parents[2] / "docs"


def test_every_ready_made_module_is_described_with_its_parameters() -> None:
    page = (DOCS / "reference" / "modules.md").read_text(encoding="utf-8")
    for name in (*READY_MADE, *EXAMPLES):
        assert f"`{name}`" in page


def test_the_scripts_of_the_guide_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    page = (DOCS / "how-to" / "write-a-module.md").read_text(encoding="utf-8")
    for name, text in re.findall(r"```python\n# steps/(\w+\.py)\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "launcher_metadata").mkdir()
    (tmp_path / "trials.csv").write_text("trial\n1\n2\n", encoding="utf-8")
    answers = ["3", "far", "99"]
    operator = SimpleNamespace(ask=lambda *_: answers.pop(0))
    context = ModuleContext({"trials": 2, "best_focus_um": 0}, tmp_path, repository=tmp_path, operator=operator)

    def run(path: str, phase: Phase) -> None:
        entry = PipelineEntry(
            name="x",
            phase=phase,
            module_type="script_module",
            module_path=path,
        )
        run_entry(entry, context)

    with caplog.at_level(logging.INFO):
        run("check_table.py", Phase.POST_ACQUISITION)
    assert "2 rows, 2 ordered" in caplog.text
    run("focus.py", Phase.PRE_ACQUISITION)
    for message in ("no number", "outside"):
        with pytest.raises(ModuleFailed, match=message):
            run("focus.py", Phase.PRE_ACQUISITION)
