"""Each page on a driver shows a device and steps that use it; the steps run on what stands in for the device."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest
import yaml

from pytest_openscope.config import yaml_rules
from pytest_openscope.devices.manager import Devices
from pytest_openscope.devices.spec import build_specs, check_specs

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "how-to" / "devices").glob("*.md"))
_LIBRARIES = {"serial": "serial", "visa": "pyvisa_sim", "zmq": "zmq", "ophyd-async": "ophyd_async", "harp": "harp.device"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_example_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.stem in _LIBRARIES:
        pytest.importorskip(_LIBRARIES[page.stem])
    monkeypatch.setattr(sys, "path", list(sys.path))
    steps, section = [], {}
    for language, text in re.findall(r"```(\w+)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        named = re.match(r"# (\S+\.\w+)\n", text)
        if named:
            path = tmp_path / named[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif language == "yaml":
            section = yaml_rules.load_yaml(text)["devices"]
        elif language == "python":
            namespace: dict[str, object] = {}
            exec(text, namespace)
            steps += [value for name, value in namespace.items() if name.startswith("test_") and inspect.isfunction(value)]
    assert section
    assert check_specs(section, tmp_path, dry_run=True) == []
    devices = Devices(build_specs(section), rig_dir=tmp_path, dry_run=True)
    try:
        for name in section:
            assert devices[name] is not None
        for step in steps:
            step(devices)
    finally:
        assert devices.close_all() == []
        sys.modules.pop("lab_harp", None)
        sys.modules.pop("lab_stage", None)
        importlib.invalidate_caches()


def test_there_is_a_page_for_each() -> None:
    assert [page.stem for page in PAGES] == ["harp", "http", "ophyd-async", "serial", "subprocess", "visa", "zmq"]


def test_the_workflow_runs_a_dry_run_and_keeps_what_it_left() -> None:
    path = ROOT / "example_rigs" / "minimal" / ".github" / "workflows" / "dry-run.yml"
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = workflow["jobs"]["dry-run"]["steps"]
    (run,) = [step["run"] for step in steps if step.get("name") == "Dry run"]
    assert {"--dry-run", "--no-input", "--rig-config", "--junitxml"} <= set(run.split())
    (kept,) = [step for step in steps if step.get("name", "").startswith("Keep")]
    assert kept["if"] == "always()"
    assert "sessions/" in kept["with"]["path"]
