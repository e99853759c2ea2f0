"""Sessions that run a commit of the experiment's repository, seen from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import warm

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from git_kit import commit, git, make

TABLE = """
import json, pathlib

def run_pre_acquisition(params):
    path = pathlib.Path(params["output_session_folder"]) / "stimulus_table.csv"
    path.write_text("trial\\n" + "\\n".join(str(n) for n in range(params["trials"])))
"""
STIMULUS = """
import os, pathlib

table = pathlib.Path(os.environ["OUTPUT_FOLDER"], "stimulus_table.csv")
print("version", {}, "of", table.stat().st_size)
"""


@pytest.fixture
def lab(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A repository that makes a stimulus table and shows it, a rig, and a parameter file that pins the first version."""
    config = bench.write("gitconfig", '[user]\nname = t\nemail = t@example.org\n[protocol "file"]\nallow = always\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    bench.remote, bench.code = bench.path / "remote" / "stimulus", bench.path / "code" / "stimulus"
    bench.first = make(bench.remote, {"code/table.py": TABLE, "code/run.py": STIMULUS.format(1)})
    bench.second = commit(bench.remote, {"code/run.py": STIMULUS.format(2)})
    bench.parameters(repository_commit_hash=bench.first)
    return bench


def _parameters(bench: Any, **more: Any) -> None:
    content = {
        "launcher": "python",
        "script_path": "code/run.py",
        "repository_url": bench.remote.as_uri(),
        "local_repository_path": str(bench.path / "code"),
        "trials": 3,
        "pre_acquisition_pipeline": [{"module_type": "script_module", "module_path": "code/table.py"}],
        **more,
    }
    bench.write("day1.json", json.dumps(content))


GENERATE = """
import csv, logging, random, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4] / "libs" / "shared"))
from blocks import BLOCKS

def generate_single_session_csv(session_type, seed=0, output_path=None):
    logging.getLogger("stimulus").info("writing %s", session_type)
    random.seed(seed)
    with open(output_path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["block", "orientation"], *([block, random.randrange(360)] for block in BLOCKS)])
    return output_path
"""


@pytest.fixture(autouse=True)
def _method(bench: Any) -> None:
    bench.parameters = lambda **more: _parameters(bench, **more)


def test_a_pinned_commit_is_cloned_run_and_written_down(lab: Any) -> None:
    result = lab.run("day1.json")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert lab.outcomes() == {"table": "passed", "run": "passed"}
    assert "acquisition.run.stdout version 1 of 11" in lab.messages
    assert f"INFO   pytest_openscope.repository checked out {lab.first}" in lab.messages.replace(" None", " ")
    own, *others = lab.metadata("git_revisions.json")
    assert (own["name"], own["commit"], own["dirty"], own["wanted"]) == ("stimulus", lab.first, False, lab.first)
    assert own["path"] == str(lab.code)
    assert own["repository_url"] == lab.remote.as_uri()
    assert any(one["name"] == "pytest-openscope" and one["package_version"] for one in others)
    # The same again, without the remote: what the steps' own imports left is no change of the repository.
    shutil.rmtree(lab.remote)
    shutil.rmtree(lab.path / "sessions")
    assert lab.run("day1.json").ret == 0
    assert lab.metadata("git_revisions.json")[0]["commit"] == lab.first


def test_a_local_change_stops_the_session_before_anything_is_created(lab: Any) -> None:
    assert lab.run("day1.json").ret == 0
    shutil.rmtree(lab.path / "sessions")
    (lab.code / "code" / "run.py").write_text("print('mine')\n")
    (lab.code / "new.txt").write_text("mine\n")
    real, dry = lab.run("day1.json"), lab.run("--dry-run", "day1.json")
    assert (real.ret, dry.ret) == (4, 4)
    for words in ("has 2 local changes", "    modified code/run.py", "    new new.txt", "--allow-dirty"):
        assert words in real.stderr.str()
        assert words in dry.stderr.str()
    assert "day1.json: local_repository_path: " in real.stderr.str()
    assert not (lab.path / "sessions").exists()
    assert (lab.code / "code" / "run.py").read_text() == "print('mine')\n"


def test_allowed_changes_run_and_are_recorded_with_their_diff(lab: Any) -> None:
    assert lab.run("day1.json").ret == 0
    shutil.rmtree(lab.path / "sessions")
    (lab.code / "code" / "run.py").write_text("print('mine')\n")
    (lab.code / "new.txt").write_text("neu: größer\n", encoding="utf-8")
    result = lab.run("--allow-dirty", "day1.json")
    assert result.ret == 0, result.stderr.str()
    assert "acquisition.run.stdout mine" in lab.messages
    own = lab.metadata("git_revisions.json")[0]
    assert (own["commit"], own["dirty"], own["changes"]) == (lab.first, True, ["modified code/run.py", "new new.txt"])
    assert "2 local changes, kept in repository_changes.diff" in result.stdout.str()
    assert "local change: modified code/run.py" in lab.messages
    patch = lab.folder / "launcher_metadata" / "repository_changes.diff"
    again = lab.path / "again"
    git(lab.path, "clone", "--quiet", str(lab.remote), str(again))
    git(again, "checkout", "--quiet", lab.first)
    git(again, "apply", str(patch))
    assert (again / "new.txt").read_text(encoding="utf-8") == "neu: größer\n"
    assert (again / "code" / "run.py").read_text() == "print('mine')\n"


def test_scripts_are_looked_for_in_the_commit_that_will_run(lab: Any) -> None:
    lab.parameters(repository_commit_hash=lab.first)
    assert lab.run("day1.json").ret == 0
    third = commit(lab.remote, {"code/other.py": STIMULUS.format(3), "code/run.py": None})
    lab.parameters(repository_commit_hash=third, script_path="code/other.py")
    shutil.rmtree(lab.path / "sessions")
    assert lab.run("day1.json").ret == 0, "it is not in the commit that was checked out before"
    assert "version 3" in lab.messages
    shutil.rmtree(lab.path / "sessions")
    # What lies there now is what is wanted: its mistakes are told before anything is created.
    lab.parameters(repository_commit_hash=third)
    result = lab.run("day1.json")
    assert result.ret == 4
    assert "script_path: there is no run.py" in result.stderr.str()
    assert not (lab.path / "sessions").exists()


def test_scripts_that_the_commit_does_not_have_end_the_session_before_its_first_step(lab: Any) -> None:
    entries = [{"module_type": "script_module", "module_path": "code/gone.py"}]
    lab.parameters(repository_commit_hash=lab.first, script_path="code/gone_too.py", pre_acquisition_pipeline=entries)
    result = lab.run("day1.json")
    assert result.ret == 1, result.stdout.str() + result.stderr.str()
    assert all(outcome.startswith("skipped: ") for outcome in lab.outcomes().values())
    assert lab.end["outcome"] == "error"
    for words in ("gone.py", "there is no gone_too.py"):
        assert words in lab.debug["exception"]
        assert words in result.stderr.str()
    assert lab.metadata("git_revisions.json")[0]["commit"] == lab.first


def test_a_remote_that_cannot_be_reached_ends_the_session_before_its_first_step(lab: Any) -> None:
    lab.parameters(repository_url=(lab.path / "nowhere" / "stimulus").as_uri())
    result = lab.run("day1.json")
    assert result.ret == 1
    assert lab.end["outcome"] == "error"
    assert lab.end["exit_code"] == 1
    assert "git clone failed" in lab.debug["exception"]
    assert "does not appear to be a git repository" in result.stdout.str()
    assert [step["outcome"] for step in lab.end["steps"]] == [None, None]
    assert not lab.code.exists()


def test_a_mistyped_branch(lab: Any) -> None:
    lab.parameters(repository_commit_hash="mian")
    assert lab.run("day1.json").ret == 1
    assert "has no commit, tag or branch 'mian' -> did you mean main?" in lab.debug["exception"]


@pytest.mark.parametrize("dry", [False, True])
def test_wrong_keys_are_told_with_all_other_mistakes(lab: Any, dry: bool) -> None:
    lab.parameters(local_repository_path=None, repository_commit_hash="main~1", launcher="pyhton")
    result = lab.run("day1.json", *(["--dry-run"] if dry else []))
    assert result.ret == 4
    for words in ("did you mean python",):
        assert words in result.stderr.str()
    lab.parameters(local_repository_path=None, repository_commit_hash="main~1", pre_acquisition_pipeline=["disk_space_chek"])
    result = lab.run("day1.json", *(["--dry-run"] if dry else []))
    assert result.ret == 4
    for words in (
        "day1.json: local_repository_path: is missing",
        "day1.json: repository_commit_hash: 'main~1' is no commit",
        "disk_space_check",
    ):
        assert words in result.stderr.str()
    assert not (lab.path / "sessions").exists()


def test_a_dry_run_touches_no_repository(lab: Any) -> None:
    result = lab.run("--dry-run", "day1.json")
    assert result.ret == 0, result.stderr.str()
    assert not (lab.path / "code").exists()
    assert "code/stimulus is not cloned on this computer" in result.stdout.str()
    assert "repository" in lab.end["simulated"]


def test_tests_run_a_repository_too(lab: Any) -> None:
    lab.steps("def test_acquire(experiment):\n    assert open('code/stimulus/code/run.py').read().startswith('\\nimport')\n")
    rig = (lab.path / "rig.yaml").read_text()
    where = f"repository_url: {lab.remote.as_uri()}, local_repository_path: code, repository_commit_hash: {lab.first}"
    lab.write("rig.yaml", f"{rig}parameters: {{{where}}}\n")
    result = lab.run("test_experiment.py")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert lab.metadata("git_revisions.json")[0]["commit"] == lab.first


def test_credentials_are_in_no_file_of_the_session(lab: Any) -> None:
    word, token = "t0p-secret-word", "ghp_" + "a1B2" * 9
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for credentials in (f"ada:{word}", token, f"{token}:x-oauth-basic"):
        lab.parameters(repository_url=f"http://{credentials}@127.0.0.1:{port}/stimulus.git")
        result = lab.run("day1.json", "--param", f"other_url=https://{credentials}@host/x")
        assert result.ret == 1
        told = result.stdout.str() + result.stderr.str()
        assert f"127.0.0.1:{port}" in told
        for path in [*lab.folder.rglob("*"), *(lab.path / "state").rglob("*")]:
            if path.is_file():
                told += path.read_text(encoding="utf-8", errors="replace")
        assert word not in told
        assert token not in told
        shutil.rmtree(lab.path / "sessions")


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts by signal")
def test_ctrl_c_ends_a_clone_that_hangs(lab: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lab.parameters(repository_url=f"http://127.0.0.1:{silent.getsockname()[1]}/stimulus.git")
        process = lab.start("day1.json", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        lab.wait_for(lambda: list((lab.path / "code").glob(".stimulus.openscope-clone-*")))
        started = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 2, output
    assert time.monotonic() - started < 15
    assert "interrupted by Ctrl-C" in output
    assert lab.end["outcome"] == "interrupted"
    assert [path.name for path in (lab.path / "code").iterdir()] == [".stimulus.openscope.lock"]


def test_a_clone_that_hangs_is_given_up_after_its_time(lab: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lab.parameters(repository_url=f"http://127.0.0.1:{silent.getsockname()[1]}/stimulus.git", repository_timeout_s=1)
        result = lab.run("day1.json")
    assert result.ret == 1
    assert "git clone did not end within 1 s" in lab.debug["exception"]
    assert "cloning" in result.stderr.str()


def test_packages_of_devices_are_in_the_revisions(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = lab.path / "lab_source"
    driver = make(source, {"lab_rig/__init__.py": "class Lamp:\n    def close(self): pass\n"})
    (source / "lab_rig" / "extra.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(source)]))
    rig = (lab.path / "rig.yaml").read_text()
    lab.write(
        "rig.yaml",
        f"{rig}devices:\n  lamp: {{driver: 'lab_rig:Lamp'}}\n  net: {{driver: 'packaging.markers:UndefinedComparison'}}\n",
    )
    lab.steps("def test_acquire(): pass\n")
    assert lab.run("test_experiment.py").ret == 0
    by_name = {one["name"]: one for one in lab.metadata("git_revisions.json")}
    assert (by_name["lab_source"]["commit"], by_name["lab_source"]["dirty"]) == (driver, True)
    assert by_name["lab_source"]["branch"] == "main"
    assert by_name["packaging"]["package_version"]
    assert by_name["packaging"]["source"] == "installed package"


def test_files_that_a_session_leaves_in_the_repository_are_told_before_they_stop_the_next(lab: Any) -> None:
    maker = "import pathlib\npathlib.Path(__file__).with_name('cache.bin').touch()\n"
    made = commit(lab.remote, {"code/run.py": maker, ".gitignore": "ignored.txt\n"})
    lab.parameters(repository_commit_hash=made)
    result = lab.run("day1.json")
    assert result.ret == 0
    assert "which will stop the next one: new code/cache.bin -> name them in .gitignore" in result.stdout.str()
    assert "WARNING" in lab.messages
    second = lab.run("day1.json")
    assert second.ret == 4
    assert "new code/cache.bin" in second.stderr.str()
    result = lab.run("--allow-dirty", "day1.json")
    assert result.ret == 0
    assert "which will stop the next one" not in result.stdout.str(), "it was there before"


def test_two_rigs_of_one_computer_do_not_move_each_others_code(lab: Any) -> None:
    rig = (lab.path / "rig.yaml").read_text()
    lab.write("rig2.yaml", rig.replace("bench", "bench2").replace("state\n", "state2\n"))
    lab.parameters(
        repository_commit_hash=lab.first,
        launcher="command",
        command=[sys.executable, "-c", "import os, time\nwhile not os.path.exists('go on'): time.sleep(0.02)"],
    )
    running = lab.start("day1.json")
    try:
        lab.wait_for(lambda: "started" in lab.messages and "command" in lab.messages and lab.code.exists())
        lab.wait_for(lambda: any("acquisition" in str(entry.phase) for entry in lab.log))
        _parameters(lab, repository_commit_hash=lab.second)
        (lab.path / "day1.json").rename(lab.path / "day2.json")
        command = [*lab.command("day2.json", rig=False), "--rig-config", "rig2.yaml", "--subject-id", "m2", "--user-id", "eve"]
        other = warm.run(command, cwd=lab.path)
        assert other.returncode == 1, other.stdout + other.stderr
        assert "runs another commit in" in other.stderr
        assert git(lab.code, "rev-parse", "HEAD") == lab.first
    finally:
        lab.write("go on", "")
        assert running.wait(30) == 0
    again = warm.run(command, cwd=lab.path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert git(lab.code, "rev-parse", "HEAD") == lab.second


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("answer", ["y", "n"])
def test_the_operator_decides_on_a_branch_whose_remote_cannot_be_asked(lab: Any, answer: str) -> None:
    import pty

    lab.parameters(repository_commit_hash="main")
    assert lab.run("day1.json").ret == 0
    shutil.rmtree(lab.path / "sessions")
    shutil.rmtree(lab.remote)
    leader, follower = pty.openpty()
    command = [part for part in lab.command("day1.json") if part != "--no-input"]
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    process = warm.start(command, cwd=lab.path, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    seen, answers = b"", [(b"Run that commit?", answer.encode()), (b"Notes on this session", b"")]
    while True:
        try:
            data = os.read(leader, 4096)
        except OSError:
            break
        seen += data
        if not data:
            break
        if answers and answers[0][0] in seen:
            os.write(leader, answers.pop(0)[1] + b"\n")
    os.close(leader)
    assert process.wait(20) == (0 if answer == "y" else 1), seen.decode()
    assert lab.second in seen.decode()
    assert ("acquisition.run.stdout version 2" in lab.messages) == (answer == "y")


def test_a_repository_as_the_labs_have_it_makes_its_stimulus_table(lab: Any) -> None:
    """History, a submodule, and the script module of a real parameter file, which takes keyword arguments."""
    real = json.loads((Path(__file__).parents[1] / "unit" / "data" / "params" / "predictive_processing_test.json").read_text())
    entry = real["pre_acquisition_pipeline"][0]
    shared, remote = lab.path / "remote" / "shared", lab.path / "remote" / "predictive.git"
    make(shared, {"blocks.py": "BLOCKS = ['oddball', 'standard']\n"})
    first = make(remote, {entry["module_path"]: "def generate_single_session_csv(**given): raise ValueError('an old one')\n"})
    git(remote, "submodule", "--quiet", "add", shared.as_uri(), "libs/shared")
    pinned = commit(remote, {entry["module_path"]: GENERATE, "show.py": "print('shown')\n"})
    commit(remote, {entry["module_path"]: "raise RuntimeError('a newer one')\n"})
    lab.parameters(
        repository_url=remote.as_uri(), repository_commit_hash=pinned, script_path="show.py", pre_acquisition_pipeline=[entry]
    )
    result = lab.run("day1.json")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    rows = (lab.folder / "predictive_processing_session.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["block", "oddball", "standard"]
    assert "stimulus writing duration_mismatch_long_zebra" in lab.messages
    table = (lab.folder / "predictive_processing_session.csv").read_bytes()
    own = lab.metadata("git_revisions.json")[0]
    assert (own["name"], own["commit"], own["dirty"]) == ("predictive", pinned, False)
    shutil.rmtree(lab.path / "sessions")
    shutil.rmtree(lab.path / "remote")
    assert lab.run("day1.json").ret == 0, "commit and submodule are here"
    assert (lab.folder / "predictive_processing_session.csv").read_bytes() == table
    shutil.rmtree(lab.path / "sessions")
    lab.run("day1.json", "--param", f"repository_commit_hash={first}", "--param", f"script_path={entry['module_path']}")
    assert "an old one" in lab.debug["exception"]
