"""Ready-made steps in whole sessions: parameter files of labs, the rig's own steps, the launcher's, limits of time."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from metadata_server import MetadataServer, broken_server
from step_kit import PACE

PARAMETER_FILES = sorted((Path(__file__).parents[1] / "unit" / "data" / "params").glob("*.json"))
RIG = "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\n"
SAY = "import pathlib\ndef run(params):\n    pathlib.Path(params['session_folder'], 'said').write_text({text!r})\n"


def write_parameters(bench: Any, pre: list[Any], post: list[Any] | None = None, /, **more: Any) -> None:
    pipelines = {"pre_acquisition_pipeline": pre, "post_acquisition_pipeline": post or []}
    bench.write("day1.json", json.dumps({"launcher": "base", "ask_notes": False, **pipelines, **more}))


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_parameter_files_of_labs_run_dry(bench: Any, path: Path) -> None:
    """Unedited, on a rig that knows nothing but the values that its files ask of it."""
    bench.write("rig.yaml", RIG + "values: {COM_port: COM3, DisplayDeviceIndex: 2, WindowStateIndex: 1}\n")
    shutil.copy(path, bench.path / path.name)
    # Theirs is a folder on a drive that Windows' computers have.
    result = bench.run_here(path.name, "--dry-run", "--output-root", bench.path / "sessions")
    assert result.ret == 0
    (folder,) = {file.parent for file in bench.path.rglob("end_state.json")}
    end = json.loads((folder / "end_state.json").read_text("utf-8"))
    assert end["outcome"] == "passed"
    written = json.loads(path.read_text("utf-8"))
    entries = [*written.get("pre_acquisition_pipeline", ()), *written.get("post_acquisition_pipeline", ())]
    ours = [one["name"] for one in end["steps"] if one["phase"] != "acquisition"]
    assert len(ours) == len(entries)


def test_a_rig_has_steps_of_its_own_and_the_launchers(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("rig.yaml", RIG + "modules:\n  focus: steps/focus.py\n  wait_for_user_input: lab_steps:wait\n")
    bench.write("steps/focus.py", SAY.format(text="in focus"))
    bench.write("lab_steps.py", "def wait(params):\n    print('ours waits for nobody')\n")
    bench.write("site/openscope_experimental_launcher/__init__.py", "")
    text = "import json, logging\ndef run_post_acquisition(param_file):\n"
    text += "    params = json.load(open(param_file))\n    logging.info('annotating %s', params['subject_id'])\n"
    text += "    input('really? ')\n"
    bench.write("site/openscope_experimental_launcher/post_acquisition/annotate.py", text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(bench.path / "site")]))
    write_parameters(bench, ["focus", "wait_for_user_input"], ["annotate"])
    assert bench.run("day1.json").ret == 1
    assert bench.outcomes() == {
        "focus": "passed",
        "wait_for_user_input": "passed",
        "acquisition": "passed",
        "annotate": "failed",
    }
    assert (bench.folder / "said").read_text() == "in focus"
    assert "annotating mouse7" in bench.messages
    assert "nobody to ask: really?" in bench.debug["exception"]  # it asked, and nobody is there


def test_a_labs_steps_ask_the_service_that_the_rig_names(bench: Any) -> None:
    """The entries are those of a lab's file, unedited; a real server answers."""
    written = json.loads((PARAMETER_FILES[0].parent / "predictive_processing_test.json").read_text("utf-8"))
    names = ("metadata_subject_fetch", "metadata_project_validator", "disk_space_check")
    entries = [one for one in written["pre_acquisition_pipeline"] if one["module_path"] in names]
    with MetadataServer() as server:
        server.replies = {
            "/api/v2/subject/mouse7": [(503, b"starting"), (200, {"subject_id": "mouse7"})],
            "/api/v2/project_names": [(200, ["OpenScope", "Ophys Platform - SLAP2"])],
        }
        bench.write("rig.yaml", RIG + f"metadata_service_base_url: {server.url}\nmetadata_service_retry_delay: 0.01\n")
        write_parameters(bench, entries)
        overrides = ["--param", "pre_acquisition_pipeline.2.module_parameters.required_free_gb=0.001"]
        assert bench.run_here("day1.json", *overrides).ret == 0
        assert len(server.asked) == 3
    assert json.loads((bench.folder / "subject.json").read_text("utf-8")) == {"subject_id": "mouse7"}
    project = json.loads((bench.folder / "project.json").read_text("utf-8"))
    assert project == {"project_name": "Ophys Platform - SLAP2", "protocol_id": "2415", "operator": "ada"}
    assert "attempt 1: " in bench.messages


def test_typos_and_unknown_steps_stop_a_session_before_it_starts(bench: Any) -> None:
    write_parameters(
        bench,
        [
            {"module_path": "disk_space_check", "module_parameters": {"required_free_gbs": 3}},
            {"module_path": "mouse_weight_pre_prompt", "module_parameters": {"mouse_weight_minimum_g": "light"}},
            "slap2_meta_annotator",
        ],
        ["mouse_weight_post_promt"],
    )
    result = bench.run_here("day1.json")
    assert result.ret == 4
    said = "\n".join([*result.outlines, *result.errlines])
    for text in (
        "module_parameters.required_free_gbs: unknown key -> did you mean required_free_gb?",
        "module_parameters.mouse_weight_minimum_g: a number expected, not text 'light'",
        "there is no step 'slap2_meta_annotator'",
        "did you mean 'mouse_weight_post_prompt'?",
    ):
        assert text in said, said
    assert bench.folders == []


def test_a_step_that_takes_longer_than_its_own_limit(bench: Any) -> None:
    """A disk that does not answer."""
    bench.write(
        "conftest.py",
        "import shutil, time\nreal = shutil.disk_usage\n"
        "def usage(path):\n    time.sleep(300) if 'sessions' in str(path) else None\n    return real(path)\n"
        "def pytest_runtest_call(item):\n    if item.name == 'disk_space_check': shutil.disk_usage = usage\n"
        "def pytest_runtest_teardown(item):\n    shutil.disk_usage = real\n",
    )
    step = {"module_path": "disk_space_check", "module_parameters": {"required_free_gb": 1e-6, "timeout_s": 0.5}}
    write_parameters(bench, [step], [])
    result = bench.run("day1.json")
    assert result.duration < 90
    assert bench.outcomes()["disk_space_check"] == "timeout"
    assert "took longer than 0.5 s" in bench.debug["exception"]


@pytest.mark.parametrize("limit", [{"timeout_s": PACE}, {"module_parameters": {"timeout_s": PACE}}], ids=["entry", "step"])
def test_a_service_that_never_answers_does_not_hold_a_session_up(bench: Any, limit: dict[str, Any]) -> None:
    with broken_server(lambda _, stop: stop.wait(300) and None) as (url, asked):
        bench.write("rig.yaml", RIG + f"metadata_service_base_url: {url}\nmetadata_service_timeout: 250\n")
        write_parameters(bench, [{"module_path": "metadata_subject_fetch", **limit}, "example_pre_acquisition_module"])
        result = bench.run("day1.json")
        assert len(asked) == 1
    assert result.duration < 90
    expected = {"metadata_subject_fetch": "timeout", "example_pre_acquisition_module": "passed", "acquisition": "passed"}
    assert bench.outcomes() == expected
    assert bench.end["outcome"] == "timeout"


STEPS = """
import json
import pytest


@pytest.fixture(scope="session")
def weight_g(steps):
    return steps.mouse_weight_pre_prompt(mouse_weight_g="{weight}")


@pytest.mark.pre_acquisition
def test_before(steps, weight_g, experiment):
    assert experiment.dry_run or weight_g == 24.5
    steps.disk_space_check(required_free_gb="{needed_gb}", disk_space_check_path=experiment.session_folder)
    steps.focus()


def test_acquire(): pass


@pytest.mark.post_acquisition
def test_after(steps, experiment):
    steps.session_creator(session_format="minimal")
    steps.annotate()
"""


def test_steps_in_python_experiments(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("rig.yaml", RIG + "needed_gb: 0.001\nweight: 24.5\nmodules: {focus: focus.py}\n")
    bench.write("focus.py", SAY.format(text="in focus"))
    bench.write("site/openscope_experimental_launcher/__init__.py", "")
    bench.write("site/openscope_experimental_launcher/post_acquisition/annotate.py", SAY.format(text="annotated"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(bench.path / "site")]))
    bench.write("test_experiment.py", STEPS)
    assert bench.run().ret == 0
    assert bench.outcomes() == {"test_before": "passed", "test_acquire": "passed", "test_after": "passed"}
    assert (bench.folder / "said").read_text() == "annotated"
    assert [one["name"] for one in bench.end["measurements"]] == ["mouse_weight_pre", "disk_space_free"]
    assert bench.end["attachments"] == ["session.json"]
    described = json.loads((bench.folder / "session.json").read_text("utf-8"))
    assert (described["subject_id"], described["animal_weight_prior_g"]) == ("mouse7", 24.5)
    shutil.rmtree(bench.path / "sessions")
    assert bench.run("--dry-run").ret == 0
    simulated = ["mouse_weight_pre_prompt", "disk_space_check", "session_creator", "annotate"]
    assert bench.end["simulated"] == simulated
    assert "dry run: would run 'annotate' of the installed openscope_experimental_launcher" in bench.messages


def test_a_session_describes_itself(bench: Any) -> None:
    """In a parameter file, with a real acquisition before it; the schema reads the file."""
    schema = pytest.importorskip("aind_data_schema.core.acquisition")
    bench.write("record.py", "import time\ntime.sleep(0.3)\n")
    post = ["session_creator", {"module_path": "session_enhancer_bonsai", "module_parameters": {"timeout_s": 90}}]
    more = {"launcher": "python", "script_path": "record.py", "mouse_platform_name": "disc", "protocol_id": [2415]}
    pre = [{"module_path": "mouse_weight_pre_prompt", "module_parameters": {"mouse_weight_g": 20}}]
    write_parameters(bench, pre, post, **more, script_parameters={"a": 1})
    result = bench.run("day1.json")
    assert result.ret == 0
    assert "warnings summary" not in "\n".join(result.outlines)
    text = (bench.folder / "acquisition.json").read_text("utf-8")
    found = schema.Acquisition.model_validate_json(text)
    (stream,) = found.data_streams
    assert 0.3 <= (stream.stream_end_time - stream.stream_start_time).total_seconds() < 90
    assert found.acquisition_start_time <= stream.stream_start_time
    assert float(found.subject_details.animal_weight_prior) == 20
    assert found.acquisition_type == "Bonsai"
    assert bench.end["attachments"] == ["acquisition.json"]
