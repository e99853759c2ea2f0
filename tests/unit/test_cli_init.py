"""``init`` writes a rig and an experiment that run; ``import-rig`` turns the launcher's rig file into ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import warm
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.cli import main
from pytest_openscope.config import ConfigRequest, dump_yaml, load
from pytest_openscope.config.yaml_rules import load_yaml

FILES = {"rig.yaml", "rig.schema.json", "pytest.ini", "acquire.py", "test_experiment.py"}
LAUNCHER_RIG = """
rig_id = "behavior-3"   # by the door
COM_port = "COM3"
DisplayDeviceIndex = 2
firmware = "12e4"
centralized_log_directory = '\\\\server\\logs'
github_issue_on_error = true
github_issue_repo = "lab/reports"
calibrated = 2026-03-04
[camera]
exposure_time = 0.033
serials = ["007", "12:30", "no"]
"""


def start(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENSCOPE_", "PYTEST_"))}
    return warm.run([sys.executable, "-m", "pytest_openscope", *arguments], cwd=cwd, env=environment, **options)


def test_what_init_writes_runs_dry_and_for_real(tmp_path: Path) -> None:
    done = start("init", "new rig", "--no-input", "--rig-id", "müller: 3", cwd=tmp_path)
    folder = tmp_path / "new rig"
    assert done.returncode == 0, done.stdout + done.stderr
    assert "outcome: passed (dry run" in done.stdout
    assert {path.name for path in folder.iterdir() if path.is_file()} == FILES
    rig = load_yaml((folder / "rig.yaml").read_text(encoding="utf-8"))
    assert rig["rig_id"] == "müller: 3"
    jsonschema.validate(rig, json.loads((folder / "rig.schema.json").read_text(encoding="utf-8")))
    pytest_run = [
        sys.executable,
        "-m",
        "pytest",
        "--rig-config",
        "rig.yaml",
        "--subject-id",
        "7",
        "--user-id",
        "eve",
        "--no-input",
    ]
    real = warm.run(pytest_run, cwd=folder)
    assert "3 passed" in real.stdout, real.stdout + real.stderr
    again = start("init", "new rig", "--no-input", cwd=tmp_path)
    assert again.returncode == 4
    assert all(name in again.stderr for name in FILES)


def test_init_asks_on_a_terminal_and_takes_the_answers(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals of this kind")
    mine, theirs = pty.openpty()
    os.write(mine, b"bench\n\n/mnt/logs\n")
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    command = [sys.executable, "-m", "pytest_openscope", "init"]
    try:
        done = warm.run(command, stdin=theirs, cwd=tmp_path, env=environment)
    finally:
        os.close(mine)
        os.close(theirs)
    assert done.returncode == 0, done.stdout + done.stderr
    rig = load_yaml((tmp_path / "rig.yaml").read_text(encoding="utf-8"))
    assert (rig["rig_id"], rig["output_root_folder"], rig["centralized_log_directory"]) == ("bench", "sessions", "/mnt/logs")


def test_an_answer_that_is_no_good_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "new"), "--no-input", "--central-logs", "logs"]) == 4
    assert "centralized_log_directory" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_launchers_rig_file_becomes_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "behavior.toml"
    old.write_text(LAUNCHER_RIG, encoding="utf-8")
    before = load(ConfigRequest(rig_config=old, dry_run=True)).configuration
    assert before is not None
    assert main(["import-rig", str(old)]) == 0
    new = tmp_path / "behavior.yaml"
    after = load(ConfigRequest(rig_config=new, dry_run=True)).configuration
    assert after is not None
    assert (
        dict(after.rig.values_)
        == dict(before.rig.values_)
        == {
            "COM_port": "COM3",
            "DisplayDeviceIndex": 2,
            "firmware": "12e4",
            "calibrated": "2026-03-04",
            "camera": {"exposure_time": 0.033, "serials": ["007", "12:30", "no"]},
        }
    )
    assert after.rig.rig_id == "behavior-3"
    assert after.settings.github_issue == before.settings.github_issue
    assert after.settings.github_issue is not None
    assert after.settings.github_issue.repo == "lab/reports"
    assert after.settings.centralized_log_directory == r"\\server\logs"
    assert after.rig.output_root_folder == "C:/experiment_data"  # the launcher's default, which its file need not name
    assert new.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=rig.schema.json\n")
    jsonschema.validate(load_yaml(new.read_text(encoding="utf-8")), json.loads((tmp_path / "rig.schema.json").read_text()))
    assert old.read_text(encoding="utf-8") == LAUNCHER_RIG
    capsys.readouterr()
    written = new.read_bytes()
    assert main(["import-rig", str(old)]) == 4
    assert "is there already" in capsys.readouterr().err
    assert new.read_bytes() == written


def test_a_launchers_file_with_mistakes_is_told_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "rig.toml"
    old.write_text('output_root_foldr = "x"\npre_acquisition_pipeline = []\n', encoding="utf-8")
    assert main(["import-rig", str(old), str(tmp_path / "new.yaml")]) == 4
    told = capsys.readouterr().err
    assert "did you mean output_root_folder?" in told
    assert "cannot hold pipelines" in told
    assert [path.name for path in tmp_path.iterdir()] == ["rig.toml"]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(_VALUES | st.sampled_from(["12e4", "1_000", "0o17", "no", "<<", "=", "2024-01-01", "00:30:00", "~", "\x85", "1" * 5000]))
def test_what_is_written_as_yaml_is_read_back_exactly(value: Any) -> None:
    back = load_yaml(dump_yaml({"key": value}))["key"]
    assert back == value
    assert json.dumps(back) == json.dumps(value)  # 1, 1.0 and true are equal for Python
