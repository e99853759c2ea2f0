"""The lab's own pydantic models of its rig's values and its experiment's parameters."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pytest_openscope.cli import main
from pytest_openscope.config import ConfigRequest, Loaded, load

MODELS = """
from typing import Literal
from pydantic import BaseModel, ConfigDict, Field, model_validator

class Camera(BaseModel):
    exposure_ms: float = Field(gt=0, le=100)
    trigger: Literal["software", "hardware"] = "hardware"

class Rig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    camera: Camera
    lick_spouts: int = 1
    serial_number: str = ""

class Parameters(BaseModel):
    block_minutes: float
    subject_id: str

class Fussy(BaseModel):
    @model_validator(mode="after")
    def check(self):
        raise RuntimeError("the model's own fault")

not_a_model = 5
"""


class Lab:
    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        (path / f"{name}.py").write_text(MODELS, encoding="utf-8")

    def load(self, rig: dict[str, Any], parameters: dict[str, Any] | None = None, **request: Any) -> Loaded:
        content = {"rig_id": "r", "output_root_folder": "out", **rig}
        (self.path / "rig.json").write_text(json.dumps(content), encoding="utf-8")
        if parameters is not None:
            (self.path / "day1.json").write_text(json.dumps({"subject_id": "m1", **parameters}), encoding="utf-8")
            request["params_files"] = (self.path / "day1.json",)
        environ = {"HOME": str(self.path)}
        return load(ConfigRequest(rig_config=self.path / "rig.json", cwd=self.path, environ=environ, **request))

    def mistakes(self, *arguments: Any, **request: Any) -> list[str]:
        loaded = self.load(*arguments, **request)
        assert loaded.configuration is None
        return [str(mistake) for mistake in loaded.mistakes]


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Each test has a module of its own name: imported modules stay.
    return Lab(tmp_path, "lab_" + "".join(char if char.isalnum() else "_" for char in request.node.name))


def test_values_are_the_labs_model(lab: Lab) -> None:
    loaded = lab.load({"rig_model": f"{lab.name}:Rig", "camera": {"exposure_ms": 33}, "lick_spouts": 2})
    assert loaded.configuration is not None, loaded.mistakes
    rig = loaded.configuration.rig
    assert (rig.values.camera.exposure_ms, rig.values.camera.trigger, rig.values.lick_spouts) == (33.0, "hardware", 2)
    assert rig["camera.exposure_ms"] == 33
    assert "not used" not in str(loaded.notices)


def test_without_a_model_values_are_those_of_a_mapping(lab: Lab) -> None:
    loaded = lab.load({"camera": "c"})
    assert loaded.configuration is not None
    assert list(loaded.configuration.rig.values()) == ["c"]


def test_placeholders_are_replaced_before_the_model_looks(lab: Lab) -> None:
    rig = {"rig_model": f"{lab.name}:Rig", "values": {"camera": {"exposure_ms": "{frame_ms}"}, "serial_number": "{rig_id}-7"}}
    loaded = lab.load(rig, {"frame_ms": 12.5})
    assert loaded.configuration is not None, loaded.mistakes
    assert loaded.configuration.rig.values.camera.exposure_ms == 12.5
    expanded = loaded.configuration.expanded("s1", lab.path / "s1")
    assert (expanded.rig.values.camera.exposure_ms, expanded.rig.values.serial_number) == (12.5, "r-7")


def test_all_mistakes_of_the_values_are_told_like_ours(lab: Lab) -> None:
    values = {"camera": {"exposure_ms": 500, "trigger": "hardwre"}, "lick_spots": 2, "serial_number": 7}
    assert lab.mistakes({"rig_model": f"{lab.name}:Rig", "values": values, "log_level": "LOUD"}) == [
        "rig.json: values.camera.exposure_ms: 500 is too large: at most 100 -> give a smaller one",
        "rig.json: values.camera.trigger: 'hardwre' is none of software, hardware -> did you mean hardware?",
        "rig.json: values.serial_number: text expected, not 7 -> put it in quotes",
        "rig.json: values.lick_spots: unknown key -> did you mean lick_spouts?",
        "rig.json: log_level: 'LOUD' is none of DEBUG, INFO, WARNING, ERROR, CRITICAL -> use one of them",
    ]


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("no_such_lab:Rig", "module 'no_such_lab' cannot be imported"),
        ("{name}:Rg", "has no 'Rg' -> did you mean Rig?"),
        ("{name}:not_a_model", "is no pydantic model"),
        ("{name}", "names no class"),
    ],
)
def test_a_model_that_is_none_is_one_clear_mistake(lab: Lab, reference: str, words: str) -> None:
    (message,) = lab.mistakes({"rig_model": reference.format(name=lab.name)})
    assert message.startswith("rig.json: rig_model: ")
    assert words in message


def test_a_model_that_fails_by_itself_is_told(lab: Lab) -> None:
    (message,) = lab.mistakes({"rig_model": f"{lab.name}:Fussy"})
    assert "values: the model fails: RuntimeError: the model's own fault" in message


def test_parameters_have_a_model_too(lab: Lab) -> None:
    loaded = lab.load({}, {"parameters_model": f"{lab.name}:Parameters", "block_minutes": 5})
    assert loaded.configuration is not None, loaded.mistakes
    own = loaded.configuration.expanded("s1", lab.path / "s1").own_parameters
    assert own is not None
    assert own.model_dump() == {"block_minutes": 5.0, "subject_id": "m1"}
    assert lab.mistakes({}, {"parameters_model": f"{lab.name}:Parameters", "block_minutes": "x"}) == [
        "day1.json: block_minutes: a number expected, not text 'x' -> write a number"
    ]
    assert lab.mistakes({}, {"parameters_model": f"{lab.name}:Parameters"}) == [
        "day1.json: block_minutes: is missing -> give it a value"
    ]


def test_the_schema_command_adds_the_labs_keys(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.load({"rig_model": f"{lab.name}:Rig"}, {"parameters_model": f"{lab.name}:Parameters"})
    assert main(["schema", "rig", str(lab.path / "rig.json")]) == 0
    schema = json.loads(capsys.readouterr().out)
    good = {"rig_id": "r", "values": {"camera": {"exposure_ms": 5}}}
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError, match="500"):
        jsonschema.validate({**good, "values": {"camera": {"exposure_ms": 500}}}, schema)
    assert main(["schema", "parameters", str(lab.path / "day1.json")]) == 0
    with pytest.raises(jsonschema.ValidationError, match="long"):
        jsonschema.validate({"block_minutes": "long"}, json.loads(capsys.readouterr().out))
    assert main(["schema", "rig", str(lab.path / "none.yaml")]) == 4
    assert "there is no such file" in capsys.readouterr().err


@pytest.mark.skipif(sys.version_info < (3, 11), reason="aind-behavior-services needs Python 3.11")
def test_a_rig_model_of_aind_behavior_services_works_as_it_is(lab: Lab) -> None:
    pytest.importorskip("aind_behavior_services")
    (lab.path / "aind_rig_of_ours.py").write_text(
        "from typing import Literal\n"
        "from aind_behavior_services.rig import Rig\n"
        "from aind_behavior_services.rig.cameras import CameraController, WebCamera\n"
        "class BehaviorRig(Rig):\n"
        "    version: Literal['1.0.0'] = '1.0.0'\n"
        "    cameras: CameraController[WebCamera]\n",
        encoding="utf-8",
    )
    camera = {"device_type": "WebCamera", "index": 1}
    values = {"computer_name": "pc7", "rig_name": "scope3", "data_directory": "D:/data", "version": "1.0.0"}
    rig = {
        "rig_model": "aind_rig_of_ours:BehaviorRig",
        "values": {**values, "cameras": {"frame_rate": 60, "cameras": {"face": camera}}},
    }
    loaded = lab.load(rig)
    assert loaded.configuration is not None, loaded.mistakes
    found = loaded.configuration.rig.values
    assert (found.cameras.frame_rate, found.cameras.cameras["face"].index, found.rig_name) == (60, 1, "scope3")
    camera["index"] = "one"
    assert lab.mistakes(rig) == [
        "rig.json: values.cameras.cameras.face.index: a whole number expected, not text 'one' -> write a whole number"
    ]
