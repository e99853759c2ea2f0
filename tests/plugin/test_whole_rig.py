"""A real parameter file of a lab, unedited, from its repository to its archive; and the same with the experiment killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import warm

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
sys.path.insert(0, str(Path(__file__).parents[2] / "example_rigs" / "openscope" / "stand_ins"))
from bonsai_kit import STAND_IN, externalized, timer, workflow
from git_kit import commit, git, make
from launcher_sync import launcher_slave
from metadata_service import serve

pytest.importorskip("baghban", reason="the extra 'bonsai' is not installed")
pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals of this kind")
FILE = Path(__file__).parents[1] / "unit" / "data" / "params" / "predictive_processing_test.json"
GENERATE = """
import csv, logging

from pathlib import Path


def generate_single_session_csv(session_type, seed, output_path):
    blocks = Path(__file__).parents[2] / "libs" / "blocks.txt"
    with open(output_path, "w", newline="") as stream:
        csv.writer(stream).writerows([["block", session_type, seed], *([line] for line in blocks.read_text().split())])
    logging.getLogger("stimulus").info("writing %s", session_type)
"""
ANNOTATE = """
import json
from pathlib import Path


def run_post_acquisition(params):
    folder = Path(params["output_session_folder"])
    (folder / (Path(__file__).stem + ".json")).write_text(json.dumps({"device": params.get("device_name")}))
"""
ANNOTATORS = ("slap2_behaviorvideo_annotator", "slap2_behavior_annotator", "slap2_stimuli_p3_annotator")


@pytest.fixture
def rig(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lab's repository with its history, a submodule and a Bonsai; the lab's own steps; the metadata service."""
    real = json.loads(FILE.read_text(encoding="utf-8"))
    config = '[user]\nname = t\nemail = t@example.org\n[protocol "file"]\nallow = always\n'
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(bench.write("gitconfig", config)))
    shared, remote = bench.path / "remote" / "shared", bench.path / "remote" / "predictive.git"
    make(shared, {"blocks.txt": "oddball standard\n"})
    make(remote, {"README.md": "an old version\n"})
    git(remote, "submodule", "--quiet", "add", shared.as_uri(), "code/stimulus-control/libs")
    names = [name for name in real["script_parameters"] if name != "stimulus_table_path"]
    shown = workflow(
        timer(),
        *(externalized("Value", name) for name in (*names, "stimulus_table_path")),
    )
    stand_in = f"#!{sys.executable}{STAND_IN.replace('{fatal}', '')}"
    module, exe = real["pre_acquisition_pipeline"][0]["module_path"], real["bonsai_exe_path"]
    files = {real["script_path"]: shown, exe: stand_in, ".gitignore": "calls\nfaults\n", module: GENERATE}
    (remote / exe).parent.mkdir(parents=True)
    commit(remote, files)
    (remote / exe).chmod(0o755)
    bench.commit = commit(remote, {})
    service = serve(0)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    for name in ANNOTATORS:
        bench.write(f"lab_steps/{name}.py", ANNOTATE)
    bench.write(
        "rig.yaml",
        f"rig_id: slap2\noutput_root_folder: sessions\nstate_directory: state\n"
        f"modules: {{{', '.join(f'{name}: lab_steps/{name}.py' for name in ANNOTATORS)}}}\n"
        f"parameters: {{metadata_service_base_url: 'http://127.0.0.1:{service.server_address[1]}', stop_graceful_s: 0.5}}\n"
        f"values: {{COM_port: COM3, DisplayDeviceIndex: 1, WindowStateIndex: 3}}\n",
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        bench.port = free.getsockname()[1]
    bench.code = bench.path / "code"
    monkeypatch.setenv("EDITOR", "true")  # an editor that needs no screen
    # What is told apart from the file: local paths, and the port, since tests run side by side.
    archive = "post_acquisition_pipeline.4.module_parameters"
    bench.given = [
        f"repository_url={remote.as_uri()}",
        f"repository_commit_hash={bench.commit}",
        f"local_repository_path={bench.code}",
        f"output_root_folder={bench.path / 'sessions'}",
        f"{archive}.network_dir={bench.path / 'network'}/{{subject_id}}/{{session_uuid}}/behavior",
        f"{archive}.backup_dir={bench.path / 'backup'}/{{subject_id}}/{{session_uuid}}/behavior",
        f"session_sync_port={bench.port}",
    ]
    yield bench
    service.shutdown()


def verified_copies(bench: Any) -> dict[str, Any]:
    """Return the archiver's manifest, once both copies of all that it names have been read back and are there."""
    manifest: dict[str, Any] = bench.metadata("session_archiver_manifest.json")
    name = bench.folder.name
    for place in ("network", "backup"):
        copy = bench.path / place / "mouse7" / name / "behavior"
        assert (copy / "predictive_processing_session.csv").read_bytes() == (
            bench.folder / "predictive_processing_session.csv"
        ).read_bytes()
    return manifest


class Operator:
    """Sits at the terminal and answers each question once, by what a function gives."""

    def __init__(self, command: list[str], cwd: Path, answers: dict[str, Callable[[], str]]) -> None:
        self.seen = ""
        leader, follower = pty.openpty()
        environment = {key: value for key, value in os.environ.items() if key != "CI"}
        self.process = warm.start(command, cwd=cwd, stdin=follower, stdout=follower, stderr=follower, env=environment)
        os.close(follower)
        self._leader, self._answers = leader, answers
        self._thread = threading.Thread(target=self._sit, daemon=True)
        self._thread.start()

    def _sit(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(self._leader, 4096):
                self.seen += data.decode("utf-8", "replace")
                for question in [question for question in self._answers if question in self.seen]:
                    os.write(self._leader, self._answers.pop(question)().encode() + b"\n")

    def wait(self) -> int:
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(self.seen) from None
        self._thread.join(5)
        os.close(self._leader)
        return code


@pytest.mark.parametrize("ending", ["passed", "killed"])
def test_the_labs_file_runs_whole(rig: Any, ending: str) -> None:
    given = [part for one in rig.given for part in ("--param", one)]
    command = [part for part in rig.command(str(FILE), *given) if part != "--no-input"]
    bonsai = rig.code / "predictive" / "code/stimulus-control/bonsai"

    def prepare() -> str:
        """Before he starts Bonsai: this one is to hang, so that the experiment is killed in the middle."""
        if ending == "killed":
            (bonsai / "faults").write_text("hang")
        return ""

    answers: dict[str, Callable[[], str]] = {
        "Press 'b' to bypass": str,
        "Project name": str,
        "protocol identifier": str,
        "operator name": str,
        "Pause before launching Bonsai": prepare,
        "Confirm experiment notes": lambda: "yes",
        "Notes on this session": str,
    }
    operator = Operator(command, rig.path, answers)
    with ThreadPoolExecutor(2) as pool:
        # Two PCs that still run the launcher.
        slaves = [pool.submit(launcher_slave, rig.port, "mouse7", f"pc{number}", 60.0) for number in (1, 2)]
        try:
            names = {slave.result()[0] for slave in slaves}
        except Exception as error:
            raise AssertionError(operator.seen) from error
    if ending == "killed":
        rig.wait_for(lambda: "nodes runs" in rig.messages, 60)
        operator.process.send_signal(signal.SIGKILL)
        operator.wait()
        rig.wait_for(lambda: rig.end.get("rescued"), 90)
    else:
        assert operator.wait() == 0, operator.seen
    assert names == {rig.folder.name}
    end = rig.end
    outcomes = {step["name"]: step["outcome"] for step in end["steps"]}
    assert end["outcome"] == ("passed" if ending == "passed" else "crashed"), operator.seen
    for name in (*ANNOTATORS, "session_archiver"):
        assert outcomes[name] == "passed", (outcomes, operator.seen)
    assert json.loads((rig.folder / "slap2_behavior_annotator.json").read_text()) == {"device": "VCO1_Behavior"}
    assert json.loads((rig.folder / "subject.json").read_text())["subject_id"] == "mouse7"
    assert rig.metadata("git_revisions.json")[0]["commit"] == rig.commit
    assert verified_copies(rig)
    assert (rig.folder / "predictive_processing_session.csv").read_text().split() == [
        "block,duration_mismatch_long_zebra,42",
        "oddball",
        "standard",
    ]
