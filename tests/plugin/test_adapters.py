"""The adapter of the how-to page, in a package of its own, found by its entry point."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-an-acquisition-adapter.md"
RECORD = """#!{python}
import pathlib, sys
probe, folder = sys.argv[1:]
if probe == "broken":
    print("FATAL: no probe")
else:
    print("recording", probe)
    pathlib.Path(folder, "run.ap.bin").write_text("spikes") if probe != "lazy" else None
"""

PROGRAM = "spikeglx-record.cmd" if sys.platform == "win32" else "spikeglx-record"


@pytest.fixture
def lab(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    text = PAGE.read_text(encoding="utf-8")
    (module,) = re.findall(r"```python\n(# lab_spikeglx\.py\n.*?)```", text, re.DOTALL)
    (group,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    point = re.search(r'entry-points\."(.+?)"\]\n(\w+) = "(.+?)"', group)
    assert point is not None
    bench.write("lab_spikeglx.py", module)
    bench.write("lab_spikeglx-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: lab-spikeglx\nVersion: 1.0\n")
    bench.write("lab_spikeglx-1.0.dist-info/entry_points.txt", f"[{point[1]}]\n{point[2]} = {point[3]}\n")
    script = RECORD.format(python=sys.executable)
    if sys.platform == "win32":
        bench.write("bin/record.py", script)
        bench.write(f"bin/{PROGRAM}", f'@"{sys.executable}" "%~dp0record.py" %*\n')
    else:
        bench.write(f"bin/{PROGRAM}", script).chmod(0o755)
    monkeypatch.setenv("PATH", str(bench.path / "bin"), prepend=os.pathsep)
    bench.parameters = lambda probe: bench.write(
        "day1.json", json.dumps({"launcher": "SpikeGLX", **({"spikeglx_probe": probe} if probe else {})})
    )
    return bench


def test_a_session_runs_it(lab: Any) -> None:
    lab.parameters("imec0")
    assert lab.run("day1.json").ret == 0
    (facts,) = lab.end["acquisitions"]
    assert (facts["name"], facts["stdout_tail"]) == ("spikeglx", ["recording imec0"])
    revisions = lab.metadata("git_revisions.json")
    assert any(one["name"] == "lab-spikeglx" for one in revisions)


@pytest.mark.parametrize(
    ("probe", "words"), [("broken", "*had a fatal error*FATAL: no probe*"), ("lazy", "*it left no .ap.bin file*")]
)
def test_its_verdict_is_the_sessions(lab: Any, probe: str, words: str) -> None:
    lab.parameters(probe)
    result = lab.run("day1.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines([words])


def test_its_checks_stop_a_session_before_it_starts(lab: Any) -> None:
    lab.parameters(None)
    (lab.path / "bin" / PROGRAM).unlink()
    result = lab.run("day1.json")
    assert result.ret == 4
    assert "spikeglx_probe: launcher 'spikeglx' needs the probe's name" in "\n".join(result.errlines)
    lab.parameters("imec0")
    assert "there is no spikeglx-record on PATH" in "\n".join(lab.run("day1.json").errlines)
    assert lab.run("day1.json", "--dry-run").ret == 0
    lab.write("day1.json", '{"launcher": "spikeglex"}')
    assert "did you mean spikeglx?" in "\n".join(lab.run("day1.json").errlines)
