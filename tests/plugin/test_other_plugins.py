"""An experiment beside the plugins that labs use; ``docs/reference/plugins.md`` has the table of all that were tried."""

from __future__ import annotations

import json
from typing import Any

import pytest

FLAGS = (
    *("-p", "pytest_html.plugin", "-p", "pytest_metadata.plugin", "--html=report.html"),
    *("-p", "pytest_jsonreport.plugin", "--json-report", "-p", "pytest_asyncio.plugin", "-p", "pytest_check.plugin"),
    *("-p", "pytest_mock", "-p", "pytest_order", "-p", "pytest_rerunfailures", "-o", "asyncio_mode=auto"),
)
STEPS = """
import asyncio
import pytest_check as check

@pytest.fixture
async def device():
    await asyncio.sleep(0)
    yield 3
    open("closed", "w").close()

@pytest.mark.pre_acquisition
@pytest.mark.order(2)
def test_second(mocker): assert mocker.Mock()() is not None

@pytest.mark.pre_acquisition(on_failure="continue")
@pytest.mark.order(1)
def test_first(): check.equal(1, WANTED)

@pytest.mark.acquisition
async def test_record(acquisition, device):
    acquisition.run(command=[sys.executable, "-c", "print(1)"], name="camera")
    assert device == 3

@pytest.mark.post_acquisition
def test_save(): pass
"""


@pytest.mark.parametrize(("wanted", "outcome"), [("1", "passed"), ("2", "failed")])
def test_what_other_plugins_do_is_on_record(bench: Any, wanted: str, outcome: str) -> None:
    bench.steps(STEPS.replace("WANTED", wanted))
    result = bench.run(*FLAGS)
    assert result.ret == (0 if outcome == "passed" else 1)
    assert bench.end["outcome"] == outcome
    steps = {step["name"]: step["outcome"] for step in bench.end["steps"] if step["kind"] == "test"}
    assert steps == {"test_first": outcome, "test_second": "passed", "test_record": "passed", "test_save": "passed"}
    assert list(steps) == ["test_first", "test_second", "test_record", "test_save"]
    assert (bench.path / "closed").exists()
    assert "test_record" in (bench.path / "report.html").read_text(encoding="utf-8")
    report = json.loads((bench.path / ".report.json").read_text(encoding="utf-8"))
    assert report["summary"]["total"] == 4


def test_a_plugin_that_hides_failures_is_refused(bench: Any) -> None:
    """As pytest-retry does, which registers such an option."""
    bench.write("hiding.py", "def pytest_addoption(parser): parser.addoption('--retries', type=int)\n")
    bench.steps("def test_record(): pass\n")
    result = bench.run("-p", "hiding", "--retries", "2")
    assert result.ret == 4
    assert "an experiment cannot run with pytest-retry" in result.stderr.str()
    assert not bench.folders
