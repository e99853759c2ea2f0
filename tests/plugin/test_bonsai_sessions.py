"""Whole sessions with ``launcher: bonsai``, run by a stand-in of Bonsai."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import warm

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from bonsai_kit import SOUND, StandIn, externalized, install, node, subject, text_value, timer, workflow, writer
from git_kit import commit, make

OVERWRITES = workflow(timer(), writer("day.csv", "None", overwrite=True), edges=[(0, 1)])


@pytest.fixture
def lab(bench: Any) -> Any:
    bench.bonsai = StandIn(bench.path / "bonsai")
    bench.write("flows/oddball.bonsai", SOUND)
    bench.parameters = lambda **more: bench.write(
        "day1.json",
        json.dumps(
            {
                "launcher": "bonsai",
                "bonsai_exe_path": str(bench.bonsai.exe),
                "script_path": str(bench.path / "flows" / "oddball.bonsai"),
                "script_parameters": {"events_path": "{subject_id}\\events.csv"},
                **more,
            }
        ),
    )
    bench.parameters()
    return bench


def test_a_real_session(lab: Any) -> None:
    result = lab.run_here("day1.json")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*notice*")
    events = lab.folder / "mouse7" / "events.csv"
    (facts,) = lab.end["acquisitions"]
    assert (facts["name"], facts["returncode"]) == ("oddball", 0)
    provenance = lab.metadata("bonsai_provenance.json")
    assert provenance["outputs"][0]["files"] == {str(events): events.stat().st_size}
    assert events.stat().st_size >= 10
    assert any(entry.message == "workflow of 8 nodes runs" for entry in lab.log)


def test_a_fatal_error_is_the_failure_of_the_session(lab: Any) -> None:
    lab.bonsai.faults("fatal")
    result = lab.run_here("day1.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*fatal error*No camera found*"])
    assert lab.end["outcome"] == "failed"
    assert len(lab.bonsai.calls) == 1


def test_a_dry_run_refuses_a_workflow_that_loses_data(lab: Any) -> None:
    lab.write("flows/oddball.bonsai", OVERWRITES)
    lab.parameters(script_parameters={"Nothing": 1})
    result = lab.run_here("day1.json", "--dry-run")
    assert result.ret == 4
    told = result.stdout.str() + result.stderr.str()
    assert "2 mistakes, nothing was started" in told
    assert "day1.json: script_path: SILENT_OVERWRITE: CsvWriter 'day.csv' #1" in told
    assert "day1.json: script_parameters: -p Nothing: Bonsai refuses it" in told
    assert not lab.folders


def test_a_real_session_is_warned_and_runs(lab: Any) -> None:
    lab.write("flows/oddball.bonsai", OVERWRITES)
    lab.parameters(script_parameters={}, bonsai_check_outputs=False)
    result = lab.run_here("day1.json")
    assert result.ret == 0
    assert "SILENT_OVERWRITE" in result.stdout.str() + result.stderr.str()
    assert any(entry.level == "WARNING" and "SILENT_OVERWRITE" in entry.message for entry in lab.log)


def test_a_dry_run_of_a_sound_workflow(lab: Any) -> None:
    lab.bonsai.exe.unlink()
    assert lab.run_here("day1.json", "--dry-run", "--strict").ret == 0
    assert not lab.bonsai.calls
    assert lab.metadata("bonsai_provenance.json")["fingerprint"]
    assert "acquisition" in lab.end["simulated"]


@pytest.mark.parametrize(
    ("text", "code", "status", "words"),
    [
        (SOUND, 0, "pass", ""),
        (OVERWRITES, 1, "fail", "SILENT_OVERWRITE"),
        (workflow(timer(), writer("a.csv", disabled=True), edges=[(0, 1)]), 0, "warn", "DISABLED_WRITER"),
        (workflow(subject("SubscribeSubject", "Nobody")), 1, "fail", "DANGLING_SUBJECT"),
    ],
    ids=["sound", "overwrites", "disabled", "dangling"],
)
def test_a_validation_of_the_rig_tells_the_same(lab: Any, text: str, code: int, status: str, words: str) -> None:
    lab.write("flows/oddball.bonsai", text)
    lab.parameters(**({} if text is SOUND else {"script_parameters": {}}))
    run = lab.run_here(
        # Processes are the whole computer's, on which other tests kill sessions.
        *("--rig-config", "rig.yaml", "--no-input", "--params", "day1.json", "--validate-rig", "-k", "not processes"),
        ids=False,
        rig=False,
    )
    assert run.ret == code
    checks = json.loads((lab.path / "state" / "validation.json").read_text(encoding="utf-8"))["checks"]
    assert checks["acquisition[bonsai]"]["status"] == status
    assert words in checks["acquisition[bonsai]"]["message"]
    assert not lab.bonsai.calls


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("answer", "code", "calls"), [("r", 0, 2), ("p", 0, 1), ("abort", 1, 1), ("x\n\n", 0, 2)])
def test_the_operator_decides_what_a_failure_leads_to(lab: Any, answer: str, code: int, calls: int) -> None:
    """Anything else is asked again; Enter means the default; the limit of time of the step waits for the operator."""
    import pty

    lab.bonsai.faults("fatal:1")
    lab.parameters(acquisition_timeout_s=20)
    leader, follower = pty.openpty()
    command = [part for part in lab.command("day1.json") if part != "--no-input"]
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    process = warm.start(command, cwd=lab.path, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    seen, answers = b"", [(b"(retry, proceed, abort) [retry]", answer.encode()), (b"Notes on this session", b"")]
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
    assert process.wait(20) == code, seen.decode()
    assert b"had a fatal error" in seen
    told = {"p": "the session goes on as if it had not"}.get(answer, "it runs again, attempt 2")
    assert (f"; {told}".encode() in seen) == (answer != "abort")
    assert len(lab.bonsai.calls) == calls
    assert [one["name"] for one in lab.end["acquisitions"]] == ["oddball", "oddball[2]"][:calls]


GENERATE = """
def generate_single_session_csv(session_type, seed, output_path):
    with open(output_path, "w") as table:
        table.write(f"{session_type},{seed}\\n")
"""


def _oddball(names: list[str]) -> str:
    """The properties of the labs' workflow, and a writer whose file name comes from data."""
    nodes, edges = [], []
    for name in names:
        edges.append((len(nodes), len(nodes) + 1))
        nodes += [externalized("Value", name), text_value()]
    mapping = node("PropertyMapping", '<PropertyMappings><Property Name="FileName" /></PropertyMappings>')
    first = len(nodes)
    return workflow(
        *nodes, timer(), mapping, writer("from_data.csv"), edges=[*edges, (first, first + 2), (first + 1, first + 2)]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="the setup script is a shell script")
def test_a_parameter_file_of_the_labs_from_its_repository(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clone, stimulus table, setup of Bonsai, its workflow: the file as it is but for paths, other PCs and other steps."""
    config = bench.write("gitconfig", '[user]\nname = t\nemail = t@example.org\n[protocol "file"]\nallow = always\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    file = Path(__file__).parents[1] / "unit" / "data" / "params" / "predictive_processing_test.json"
    real = json.loads(file.read_text(encoding="utf-8"))
    bench.write("day1.json", file.read_text(encoding="utf-8"))
    bench.write(
        "rig.yaml",
        "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\n"
        "values: {COM_port: COM3, DisplayDeviceIndex: 1, WindowStateIndex: 2}\n",
    )
    remote, folder = bench.path / "remote" / "predictive.git", "code/stimulus-control/bonsai"
    kept = bench.write("kept", "")
    install(kept)
    entry = real["pre_acquisition_pipeline"][0]
    make(remote, {entry["module_path"]: GENERATE, ".gitignore": f"/{folder}/Bonsai.exe\n/{folder}/calls\n__pycache__\n"})
    setup = remote / folder / "setup.cmd"
    setup.parent.mkdir(parents=True)
    setup.write_text("#!/bin/sh\necho restoring packages\ncp stand_in Bonsai.exe\nchmod +x Bonsai.exe\n")
    setup.chmod(0o755)
    pinned = commit(
        remote, {f"{folder}/stand_in": kept.read_text(), real["script_path"]: _oddball(list(real["script_parameters"]))}
    )
    overrides = {
        "repository_url": remote.as_uri(),
        "repository_commit_hash": pinned,
        "local_repository_path": str(bench.path / "code"),
        "output_root_folder": "sessions",
        "session_sync_role": "null",
        "pre_acquisition_pipeline": json.dumps([entry]),
        "post_acquisition_pipeline": "[]",
    }
    given = [part for key, value in overrides.items() for part in ("--param", f"{key}={value}")]
    result = bench.run("day1.json", *given)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    table = bench.folder / "predictive_processing_session.csv"
    assert table.read_text() == "duration_mismatch_long_zebra,42\n"
    assert [one["name"] for one in bench.end["acquisitions"]] == ["setup of Bonsai", "generic_oddball_slap2"]
    properties = bench.metadata("bonsai_provenance.json")["properties"]
    assert {name: one["value"] for name, one in properties.items()} == {
        "stimulus_table_path": str(table), "PortName": "COM3", "Subject": "mouse7", "DisplayDeviceIndex": "1",
        "WindowStateIndex": "2", "stimulus_table_duration": "00:01:00", "RootFolder": str(bench.folder),
    }  # fmt: skip
    assert bench.metadata("git_revisions.json")[0]["dirty"] is False
    (call,) = (bench.path / "code" / "predictive" / folder / "calls").read_text().splitlines()
    assert call.split("|")[0] == str((bench.path / "code" / "predictive" / real["script_path"]).parent)
