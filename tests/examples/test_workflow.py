"""The workflow of the minimal rig: its shell steps run as they would there, artefacts are left, failures are annotated."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from .conftest import Example

WORKFLOW = Path(".github", "workflows", "dry-run.yml")
ANNOTATION = re.compile(r"^::error (?P<properties>[^:]*)::(?P<message>.*)$", re.MULTILINE)


@pytest.fixture
def steps(minimal: Example) -> list[dict[str, Any]]:
    # YAML 1.1 reads the key "on" as true; GitHub does not.
    workflow = yaml.safe_load((minimal.folder / WORKFLOW).read_text(encoding="utf-8"))
    assert set(workflow) == {"name", True, "permissions", "jobs"}
    (job,) = workflow["jobs"].values()
    assert job["runs-on"] == "${{ matrix.os }}"
    assert all(len({"uses", "run"} & set(step)) == 1 for step in job["steps"])
    return list(job["steps"])


def run(minimal: Example, step: dict[str, Any], **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a step as a job does: in a shell, in the workspace, with this interpreter as its python.

    On Windows that is PowerShell; where only ``cmd`` is there, in that one, which reads these commands the same way.
    """
    shell = next(filter(None, map(shutil.which, ["pwsh", "cmd"] if sys.platform == "win32" else ["bash"])), None)
    if shell is None:
        pytest.skip("no shell")
    arguments = ["-e", "-c", step["run"]]
    if Path(shell).stem.lower() == "pwsh":
        arguments = ["-command", step["run"]]
    elif sys.platform == "win32":
        arguments = ["/d", "/c", " && ".join(step["run"].strip().splitlines())]
    binaries = str(Path(sys.executable).parent)
    environment = {
        **minimal.environ,
        "PATH": f"{binaries}{':' if sys.platform != 'win32' else ';'}{minimal.environ['PATH']}",
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(minimal.folder),
        **environ,
    }
    return subprocess.run(
        [shell, *arguments], cwd=minimal.folder, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=600
    )


def dry_run(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return next(step for step in steps if step.get("name") == "Dry run")


def annotated(done: subprocess.CompletedProcess[str]) -> list[tuple[dict[str, str], str]]:
    found = ANNOTATION.finditer(done.stdout + done.stderr)
    return [
        (dict(part.split("=", 1) for part in match["properties"].split(",")), match["message"].replace("%0A", "\n"))
        for match in found
    ]


def test_every_shell_step_runs_and_leaves_the_artefacts(minimal: Example, steps: list[dict[str, Any]]) -> None:
    for step in steps:
        if "run" in step:
            # What is to be installed is installed here: pip finds it without the network.
            done = run(minimal, step, PIP_NO_INDEX="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
            assert done.returncode == 0, done.stdout + done.stderr
            assert annotated(done) == []
    upload = steps[-1]
    assert upload["if"] == "always()"
    artefacts = [minimal.folder / line.strip() for line in upload["with"]["path"].splitlines()]
    assert all(path.exists() for path in artefacts)
    tests = ElementTree.parse(artefacts[1]).getroot()[0].attrib
    assert (int(tests["tests"]), tests["failures"], tests["errors"]) == (6, "0", "0")
    files = [path for path in artefacts[0].rglob("*") if path.is_file()]
    assert {"end_state.json", "launcher.log"} <= {path.name for path in files}
    for path in files:
        # upload-artifact refuses these characters and leaves hidden files out.
        name = path.relative_to(minimal.folder).as_posix()
        assert not set(name) & set('":<>|*?\r\n')
        assert "/." not in f"/{name}"


def test_a_failing_step_is_annotated_where_it_fails(minimal: Example, steps: list[dict[str, Any]]) -> None:
    rig = minimal.folder / "rig.yaml"
    rig.write_text(rig.read_text(encoding="utf-8").replace("read_power_mw: 5.0", "read_power_mw: 1.0"), encoding="utf-8")
    done = run(minimal, dry_run(steps))
    assert done.returncode == 1
    ((place, message),) = annotated(done)
    assert place["file"] == "test_1_pre_acquisition.py"
    line = (minimal.folder / place["file"]).read_text(encoding="utf-8").splitlines()[int(place["line"]) - 1]
    assert "lamp_power" in line
    assert place["title"] == "pre_acquisition step test_lamp_power%3A failed"
    assert message.startswith("lamp_power = 1.0 mW is outside")
    (end_state,) = minimal.folder.glob("sessions/dry_runs/*/launcher_metadata/end_state.json")
    assert json.loads(end_state.read_text(encoding="utf-8"))["outcome"] == "failed"
    assert (minimal.folder / "dry-run.xml").exists()


def test_so_are_fixtures_devices_and_files_that_cannot_be_read(minimal: Example, steps: list[dict[str, Any]]) -> None:
    conftest = minimal.folder / "conftest.py"
    text = conftest.read_text(encoding="utf-8")
    conftest.write_text(text.replace("lamp.set_power(rig", "lamp.set_powr(rig"), encoding="utf-8")
    (minimal.folder / "test_0_broken.py").write_text("import no_such_module_at_all\n", encoding="utf-8")
    done = run(minimal, {"run": dry_run(steps)["run"] + " --continue-on-collection-errors"})
    assert done.returncode == 1
    found = {place["file"]: (place, message) for place, message in annotated(done)}
    assert set(found) == {"test_0_broken.py", "conftest.py"}
    assert "no_such_module_at_all" in found["test_0_broken.py"][1]
    assert "set_powr" in found["conftest.py"][1]
    assert "line" in found["conftest.py"][0]


def test_so_is_a_mistake_in_the_rig_file(minimal: Example, steps: list[dict[str, Any]]) -> None:
    rig = minimal.folder / "rig.yaml"
    rig.write_text(rig.read_text(encoding="utf-8") + "\ngithub_isue: 1\nreadines: {}\n", encoding="utf-8")
    done = run(minimal, dry_run(steps))
    assert done.returncode == 4
    ((place, message),) = annotated(done)
    assert place["file"] == "rig.yaml"
    assert "did you mean github_issue?" in message
    assert "did you mean readiness?" in message


def test_without_github_there_are_no_annotations(minimal: Example, steps: list[dict[str, Any]]) -> None:
    (minimal.folder / "test_1_pre_acquisition.py").write_text("def test_bad(): assert 0\n", encoding="utf-8")
    assert annotated(run(minimal, dry_run(steps), GITHUB_ACTIONS="")) == []
