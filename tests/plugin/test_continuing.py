"""``--continue-session``: the same animal, the same answers, a new numbered session, and nothing of the earlier one touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from share_kit import processes_of

STEPS = """
def test_trials(experiment):
    print("gain", experiment.parameters.get("gain"), experiment.parameters.get("token"), experiment.subject_id)
"""


def state(folder: Path) -> Any:
    return json.loads((folder / "launcher_metadata" / "end_state.json").read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "end_state.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_chain_of_sessions(bench: Any) -> None:
    bench.steps(STEPS)
    secret = "h7Gq92LmZx"
    bench.run("--param", "gain=3", "--param", f"token={secret}", "--param", "camera.fps=60", "--maxfail=1")
    first = bench.folder
    bench.wait_for(lambda: not processes_of(first))
    kept, before = contents(first), state(first)

    done = bench.run("--continue-session", "last", "--param", "camera.fps=30", "--no-input", ids=False)
    second = first.with_name(f"{first.name}_2")
    assert done.ret == 0, done.stdout.str()
    done.stdout.fnmatch_lines([f"continues {first.name} as {second.name}"])
    end = state(second)
    link = {"session_uuid": first.name, "session_folder": str(first), "first_session": first.name, "number": 2}
    assert end["continues"] == link
    assert (end["subject_id"], end["user_id"]) == ("mouse7", "ada")
    parameters = json.loads((second / "launcher_metadata" / "input_parameters.json").read_text())
    assert parameters["gain"] == 3
    assert parameters["camera"] == {"fps": 30}  # what is given now counts
    assert "token" not in parameters
    assert f"token is not taken over from {first.name}" in done.stdout.str()
    assert secret not in (second / "launcher_metadata" / "launcher.log").read_text()
    assert contents(first) == kept
    assert state(first) == {**before, "continued_by": [{"session_uuid": second.name, "session_folder": str(second)}]}

    # A continuation is continued: the answers go on, the number too; and the first one may be continued once more.
    bench.run("--continue-session", "last", "--no-input", ids=False)
    third = first.with_name(f"{first.name}_3")
    assert state(third)["continues"]["session_uuid"] == second.name
    assert json.loads((third / "launcher_metadata" / "input_parameters.json").read_text())["gain"] == 3
    bench.run("--continue-session", first, "--no-input", ids=False)
    assert state(first.with_name(f"{first.name}_4"))["continues"] == {**link, "number": 2}
    assert [one["session_uuid"] for one in state(first)["continued_by"]] == [second.name, f"{first.name}_4"]


def test_what_cannot_be_continued_is_said_and_leaves_nothing(bench: Any) -> None:
    bench.steps(STEPS)
    done = bench.run("--continue-session", "last")
    assert done.ret == 4
    assert "no session of rig bench is in" in done.stderr.str()
    bench.run()
    first = bench.folder
    bench.write("other.yaml", "rig_id: other\noutput_root_folder: sessions\nstate_directory: state2\n")
    for arguments, words in (
        (("--continue-session", first, "--subject-id", "mouse8"), "was a session of subject mouse7, not of mouse8"),
        (("--continue-session", "sessions"), "is no session folder of this plugin"),
        (("--continue-session", first, "--rig-config", "other.yaml"), "was run on rig bench, not on other"),
        (("--continue-session", "last", "--validate-rig"), "a validation of the rig continues no session"),
        (("--continue-session", "last", "--resume-session", first), "a session that is resumed has its own values"),
    ):
        done = bench.run(*arguments)
        assert done.ret == 4, done.stdout.str()
        assert words in done.stderr.str()
        assert "Traceback" not in done.stderr.str()
        assert bench.folders == [first]


def test_a_killed_session_and_its_parameter_file_are_continued(bench: Any) -> None:
    """The operator restarts after a crash: pytest and the folder are all that he types."""
    bench.write("day1.json", json.dumps({"trials": 5, "session_uuid": "day1", "launcher": "base"}))
    bench.steps("def test_it(experiment):\n    kill_me()\n")
    bench.run("--params", "day1.json", "test_experiment.py")
    first = bench.folder
    bench.wait_for(lambda: state(first)["outcome"] == "crashed")
    bench.write("day1.json", json.dumps({"trials": 6, "session_uuid": "day1", "launcher": "base"}))
    bench.steps("def test_it(experiment):\n    assert experiment.parameters['trials'] == 6\n")
    done = bench.run("--continue-session", "last", "--no-input", "--wait-for-rig", "20", ids=False)
    assert done.ret == 0, done.stdout.str() + done.stderr.str()
    assert state(first.with_name("day1_2"))["continues"]["first_session"] == "day1"
    assert state(first)["continued_by"][0]["session_uuid"] == "day1_2"


def test_a_dry_run_adds_nothing_to_a_real_session(bench: Any) -> None:
    bench.steps(STEPS)
    bench.run()
    first = bench.folder
    before = (first / "launcher_metadata" / "end_state.json").read_bytes()
    bench.run("--continue-session", first, "--dry-run", ids=False)
    dry = first.parent / "dry_runs" / f"{first.name}_2"
    assert state(dry)["continues"]["session_uuid"] == first.name
    assert (first / "launcher_metadata" / "end_state.json").read_bytes() == before
    bench.run("--continue-session", "last", "--dry-run", ids=False)
    assert [one["session_uuid"] for one in state(dry)["continued_by"]] == [f"{first.name}_3"]
