"""Loading: precedence, sources, settings, older spellings, roots, pipelines, real parameter files."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.config import ConfigRequest, Configuration, Loaded, load
from pytest_openscope.records import session_name
from pytest_openscope.records.failures import ConfigurationError
from pytest_openscope.records.phases import OnFailure

REAL = sorted((Path(__file__).parent / "data" / "params").glob("*.json"))
RIG = """\
rig_id: 42
output_root_folder: out   # relative to the working directory
COM_port: COM3
DisplayDeviceIndex: 1
WindowStateIndex: 2
camera: {exposure_time: 0.033}
log_level: debug
github_issue: {repo: lab/rig, labels: [a]}
"""


class Lab:
    """A folder with a rig file and maybe a parameter file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rig(RIG)

    def rig(self, text: str, name: str = "rig.yaml") -> None:
        self.rig_file = self.folder / name
        self.rig_file.write_text(text, encoding="utf-8")

    def load(self, params: dict[str, Any] | Path | None = None, *overrides: str, **more: Any) -> Loaded:
        files: tuple[Path, ...] = ()
        if isinstance(params, dict):
            files = (self.folder / "day1.json",)
            files[0].write_text(json.dumps(params), encoding="utf-8")
        elif params is not None:
            files = (params,)
        more.setdefault("environ", {"HOME": str(self.folder)})
        given = (*more.pop("below", ()), *((None, text, "--param") for text in overrides), *more.pop("above", ()))
        return load(ConfigRequest(self.rig_file, params_files=files, given=given, cwd=self.folder, **more))

    def good(self, params: dict[str, Any] | Path | None = None, *overrides: str, **more: Any) -> Configuration:
        loaded = self.load(params, *overrides, **more)
        assert loaded.configuration is not None, "\n".join(map(str, loaded.mistakes))
        assert not loaded.mistakes
        return loaded.configuration


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_a_rig_alone(lab: Lab) -> None:
    loaded = lab.load()
    configuration = loaded.configuration
    assert configuration is not None
    assert loaded.missing == ("subject_id", "user_id")
    assert configuration.settings.rig_id == "42"
    assert configuration.settings.output_root == lab.folder / "out"
    assert configuration.settings.log_level == "DEBUG"
    assert configuration.settings.launcher == "base"
    assert configuration.parameter_file is None
    assert configuration.rig["COM_port"] == "COM3"
    assert configuration.rig["camera.exposure_time"] == 0.033
    assert configuration.rig["camera"]["exposure_time"] == 0.033
    assert configuration.rig.get("nothing", 5) == 5
    assert "COM_port" in configuration.rig
    assert sorted(configuration.rig) == ["COM_port", "DisplayDeviceIndex", "WindowStateIndex", "camera"]
    with pytest.raises(KeyError, match=r"rig\.yaml; it has: COM_port"):
        configuration.rig["nothing"]
    assert sorted(lab.folder.iterdir()) == [lab.rig_file]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rig.toml", 'rig_id = 42\nCOM_port = "COM3"\noutput_root_folder = "out"\n[camera]\nexposure_time = 0.033\n'),
        ("rig.json", '{"rig_id": 42, "COM_port": "COM3", "output_root_folder": "out", "camera": {"exposure_time": 0.033}}'),
        ("rig.yml", "rig_id: 42\noutput_root_folder: out\nvalues: {COM_port: COM3, camera: {exposure_time: 0.033}}\n"),
        (
            "rig",
            "rig_id: 42\nparameters: {output_root_folder: out}\nCOM_port: COM3\nvalues: {camera: {exposure_time: 0.033}}\n",
        ),
    ],
)
def test_the_same_rig_in_every_language(lab: Lab, name: str, text: str) -> None:
    lab.rig(text, name)
    configuration = lab.good({"a": "{rig_param:COM_port} {rig_param:camera.exposure_time} {rig_param:rig_id}"})
    assert configuration.rig.rig_id == "42"
    assert configuration.expanded("s", lab.folder).parameters["a"] == "COM3 0.033 42"
    assert configuration.settings.output_root == lab.folder / "out"


def test_values_may_have_any_name(lab: Lab) -> None:
    lab.rig("output_root_folder: out\nvalues: {supject_id: x, launcher: mine, log_levl: 3, devices: 5}\n")
    configuration = lab.good()
    assert configuration.rig["supject_id"] == "x"
    assert configuration.rig["devices"] == 5
    assert configuration.settings.launcher == "base"
    assert configuration.parameters["supject_id"] == "x"


def test_precedence(lab: Lab) -> None:
    configuration = lab.good(
        {"log_level": "ERROR", "subject_id": "file", "user_id": "file", "script_parameters": {"a": 1, "b": 1, "c": 1}, "x": 1},
        "script_parameters.b=2",
        "subject_id=param",
        below=[("subject_id", "ini", "pytest.ini"), ("user_id", "env", "environment"), ("ask_notes", False, "environment")],
        above=[("subject_id", "007", "--subject-id")],
    )
    settings = configuration.settings
    assert (settings.subject_id, settings.user_id, settings.log_level) == ("007", "env", "ERROR")
    assert settings.ask_notes is False
    assert settings.script_parameters == {"a": 1, "b": 2, "c": 1}
    sources = configuration.sources
    assert sources["subject_id"] == "--subject-id"
    assert sources["user_id"] == "environment"
    assert sources["log_level"] == "day1.json"
    assert sources["script_parameters.b"] == "--param"
    assert sources["script_parameters.a"] == "day1.json"
    assert sources["COM_port"] == "rig.yaml"
    answered = configuration.with_answers({"user_id": "me "})
    assert answered.settings.user_id == "me"
    assert answered.sources["user_id"] == "the operator"
    assert configuration.settings.user_id == "env"


def test_ini_parameters_rank_below_ini_keys_and_environment(lab: Lab) -> None:
    ini = "openscope_param in pytest.ini"
    configuration = lab.good(
        {"subject_id": "file", "trials": 1, "frame": 1},
        "frame=3",
        below=[
            *((None, text, ini) for text in ("subject_id=ini", "user_id=ini", "trials=2", "frame=2")),
            ("subject_id", "env", "environment OPENSCOPE_SUBJECT_ID"),
        ],
    )
    assert [configuration.parameters[key] for key in ("subject_id", "user_id", "trials", "frame")] == ["env", "ini", 2, 3]
    assert configuration.sources["trials"] == ini
    assert configuration.sources["frame"] == "--param"


def test_mistakes_in_ini_parameters_name_the_ini_file(lab: Lab) -> None:
    loaded = lab.load({}, "=1", below=[(None, "log_level=LOUD", "openscope_param in pytest.ini")])
    assert {mistake.where for mistake in loaded.mistakes} == {"openscope_param in pytest.ini", "--param"}


def test_rig_and_parameters_merge_deep(lab: Lab) -> None:
    configuration = lab.good({"github_issue": {"enabled": True, "labels": ["b"]}, "camera": {"gain": 2}})
    report = configuration.settings.github_issue
    assert report is not None
    assert (report.enabled, report.repo, report.labels) == (True, "lab/rig", ("b",))
    assert configuration.parameters["camera"] == {"exposure_time": 0.033, "gain": 2}
    assert configuration.sources["github_issue.repo"] == "rig.yaml"
    assert configuration.sources["github_issue.enabled"] == "day1.json"


def test_older_spellings(lab: Lab) -> None:
    lab.rig("output_root_folder: out\ngithub_issue_repo: lab/rig\ngithub_issue_labels: auto\n")
    configuration = lab.good(
        {"github_issue_on_error": True, "github_issue": {"max_output_lines": 5}, "session_sync_mode": "none"}
    )
    report = configuration.settings.github_issue
    assert report is not None
    assert report.as_json()["labels"] == ["auto"]
    assert (report.enabled, report.repo, report.max_output_lines) == (True, "lab/rig", 5)
    assert configuration.settings.session_sync_role is None
    slave = {"session_sync_mode": "Slave", "session_sync_port": 47001, "session_sync_master_host": "10.0.0.1"}
    dry = lab.good(slave, dry_run=True)
    assert dry.settings.session_sync_role == "slave"


def test_report_wait_inside_or_outside_of_the_block(lab: Lab) -> None:
    assert lab.good().settings.report_wait_s == 5.0
    outside = lab.good({"report_wait_s": 2}).settings
    assert outside.github_issue is not None
    assert (outside.report_wait_s, outside.github_issue.report_wait_s) == (2.0, None)
    assert lab.good({"report_wait_s": 2, "github_issue": {"report_wait_s": 7}}).settings.report_wait_s == 7.0


@pytest.mark.parametrize("written", ["007", 7, "12e4", 1.5, " m1 "])
def test_ids_are_text(lab: Lab, written: Any) -> None:
    configuration = lab.good({"subject_id": written})
    assert configuration.settings.subject_id == str(written).strip()
    assert configuration.parameters["subject_id"] == str(written).strip()


def test_ids_keep_their_spelling_in_every_file(lab: Lab) -> None:
    assert lab.good(None, "subject_id=007").settings.subject_id == "007"
    path = lab.folder / "p.json"
    path.write_text('{"subject_id": 1.10}', encoding="utf-8")
    assert lab.good(path).settings.subject_id == "1.10"
    lab.rig(RIG + "subject_id: 12e4\n")
    assert lab.good().settings.subject_id == "12e4"


def test_durations_and_whole_floats(lab: Lab) -> None:
    settings = lab.good({"acquisition_timeout_s": "10m", "session_timeout": "2h", "resource_log_interval": 2}).settings
    assert (settings.acquisition_timeout_s, settings.session_timeout, settings.resource_log_interval) == (600.0, 7200.0, 2.0)


def test_null_means_not_given(lab: Lab) -> None:
    configuration = lab.good({"repository_url": None, "log_level": None, "launcher": None, "script_parameters": None})
    assert (configuration.settings.log_level, configuration.settings.launcher) == ("INFO", "base")
    assert configuration.settings.script_parameters == {}


def test_typed_values_from_placeholders(lab: Lab) -> None:
    lab.rig(RIG + "values: {sync_port: 5000, echo: true, who: '{user_id}'}\n")
    settings = lab.good(
        {
            "session_sync_port": "{rig_param:sync_port}",
            "acquisition_echo": "{rig_param:echo}",
            "low_disk_gb": "$GB",
            "subject_id": "{rig_param:who}-x",
            "user_id": "bob",
        },
        environ={"GB": "2.5"},
    ).settings
    assert (settings.session_sync_port, settings.acquisition_echo, settings.low_disk_gb) == (5000, True, 2.5)
    assert settings.subject_id == "bob-x"


def test_a_parameter_overrides_what_rig_param_finds(lab: Lab) -> None:
    configuration = lab.good({"script_parameters": {"Port": "{rig_param:COM_port}"}}, "COM_port=COM9")
    assert configuration.expanded("s", lab.folder).parameters["script_parameters"] == {"Port": "COM9"}


def test_devices_can_be_overridden(lab: Lab) -> None:
    lab.rig(RIG + "devices: {laser: {driver: serial, port: '{COM_port}'}}\n")
    configuration = lab.good(None, "devices.laser.baud=9600")
    assert configuration.rig.devices["laser"] == {"driver": "serial", "port": "{COM_port}", "baud": 9600}
    expanded = configuration.expanded("s", lab.folder / "s")
    assert expanded.rig.devices["laser"]["port"] == "COM3"
    assert "devices" not in configuration.parameters


def test_expanded(lab: Lab) -> None:
    configuration = lab.good(
        {
            "subject_id": "m1",
            "script_path": "{output_session_folder}\\run.py",
            "pre_acquisition_pipeline": [{"module_path": "a", "module_parameters": {"file": "{session_folder}\\x"}}],
            "post_acquisition_pipeline": ["b"],
        }
    )
    folder = lab.folder / "out" / "S"
    expanded = configuration.expanded("S", folder)
    assert expanded.settings.script_path == str(folder / "run.py")
    assert expanded.settings.session_uuid == "S"
    assert expanded.pre_pipeline[0].module_parameters == {"file": str(folder / "x")}
    assert expanded.post_pipeline[0].name == "b"
    assert configuration.parameters["script_path"] == "{output_session_folder}\\run.py"
    json.dumps(expanded.parameters)
    json.dumps(configuration.parameters)


def test_pipeline_entries(lab: Lab) -> None:
    entries: list[Any] = [
        "disk_space_check",
        {
            "module_path": "disk_space_check",
            "on_failure": "abort",
            "module_parameters": {"required_free_gb": 1},
            "timeout_s": "1m",
        },
        {"module_type": "script_module", "module_path": "code\\make csv.py", "function": "f", "function_args": {"seed": 1}},
        {
            "module_type": "script_module",
            "module_path": "x/make csv.py",
            "module_parameters": {"function": "g", "function_args": {"a": 1}},
        },
        {
            "type": "repo_module",
            "repo_relative_path": "lib/old.py",
            "function": "h",
            "kwargs": {"k": 1},
            "failure_policy": "prompt",
        },
        {"module_path": "b", "fail_policy": "Abort"},
        {"module_path": "c", "fail_action": "continue", "abort_on_fail": True},
        {"module_path": "d", "on_failure": None, "abort_on_fail": False, "name": "the last one", "lab_note": 1},
    ]
    configuration = lab.good({"pre_acquisition_pipeline": entries, "post_acquisition_pipeline": ["disk_space_check"]})
    pre = configuration.pre_pipeline
    assert [entry.name for entry in pre] == [
        "disk_space_check",
        "disk_space_check[2]",
        "make csv",
        "make csv[2]",
        "old",
        "b",
        "c",
        "the last one",
    ]
    assert [entry.on_failure for entry in pre] == [
        OnFailure.CONTINUE,
        OnFailure.ABORT,
        OnFailure.CONTINUE,
        OnFailure.CONTINUE,
        OnFailure.PROMPT,
        OnFailure.ABORT,
        OnFailure.ABORT,
        OnFailure.CONTINUE,
    ]
    assert [(entry.module_type, entry.function, entry.function_args) for entry in pre[2:5]] == [
        ("script_module", "f", {"seed": 1}),
        ("script_module", "g", {"a": 1}),
        ("script_module", "h", {"k": 1}),
    ]
    assert (pre[1].timeout_s, pre[1].module_parameters) == (60.0, {"required_free_gb": 1})
    assert pre[4].module_path == "lib/old.py"
    assert pre[1].where == "day1.json: pre_acquisition_pipeline[1]"
    assert configuration.post_pipeline[0].name == "disk_space_check"


def test_overridden_entries_say_so(lab: Lab) -> None:
    configuration = lab.good(
        {"pre_acquisition_pipeline": ["disk_space_check"]}, "pre_acquisition_pipeline.0.module_parameters.required_free_gb=1"
    )
    assert configuration.pre_pipeline[0].module_parameters == {"required_free_gb": 1}
    assert configuration.parameters["pre_acquisition_pipeline"][0]["module_path"] == "disk_space_check"


# --- where files go


def test_dry_runs_have_their_own_root(lab: Lab) -> None:
    assert lab.good(dry_run=True).settings.output_root == lab.folder / "out" / "dry_runs"
    lab.rig("rig_id: r\n")
    loaded = lab.load(dry_run=True)
    assert loaded.configuration is not None
    assert loaded.configuration.settings.output_root == lab.folder / "dry_runs"


@pytest.mark.skipif(os.name == "nt", reason="drive paths are good there")
def test_a_dry_run_on_a_foreign_root_goes_to_the_working_directory(lab: Lab) -> None:
    for root in ("C:/data", "\\\\server\\data", "rig.yaml/x"):
        loaded = lab.load({"output_root_folder": root}, dry_run=True)
        assert loaded.configuration is not None
        assert loaded.configuration.settings.output_root == lab.folder / "dry_runs"
        assert any("dry run goes to" in notice for notice in loaded.notices)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("./test_sessions", "test_sessions"), (".\\a\\b", "a/b"), ("~/x", "x"), ("{rig_param:where}/y", "w/y")],
)
def test_output_roots(lab: Lab, written: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(lab.folder))
    monkeypatch.setenv("USERPROFILE", str(lab.folder))
    lab.rig("values: {where: w}\n")
    assert lab.good({"output_root_folder": written}).settings.output_root == lab.folder / expected


def test_a_new_output_root_is_told_where_its_parent_is_new_too(lab: Lab) -> None:
    assert lab.load({"output_root_folder": "new"}).notices == ()
    for more in ({}, {"dry_run": True}):
        loaded = lab.load({"output_root_folder": "new/at/all"}, **more)
        assert loaded.notices == (f"created {lab.folder / 'new' / 'at' / 'all'} (new)",)
    assert lab.load({"output_root_folder": "new/at/all"}, validating=True).notices == ()
    (lab.folder / "new" / "at").mkdir(parents=True)
    assert lab.load({"output_root_folder": "new/at/all"}).notices == ()


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_only_a_missing_root_is_to_be_created(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    (mistake,) = lab.load({"output_root_folder": "new"}).mistakes
    assert mistake.problem == f"'new' cannot be used: {lab.folder} is not writable"
    assert mistake.remedy == "ask for the right to write there, or give another one with --output-root"


def test_an_output_root_made_of_an_answer(lab: Lab) -> None:
    configuration = lab.good({"output_root_folder": "out/{subject_id}"})
    assert configuration.with_answers({"subject_id": "m1"}).settings.output_root == lab.folder / "out" / "m1"
    (lab.folder / "out").mkdir()
    (lab.folder / "out" / "m2").write_text("a file")
    with pytest.raises(ConfigurationError, match="is a file"):
        configuration.with_answers({"subject_id": "m2"})


def test_state_directory(lab: Lab) -> None:
    home = {"HOME": str(lab.folder), "USERPROFILE": str(lab.folder), "LOCALAPPDATA": str(lab.folder / "local")}
    default = lab.good(environ=home).rig.state_directory
    assert default.name == "42"
    assert default.parent.name == "pytest-openscope"
    assert lab.folder in default.parents
    if sys.platform.startswith("linux"):
        assert default == lab.folder / ".local/state/pytest-openscope/42"
        xdg = lab.good(environ={**home, "XDG_STATE_HOME": "/state"}).rig.state_directory
        assert xdg == Path("/state/pytest-openscope/42")
    lab.rig(RIG + "state_directory: $HERE/{rig_id}\n")
    assert lab.good(environ={"HERE": str(lab.folder)}).rig.state_directory == lab.folder / "42"
    named = lab.good(environ={"OPENSCOPE_STATE_DIRECTORY": "st"})
    assert named.rig.state_directory == lab.folder / "st"
    assert not (lab.folder / "st").exists()


def test_the_host_names_the_rig(lab: Lab) -> None:
    lab.rig("output_root_folder: out\n")
    configuration = lab.good()
    assert configuration.rig.rig_id
    assert configuration.sources["rig_id"] == "the host's name"
    assert configuration.expanded("s", lab.folder).parameters["rig_id"] == configuration.rig.rig_id


# --- secrets


def test_secrets_are_found_everywhere(lab: Lab) -> None:
    lab.rig(RIG + "devices: {cam: {driver: a, params: {password: in-a-device}}}\nvalues: {api_key: in-values}\n")
    configuration = lab.good(
        {"smtp": {"password": "$MAIL"}, "url": "https://u:in-a-url@h/"},
        "service_token=from-param",
        environ={"MAIL": "from-environment", "GITHUB_ISSUE_TOKEN": "the-report-token"},
    )
    assert configuration.secrets == {
        "in-a-device",
        "in-values",
        "from-environment",
        "in-a-url",
        "from-param",
        "the-report-token",
    }
    assert "from-" not in repr(configuration)


def test_comments_go_nowhere(lab: Lab) -> None:
    lab.rig(RIG + "# the animal room's code is 4711-secret\n")
    assert "4711-secret" not in repr(lab.good())


# --- real files


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_parameter_files_in_a_dry_run(lab: Lab, path: Path) -> None:
    loaded = lab.load(path, dry_run=True, above=[("subject_id", "m1", "--subject-id"), ("user_id", "u", "--user-id")])
    assert loaded.mistakes == ()
    configuration = loaded.configuration
    assert configuration is not None
    assert loaded.missing == ()
    written = json.loads(path.read_text(encoding="utf-8"))
    assert len(configuration.pre_pipeline) == len(written.get("pre_acquisition_pipeline", []))
    assert len(configuration.post_pipeline) == len(written.get("post_acquisition_pipeline", []))
    folder = lab.folder / "dry_runs" / "S"
    text = json.dumps(configuration.expanded("S", folder).parameters)
    for placeholder in ("{output_session_folder}", "{subject_id}", "{session_uuid}", "{rig_param"):
        assert placeholder not in text
    if os.name != "nt":
        assert f"{folder}\\" not in text.replace("\\\\", "\\")
    if "\\\\\\\\allen" in path.read_text(encoding="utf-8"):
        assert "\\\\\\\\allen\\\\aind" in text
    real = lab.load(path, above=[("output_root_folder", "out", "--output-root")])
    assert real.mistakes == ()


def test_the_real_rig_values_arrive(lab: Lab) -> None:
    path = next(path for path in REAL if path.stem == "predictive_processing_test")
    expanded = lab.good(path, dry_run=True, above=[("subject_id", 7, "x")]).expanded("S", lab.folder / "S").parameters
    assert expanded["script_parameters"] == {
        "stimulus_table_path": str(lab.folder / "S" / "predictive_processing_session.csv"),
        "PortName": "COM3",
        "Subject": "7",
        "DisplayDeviceIndex": "1",
        "WindowStateIndex": "2",
        "stimulus_table_duration": "00:01:00",
    }


@pytest.mark.parametrize("specifier", [">=0.2.7", "==0.2.57", "~=0.2.7", ">=0.2,<0.3", "==0.2.*", "", "!=0.2.8", ">0.2"])
def test_launcher_versions(lab: Lab, specifier: str) -> None:
    assert lab.good({"launcher_version": specifier}).parameters["launcher_version"] == specifier


@pytest.mark.parametrize("specifier", ["<0.2.57", "==0.2.7", ">=0.3", ">=1,<0.2"])
def test_other_launcher_versions(lab: Lab, specifier: str) -> None:
    assert "excludes 0.2.57" in str(lab.load({"launcher_version": specifier}).mistakes[0])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hardware: [{name: laser, driver: 'lab:Laser'}]\n", ["hardware: looks like devices"]),
        (
            "device_laser: {driver: 'lab:Laser'}\ndevice_cam: {class: 'lab:Cam'}\n",
            ["device_laser, device_cam: look like devices"],
        ),
        ("laser: {_id: laser, device_class: ophyd.EpicsMotor, args: ['{{prefix}}'], active: true}\n", ["laser: looks like"]),
        (
            "values: {RIG_NAME: scope3}\n",
            ["RIG_NAME: not used as the rig's name; that is rig_id, 'r' -> write 'rig_id:"],
        ),
        ("RIG_NAME: r\ncamera: {exposure: 3}\n", []),
        ("device_laser: {driver: 'lab:Laser'}\ndevices: {cam: {driver: 'lab:Cam'}}\n", []),
    ],
)
def test_what_looks_like_a_device_or_an_id_and_is_none_is_told_once(tmp_path: Path, text: str, told: list[str]) -> None:
    (tmp_path / "rig.yaml").write_text(f"rig_id: r\noutput_root_folder: out\n{text}", encoding="utf-8")
    loaded = load(ConfigRequest(rig_config=tmp_path / "rig.yaml", cwd=tmp_path, environ={"HOME": str(tmp_path)}))
    notices = [notice for notice in loaded.notices if "not used" in notice or "like devices" in notice]
    assert len(notices) == len(told), loaded
    for words, notice in zip(told, notices, strict=True):
        assert words in notice


def test_numbers_that_are_none_are_told_with_all_other_mistakes(tmp_path: Path) -> None:
    text = "rig_id: r\noutput_root_folder: out\nvalues: {offset: .nan, deep: [1, {ceiling: -.inf}]}\nlog_levl: DEBUG\n"
    (tmp_path / "rig.yaml").write_text(text, encoding="utf-8")
    loaded = load(ConfigRequest(rig_config=tmp_path / "rig.yaml", cwd=tmp_path, environ={"HOME": str(tmp_path)}))
    assert [mistake.key for mistake in loaded.mistakes] == ["values.deep.1.ceiling", "values.offset", "log_levl"]


@pytest.mark.parametrize("key", ["output_root_folder", "centralized_log_directory", "state_directory", "session_log"])
@pytest.mark.parametrize("char", ["\n", "\t", "\r", "\x07", "\x1b"])
def test_a_path_with_a_control_character_is_a_mistake(tmp_path: Path, key: str, char: str) -> None:
    paths = {"output_root_folder": "out", key: f"D:{char}ew/{{subject_id}}"}
    (tmp_path / "rig.yaml").write_text(json.dumps({"rig_id": "r", **paths}), encoding="utf-8")
    for dry_run in (False, True):
        loaded = load(
            ConfigRequest(rig_config=tmp_path / "rig.yaml", cwd=tmp_path, environ={"HOME": str(tmp_path)}, dry_run=dry_run)
        )
        (mistake,) = loaded.mistakes
        assert mistake.key == key
        assert "holds a control character" in mistake.problem
        assert mistake.remedy == r"write `\\` or `/` between folders"
    assert [path.name for path in tmp_path.iterdir()] == ["rig.yaml"]


@pytest.mark.skipif(sys.platform == "win32", reason="names are counted in bytes")
@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("subject_id", "m" * 300, "gives a folder name of 320 bytes; file systems take 255"),
        ("subject_id", "ä" * 130, "gives a folder name of 280 bytes; file systems take 255"),
        ("subject_id", "m\ud800", "holds characters that file names cannot have here"),
        ("session_uuid", "s" * 256, "gives a folder name of 256 bytes; file systems take 255"),
        ("session_log", f"logs/{'l' * 256}.log", "gives a folder name of 260 bytes; file systems take 255"),
        ("rig_id", "r" * 256, "gives a folder name of 256 bytes; file systems take 255"),
    ],
)
def test_an_input_that_cannot_name_a_folder_is_the_one_at_fault(tmp_path: Path, key: str, value: str, problem: str) -> None:
    content = {"rig_id": "r", "output_root_folder": "out", key: value}
    (tmp_path / "rig.json").write_text(json.dumps(content), encoding="utf-8")
    loaded = load(ConfigRequest(rig_config=tmp_path / "rig.json", cwd=tmp_path, environ={"HOME": str(tmp_path)}))
    (mistake,) = loaded.mistakes
    assert (mistake.key, problem in mistake.problem) == (key, True), mistake
    assert len(str(mistake)) < 250


def test_the_longest_subject_that_fits_is_taken(tmp_path: Path) -> None:
    content = {"rig_id": "r", "output_root_folder": "out", "subject_id": "m" * 235}
    (tmp_path / "rig.json").write_text(json.dumps(content), encoding="utf-8")
    loaded = load(ConfigRequest(rig_config=tmp_path / "rig.json", cwd=tmp_path, environ={"HOME": str(tmp_path)}))
    assert not loaded.mistakes
    (tmp_path / session_name("m" * 235, datetime(2026, 1, 2))).mkdir()
