"""What a session ran with is kept, and ``openscope rerun`` repeats it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import warm

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from git_kit import commit, make
from share_kit import processes_of

from pytest_openscope.cli.rerun import _packages
from pytest_openscope.records import freeze

STEPS = """
def test_acquire(experiment):
    import lab_tools
    print("gain", experiment.parameters.get("gain"), "of", experiment.subject_id, lab_tools.NAME, open("table.csv").read())
"""
SECRET = "t0p-secret-word"


@pytest.fixture
def lab(bench: Any) -> Any:
    bench.steps(STEPS)
    bench.write("lab_tools.py", "NAME = 'tools-1'\n")
    bench.write("table.csv", "rows-1")
    bench.write("conftest.py", "import pytest\n")
    bench.write("pytest.ini", "[pytest]\nopenscope_param =\n    gain=3\n")
    return bench


def _rerun(bench: Any, folder: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "pytest_openscope", "rerun", str(folder), *arguments]
    done = warm.run(command, cwd=bench.path)
    return pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), 0.0)


def _newest(bench: Any) -> Path:
    return max(bench.folders, key=lambda folder: (folder / "launcher_metadata" / "journal.jsonl").stat().st_mtime_ns)


def _said(folder: Path) -> str:
    return (folder / "launcher_metadata" / "launcher.log").read_text(encoding="utf-8")


def _json(folder: Path, name: str) -> Any:
    return json.loads((folder / "launcher_metadata" / name).read_text(encoding="utf-8"))


def test_everything_that_ran_is_kept(lab: Any) -> None:
    rig = (lab.path / "rig.yaml").read_text()
    lab.write("rig.yaml", f"{rig}values:\n  server:\n    password: {SECRET}\n    pin: {{password: abc}}\n")
    lab.write("stimulus.py", "print('stimulus')\n")
    lab.write("day1.json", json.dumps({"launcher": "python", "script_path": "stimulus.py", "gain": 4}))
    result = lab.run("--params", "day1.json", "test_experiment.py", "--param", f"api_token={SECRET}-2")
    assert result.ret == 0, result.stdout.str()
    kept = lab.folder / "launcher_metadata" / "as_run"
    manifest = _json(lab.folder, "as_run/as_run.json")
    roles = {Path(one["path"]).name: one["role"] for one in manifest["files"]}
    assert roles == {
        "rig.yaml": "rig",
        "day1.json": "parameters",
        "pytest.ini": "configuration",
        "stimulus.py": "script",
        "conftest.py": "tests",
        "test_experiment.py": "tests",
        "lab_tools.py": "module",
    }
    for name in ("test_experiment.py", "lab_tools.py", "stimulus.py", "day1.json", "pytest.ini"):
        copy = f"{name}.txt" if name.endswith(".py") else name
        assert (kept / "files" / copy).read_bytes() == (lab.path / name).read_bytes()
    assert not list(kept.rglob("*.py")), "pytest would collect them in the next session"
    copy = (kept / "files" / "rig.yaml").read_text()
    assert copy.startswith("rig_id: bench")
    assert "password: ***" in copy
    for path in lab.folder.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert SECRET not in text, path
            assert "password: abc" not in text, path
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True, timeout=60
    ).stdout
    wanted = {one["name"].lower().replace("_", "-").replace(".", "-"): one["version"] for one in json.loads(installed)}
    told = (kept / "pip_freeze.txt").read_text().splitlines()
    assert len(told) == len(wanted)
    for name, version in wanted.items():
        assert any(line.startswith((f"{name}==", f"{name} @")) or f"# {name}=={version}" in line for line in told), name
    assert any(line.startswith("-e ") and "pytest-openscope==" in line for line in told)


def test_a_session_is_repeated_when_nothing_differs(lab: Any) -> None:
    assert lab.run("test_experiment.py", "--param", "gain=5").ret == 0
    first = lab.folder
    result = _rerun(lab, first)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert "nothing differs today" in result.stdout.str()
    second = next(folder for folder in lab.folders if folder != first)
    assert second.parent == first.parent
    assert "gain 5 of mouse7 tools-1 rows-1" in _said(second)
    assert _json(second, "input_parameters.json")["rerun_of"] == first.name
    assert _json(second, "end_state.json")["user_id"] == "ada"
    third = _rerun(lab, second)
    assert third.ret == 0
    assert _json(_newest(lab), "input_parameters.json")["rerun_of"] == second.name


def test_what_the_session_ran_is_run_again_where_todays_differs(lab: Any) -> None:
    lab.write("day1.json", json.dumps({"gain": 4}))
    assert lab.run("--params", "day1.json", f"{lab.path}/test_experiment.py::test_acquire").ret == 0
    first = lab.folder
    lab.wait_for(lambda: not processes_of(lab.path))
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    lab.steps(STEPS.replace('"gain"', '"today"') + "\ndef test_more(): pass\n")
    lab.write("test_today.py", "def test_today(): pass\n")
    # Of another length: Python takes a module's bytecode by its source's size and second.
    lab.write("lab_tools.py", "NAME = 'tools-today'\n")
    lab.write("table.csv", "rows-2")
    (lab.path / "day1.json").unlink()
    result = _rerun(lab, first)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    text = result.stdout.str()
    for words in (
        f"tests: {lab.path / 'test_experiment.py'} has changed; the session's is used",
        '-    print("gain"',
        '+    print("today"',
        f"module: {lab.path / 'lab_tools.py'} has changed; the session's is used",
        f"parameters: {lab.path / 'day1.json'} is gone; the session's is used",
    ):
        assert words in text
    second = next(folder for folder in lab.folders if folder != first)
    # Data beside the tests is today's.
    assert "gain 3 of mouse7 tools-1 rows-2" in _said(second)
    assert [step["name"] for step in _json(second, "end_state.json")["steps"]] == ["test_acquire"]
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before, "the earlier session is left as it was"
    lab.write("day1.json", json.dumps({"gain": 4}))
    result = _rerun(lab, first, "--today")
    assert result.ret == 0
    assert "today None of mouse7 tools-today rows-2" in _said(_newest(lab))


def test_a_parameter_file_is_repeated_as_it_was(bench: Any) -> None:
    bench.write("stimulus.py", "import sys; print('trials', sys.argv[1])\n")
    content = {"launcher": "python", "script_path": "stimulus.py", "script_arguments": ["{trials}"], "session_uuid": "monday"}
    bench.write("day1.json", json.dumps({**content, "trials": 7}))
    assert bench.run("day1.json").ret == 0
    first = bench.folder
    assert first.name == "monday"
    bench.write("day1.json", json.dumps({**content, "trials": 8}))
    bench.write("stimulus.py", "import sys; print('other trials', sys.argv[1])\n")
    result = _rerun(bench, first)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    second = next(folder for folder in bench.folders if folder != first)
    assert second.name.startswith("mouse7_")
    assert "stdout trials 7" in _said(second)
    (bench.path / "stimulus.py").unlink()
    assert _rerun(bench, first).ret == 0
    assert "stdout trials 7" in _said(_newest(bench))


def test_the_rig_is_todays(lab: Any) -> None:
    assert lab.run("test_experiment.py").ret == 0
    first = lab.folder
    rig = (lab.path / "rig.yaml").read_text()
    lab.write("rig.yaml", rig + "camera: {exposure_ms: 5}\n")
    result = _rerun(lab, first)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert f"rig: {lab.path / 'rig.yaml'} has changed; today's is used" in result.stdout.str()
    assert "+camera: {exposure_ms: 5}" in result.stdout.str()
    assert _json(_newest(lab), "end_state.json")["rig_config"]["camera"] == {"exposure_ms": 5}
    (lab.path / "rig.yaml").unlink()
    result = _rerun(lab, first)
    assert "rig.yaml is gone; the session's is used" in result.stdout.str()
    assert result.ret == 0, result.stdout.str() + result.stderr.str()


def test_a_rig_with_secrets_that_is_gone_cannot_be_made_again(lab: Any) -> None:
    rig = (lab.path / "rig.yaml").read_text()
    lab.write("rig.yaml", f"{rig}values: {{password: {SECRET}}}\n")
    assert lab.run("test_experiment.py").ret == 0
    first = lab.folder
    assert _rerun(lab, first).ret == 0, "today's has the secret still"
    (lab.path / "rig.yaml").unlink()
    result = _rerun(lab, first)
    assert result.ret == 4
    assert "its secrets are not kept" in result.stderr.str()
    assert len(lab.folders) == 2


def test_a_secret_of_the_command_line_is_given_again(lab: Any) -> None:
    assert lab.run("test_experiment.py", "--param", f"api_token={SECRET}").ret == 0
    first = lab.folder
    result = _rerun(lab, first)
    assert result.ret == 4
    assert "api_token=*** is a secret" in result.stderr.str()
    assert "-- --param api_token=" in result.stderr.str()
    result = _rerun(lab, first, "--", "--param", f"api_token={SECRET}")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()


def test_a_rehearsal_of_a_session_touches_nothing_real(lab: Any) -> None:
    assert lab.run("test_experiment.py").ret == 0
    first = lab.folder
    assert _rerun(lab, first, "--dry-run").ret == 0
    dry = lab.path / "sessions" / "dry_runs"
    (rehearsed,) = dry.iterdir()
    assert _json(rehearsed, "end_state.json")["dry_run"] is True
    assert _rerun(lab, rehearsed).ret == 0, "a dry run is repeated as a dry run"
    assert len(list(dry.iterdir())) == 2
    assert len(lab.folders) == 3


def test_a_failure_is_repeated_with_its_exit_code(bench: Any) -> None:
    bench.steps("def test_acquire(): assert False\n")
    assert bench.run("test_experiment.py").ret == 1
    first = bench.folder
    result = _rerun(bench, first)
    assert result.ret == 1
    assert "repeats session" in result.stdout.str()
    assert "(failed, " in result.stdout.str()


def test_a_session_that_was_killed_can_be_repeated(lab: Any) -> None:
    lab.steps("def test_acquire():\n    if not os.path.exists('again'): kill_me()\n")
    lab.run("test_experiment.py")
    first = lab.folder
    lab.wait_for(lambda: _json(first, "end_state.json")["outcome"] == "crashed")
    lab.write("again", "")
    for name in ("git_revisions.json", "end_state.json", "input_parameters.json"):
        (first / "launcher_metadata" / name).rename(first / "launcher_metadata" / f"{name}.lost")
    assert _rerun(lab, first, "--", "--subject-id", "m1", "--user-id", "u1").ret == 0, "what is not there is not needed"
    for name in ("git_revisions.json", "end_state.json", "input_parameters.json"):
        (first / "launcher_metadata" / f"{name}.lost").rename(first / "launcher_metadata" / name)
    result = _rerun(lab, first)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert "(crashed, " in result.stdout.str()


def test_values_of_the_environment_are_repeated(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENSCOPE_SUBJECT_ID", "mouse9")
    monkeypatch.setenv("OPENSCOPE_USER_ID", "eve")
    monkeypatch.setenv("OPENSCOPE_RIG_CONFIG", str(lab.path / "rig.yaml"))
    monkeypatch.setenv("PYTEST_ADDOPTS", "--param gain=9")
    assert lab.run("--no-input", "test_experiment.py", rig=False).ret == 0
    first = lab.folder
    for name in ("OPENSCOPE_SUBJECT_ID", "OPENSCOPE_USER_ID", "OPENSCOPE_RIG_CONFIG", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENSCOPE_SUBJECT_ID", "another")
    result = _rerun(lab, first)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert "gain 9 of mouse9" in _said(_newest(lab))


def test_the_commit_of_a_session_is_run_again(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = bench.write("gitconfig", "[user]\nname = t\nemail = t@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    remote = bench.path / "remote" / "stimulus"
    first_commit = make(remote, {"run.py": "print('version 1')\n"})
    keys = {"repository_url": remote.as_uri(), "local_repository_path": str(bench.path / "code")}
    bench.write("day1.json", json.dumps({"launcher": "python", "script_path": "run.py", **keys}))
    assert bench.run("day1.json").ret == 0
    first = bench.folder
    second_commit = commit(remote, {"run.py": "print('version 2')\n"})
    assert bench.run("day1.json").ret == 0
    assert "stdout version 2" in _said(_newest(bench))
    result = _rerun(bench, first)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    told = f"repository stimulus: at {first_commit} -> {second_commit}; the session's commit is checked out"
    assert told in result.stdout.str()
    assert "stdout version 1" in _said(_newest(bench))
    assert _json(_newest(bench), "git_revisions.json")[0]["commit"] == first_commit
    # With local changes the session can be told apart, and repeated as far as its files go.
    (bench.path / "code" / "stimulus" / "run.py").write_text("print('mine')\n")
    assert bench.run("--allow-dirty", "--param", f"repository_commit_hash={first_commit}", "day1.json").ret == 0
    dirty = _newest(bench)
    result = _rerun(bench, dirty)
    assert "the session ran with local changes (modified run.py), kept in" in result.stdout.str()
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert "stdout mine" in _said(_newest(bench))


def test_a_folder_that_is_no_session(bench: Any) -> None:
    result = _rerun(bench, bench.path)
    assert result.ret == 4
    assert "keeps no record of what it ran with" in result.stderr.str()


def test_packages_are_compared() -> None:
    before = ["numpy==1.26", "gone==1", "-e /src/lab  # lab==0.1", "odd @ git+https://h/x@abc"]
    now = ["numpy==2.0", "new==3", "-e /src/lab  # lab==0.2", "odd @ git+https://h/x@abc"]
    (line,) = _packages(before, now)
    assert line == ("packages: numpy 1.26 -> 2.0, lab 0.1 (in /src/lab) -> 0.2 (in /src/lab), gone 1 is gone, new 3 is new")
    assert not list(_packages(freeze(), freeze()))
