"""The files that describe a session: accepted by the real schema, or the small file; Bonsai's workflow added to both."""

from __future__ import annotations

import importlib.util
import inspect
import json
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope import ModuleFailed, Steps
from pytest_openscope.modules import check_entries
from pytest_openscope.modules.ready_made import EXAMPLES, READY_MADE

schema = pytest.mark.skipif(importlib.util.find_spec("aind_data_schema") is None, reason="the extra aind is not installed")
COMMIT = "c0d146fe17dea846e7e6b7e548050693fae87f36"
URL = "https://github.com/AllenNeuralDynamics/openscope-community-predictive-processing.git"
WORKFLOW = "code/stimulus-control/src/generic_oddball_slap2.bonsai"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A session's folder as it is when post-acquisition begins."""
    folder = tmp_path / "m1_2026-05-01_09-00-00"
    metadata = folder / "launcher_metadata"
    metadata.mkdir(parents=True)
    end_state = {
        "session_uuid": folder.name,
        "subject_id": "614173",
        "user_id": "Ada Lovelace",
        "rig_id": "slap2-rig",
        "start_time": "2026-05-01T09:00:00.123456-07:00",
        "stop_time": None,
        "provisional": True,
        "experiment_data": {"experiment_notes": "it slept: größer"},
        "devices": {"laser": {}, "body_camera": {}},
        "steps": [
            {"name": "a", "phase": "pre_acquisition", "started": "2026-05-01T09:00:01-07:00", "duration_s": 5},
            {"name": "b", "phase": "acquisition", "started": "2026-05-01T09:10:00-07:00", "duration_s": 60.5},
            {"name": "c", "phase": "acquisition", "started": "2026-05-01T09:20:00-07:00", "duration_s": 60.0},
            {"name": "d", "phase": "acquisition", "started": "", "skipped": "a failed", "duration_s": 0},
        ],
    }
    parameters = {
        "launcher": "bonsai",
        "script_path": WORKFLOW.replace("/", "\\"),
        "repository_url": URL,
        "script_parameters": {"Subject": "614173", "Stim.Contrast": 0.5, "PortName": "COM3"},
    }
    (metadata / "end_state.json").write_text(json.dumps(end_state), encoding="utf-8")
    (metadata / "processed_parameters.json").write_text(json.dumps(parameters), encoding="utf-8")
    revisions = [{"name": "pp", "repository_url": URL, "commit": COMMIT, "experiment": True}, {"name": "pytest-openscope"}]
    (metadata / "git_revisions.json").write_text(json.dumps(revisions), encoding="utf-8")
    rows = "timestamp,stage,weight_g\nx,pre,24.5\nx,pre,24.7\nx,post,24.1\n"
    (folder / "mouse_weight.csv").write_text(rows, encoding="utf-8")
    return folder


def read_by_the_schema(path: Path) -> Any:
    """Read a file as a downstream program does: with the package itself, strictly."""
    from aind_data_schema.core.acquisition import Acquisition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Acquisition.model_validate_json(path.read_text("utf-8"))


def content_of(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / "launcher_metadata" / name
    path.write_text(json.dumps({**content_of(path), **changes}), encoding="utf-8")


GIVEN: dict[str, Any] = {"mouse_platform_name": "wheel", "protocol_id": 2415, "ethics_review_id": ["e1", 2]}


@schema
def test_the_schema_accepts_what_is_written(folder: Path) -> None:
    path = Steps(folder).session_creator(**GIVEN, session_modalities=["behavior", "behavior-videos"])
    assert path == folder / "acquisition.json"
    acquisition = read_by_the_schema(path)
    assert acquisition.subject_id == "614173"
    assert acquisition.experimenters == ["Ada Lovelace"]
    assert acquisition.instrument_id == "slap2-rig"
    assert (acquisition.protocol_id, acquisition.ethics_review_id) == (["2415"], ["e1", "2"])
    assert acquisition.acquisition_type == "Behavior"
    assert acquisition.notes == "it slept: größer"
    assert acquisition.acquisition_start_time == datetime.fromisoformat("2026-05-01T09:00:00.123456-07:00")
    details = acquisition.subject_details
    assert (float(details.animal_weight_prior), float(details.animal_weight_post)) == (24.7, 24.1)
    (stream,) = acquisition.data_streams
    assert stream.stream_start_time == datetime.fromisoformat("2026-05-01T09:10:00-07:00")
    assert stream.stream_end_time == datetime.fromisoformat("2026-05-01T09:21:00-07:00")
    assert [one.abbreviation for one in stream.modalities] == ["behavior", "behavior-videos"]
    assert stream.active_devices == ["laser", "body_camera"]
    (code,) = stream.code
    assert (code.url, code.commit_hash, code.name) == (URL, COMMIT, "generic_oddball_slap2.bonsai")
    assert content_of(path)["data_streams"][0]["code"][0]["parameters"]["Stim.Contrast"] == 0.5


@schema
def test_a_session_that_has_little_is_accepted_too(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("processed_parameters.json", "git_revisions.json"):
        (folder / "launcher_metadata" / name).unlink()
    edit(
        folder,
        "end_state.json",
        user_id="",
        steps=[],
        devices=None,
        experiment_data=None,
        stop_time="2026-05-01T10:00:00-07:00",
    )
    acquisition = read_by_the_schema(Steps(folder).session_creator(session_format="acquisition"))
    assert acquisition.acquisition_end_time == datetime.fromisoformat("2026-05-01T10:00:00-07:00")
    assert acquisition.data_streams[0].stream_end_time == acquisition.acquisition_end_time
    assert (acquisition.experimenters, acquisition.subject_details, acquisition.data_streams[0].code) == ([], None, None)
    assert "no place for them without mouse_platform_name" in caplog.text


@schema
def test_modalities_whose_devices_nobody_describes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = Steps(folder).session_creator(session_modalities=["slap2", "behavior", "ecephys"])
    first, second = read_by_the_schema(path).data_streams
    assert [one.abbreviation for one in first.modalities] == ["behavior"]
    assert [one.abbreviation for one in second.modalities] == ["slap2", "ecephys"]
    assert type(second).__name__ == "ExternalDataStream"
    assert "slap2, ecephys: the schema wants their devices described" in caplog.text


@schema
@pytest.mark.parametrize("as_file", [True, False])
def test_the_labs_own_streams(folder: Path, as_file: bool) -> None:
    from aind_data_schema_models.modalities import Modality

    modality = json.loads(Modality.BEHAVIOR.model_dump_json())
    streams = [{"object_type": "Data stream", "modalities": [modality], "active_devices": ["x"], "configurations": []}]
    (folder / "streams.json").write_text(json.dumps(streams), encoding="utf-8")
    path = Steps(folder).session_creator(session_data_streams="streams.json" if as_file else streams)
    (stream,) = read_by_the_schema(path).data_streams
    assert stream.active_devices == ["x"]
    assert stream.stream_end_time == datetime.fromisoformat("2026-05-01T09:21:00-07:00")
    streams[0]["active_device"] = []
    with pytest.raises(ModuleFailed, match=r"does not accept .*: data_streams.0.*active_device: Extra inputs"):
        Steps(folder).session_creator(session_data_streams=streams, force=True)
    assert read_by_the_schema(path).data_streams[0].active_devices == ["x"]  # it is still the good one


@schema
def test_what_the_schema_refuses_is_named_and_not_written(folder: Path) -> None:
    with pytest.raises(ModuleFailed, match=r"session_modalities: the schema has no 'behaviour' -> it has .*behavior"):
        Steps(folder).session_creator(session_modalities="behaviour")
    edit(folder, "end_state.json", rig_id="")
    with pytest.raises(ModuleFailed, match="instrument_id is required"):
        Steps(folder).session_creator()
    assert not (folder / "acquisition.json").exists()


def test_a_file_that_is_there_stays(folder: Path) -> None:
    path = folder / "session.json"
    path.write_text("{}", encoding="utf-8")
    Steps(folder).session_creator(session_format="minimal")
    assert path.read_text("utf-8") == "{}"
    Steps(folder).session_creator(session_format="minimal", force=True)
    assert content_of(path)["subject_id"] == "614173"


def test_the_small_file_without_the_schema(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if "aind" in name else real(name, *more))
    path = Steps(folder).session_creator(**GIVEN)
    assert "aind-data-schema is not installed" in caplog.text
    content = content_of(path)
    assert path.name == "session.json"
    stream = content["data_streams"][0]
    assert [one["name"] for one in stream["software"]] == ["pytest-openscope", "generic_oddball_slap2.bonsai"]
    page = (Path(__file__).parents[2] / "docs" / "reference" / "modules.md").read_text("utf-8")
    for key in (*content, *stream, *stream["software"][0]):
        assert f"`{key}`" in page, key
    assert (content["animal_weight_prior_g"], content["animal_weight_post_g"]) == (24.7, 24.1)
    assert content["protocol_id"] == ["2415"]
    assert datetime.fromisoformat(stream["stream_start_time"]) == datetime.fromisoformat("2026-05-01T09:10:00-07:00")
    entries = [_entry("session_creator", session_format="acquisition"), _entry("session_creator", session_format="nwb")]
    first, second = (str(one) for one in check_entries(entries))
    assert 'pip install "pytest-openscope[aind]"' in first
    assert "none of auto, acquisition, minimal" in second
    with pytest.raises(ModuleFailed, match=r"openscope\[aind\]"):
        Steps(folder).session_creator(session_format="acquisition")


def _entry(name: str, **parameters: Any) -> Any:
    from pytest_openscope.config import PipelineEntry
    from pytest_openscope.records import Phase

    return PipelineEntry(name=name, phase=Phase.POST_ACQUISITION, module_path=name, module_parameters=parameters, where="x")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"subject_id": "x"}', '{"start_time": "noon", "subject_id": "x"}'])
def test_a_folder_that_is_no_sessions(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "launcher_metadata").mkdir()
    if content is not None:
        (tmp_path / "launcher_metadata" / "end_state.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModuleFailed, match=r"is no session folder|has no time in 'noon'"):
        Steps(tmp_path).session_creator(session_format="minimal")
    assert not (tmp_path / "session.json").exists()


# session_enhancer_bonsai


def provenance(folder: Path) -> None:
    content = {"fingerprint": "f1f2", "package_versions": {"Bonsai": {"wanted": "2.8.5", "installed": "2.9.0"}}}
    (folder / "launcher_metadata" / "bonsai_provenance.json").write_text(json.dumps(content), encoding="utf-8")


@schema
def test_the_workflow_becomes_code_that_the_schema_accepts(folder: Path) -> None:
    steps = Steps(folder)
    steps.session_creator(session_modalities=["behavior", "slap2"])
    provenance(folder)
    for _ in range(2):
        path = steps.session_enhancer_bonsai()
        acquisition = read_by_the_schema(path)
        assert acquisition.acquisition_type == "Bonsai"
        (code,) = acquisition.data_streams[0].code
        assert (code.name, code.version) == ("Bonsai workflow: generic_oddball_slap2.bonsai", "f1f2")
        assert (code.url, code.commit_hash) == (URL, COMMIT)
        assert (code.core_dependency.name, code.core_dependency.version) == ("Bonsai", "2.9.0")
        assert content_of(path)["data_streams"][0]["code"][0]["parameters"]["PortName"] == "COM3"
    steps.session_enhancer_bonsai(script_path="other.bonsai")
    assert [one.name for one in read_by_the_schema(path).data_streams[0].code][1] == "Bonsai workflow: other.bonsai"


@pytest.mark.parametrize("session_type", ["Behavior", "OpenScope oddball"])
def test_the_workflow_in_the_small_file(folder: Path, session_type: str) -> None:
    steps = Steps(folder)
    steps.session_creator(session_format="minimal", session_type=session_type)
    steps.session_enhancer_bonsai()
    content = content_of(steps.session_enhancer_bonsai())
    assert content["session_type"] == ("Bonsai" if session_type == "Behavior" else session_type)
    software = content["data_streams"][0]["software"]
    assert [one["name"] for one in software] == ["pytest-openscope", "Bonsai workflow: generic_oddball_slap2.bonsai"]
    assert software[1]["version"] == COMMIT


def test_nothing_to_enhance(folder: Path) -> None:
    with pytest.raises(ModuleFailed, match="run session_creator before"):
        Steps(folder).session_enhancer_bonsai()
    (folder / "session.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModuleFailed, match="no JSON object"):
        Steps(folder).session_enhancer_bonsai()
    edit(folder, "processed_parameters.json", script_path="")
    with pytest.raises(ModuleFailed, match="nothing says which workflow ran"):
        Steps(folder).session_enhancer_bonsai()
    assert (folder / "session.json").read_text("utf-8") == "[]"


@schema
def test_an_acquisition_that_the_schema_does_not_accept_is_left_alone(folder: Path) -> None:
    path = folder / "acquisition.json"
    path.write_text('{"subject_id": 5}', encoding="utf-8")
    with pytest.raises(ModuleFailed, match=r"does not accept acquisition.json: "):
        Steps(folder).session_enhancer_bonsai()
    assert path.read_text("utf-8") == '{"subject_id": 5}'


# Steps


def test_steps_are_functions_with_words_and_checked_arguments(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    assert set(dir(steps)) == {*READY_MADE, *EXAMPLES}
    for name, step in READY_MADE.items():
        function = getattr(steps, name)
        assert (function.__name__, bool(function.__doc__)) == (name, True)
        assert step.model.__doc__
    assert steps.disk_space_check(required_free_gb=1e-6) > 0
    assert steps.mouse_weight_pre_prompt(mouse_weight_g=24.5) == 24.5
    with pytest.raises(
        TypeError, match=r"disk_space_check\(\) has no parameter 'required_free_g'; did you mean 'required_free_gb'"
    ):
        steps.disk_space_check(required_free_g=1)
    with pytest.raises(TypeError, match="known: timeout_s"):
        steps.wait_for_user_input(nothing_like_it=1)
    with pytest.raises(TypeError, match=r"session_archiver\(\) has no parameter 'network_dri'; did you mean 'network_dir'"):
        steps.session_archiver(network_dri="x")
    assert inspect.signature(steps.disk_space_check).parameters["reserve_gb"].default == 5.0
    with pytest.raises(ModuleFailed, match="required_free_gb is missing"):
        steps.disk_space_check()
    with pytest.raises(AttributeError, match="did you mean 'disk_space_check'"):
        steps.disk_space_chek()
    with pytest.raises(ModuleFailed, match="subject_id is missing"):
        steps.metadata_subject_fetch(metadata_service_base_url="http://127.0.0.1:9")
    assert "disk_space_check" in repr(steps)
    assert not hasattr(steps, "__wrapped__")
