# ruff: noqa: E501 - one broken configuration a line
"""Every broken configuration: one clear mistake, nothing created, no traceback, no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.config import ConfigRequest, load

GOOD_RIG = "rig_id: rig-1\noutput_root_folder: out\nCOM_port: COM3\ncamera: {exposure_time: 0.033}\n"
SECRET = "hunter2-the-secret"


def _params(**values: Any) -> str:
    return json.dumps({"subject_id": "m1", "user_id": "u1", **values})


def _entry(**values: Any) -> str:
    return _params(pre_acquisition_pipeline=[{"module_path": "disk_space_check", **values}])


#: name -> (what is broken: rig text/bytes, parameter text/bytes, further request fields), words in the message, key
BROKEN: dict[str, tuple[dict[str, Any], list[str], str]] = {
    # the files themselves
    "rig missing": ({"rig": None}, ["rig.yaml (named by --rig-config): there is no such file -> check the path"], ""),
    "rig is a directory": ({"rig": "DIRECTORY"}, ["rig.yaml", "is a directory"], ""),
    "rig is a pipe": ({"rig": "FIFO"}, ["rig.yaml", "no ordinary file"], ""),
    "rig is binary": ({"rig": b"\x7fELF\x00\x00\x01"}, ["rig.yaml", "NUL"], ""),
    "rig is no UTF-8": ({"rig": b"rig_id: caf\xe9\n"}, ["rig.yaml", "UTF-8", "line 1"], ""),
    "rig is broken UTF-16": ({"rig": b"\xff\xfea"}, ["rig.yaml", "UTF-16"], ""),
    "rig of 50 MB": ({"rig": "HUGE"}, ["rig.yaml", "too large", "50,000,000"], ""),
    "parameters missing": ({"params": None}, ["day1.json", "there is no such file"], ""),
    "parameters are a directory": ({"params": "DIRECTORY"}, ["day1.json", "is a directory"], ""),
    "json: two commas": ({"params": '{"a": 5,,}'}, ["no valid JSON", " -> "], ""),
    "json: no value": ({"params": '{"a": }'}, ["expecting value -> give a value"], ""),
    "free space as a word": ({"rig": GOOD_RIG + "requirements: {free_gb: lots}\n"}, ["a number expected, not text 'lots' -> write a number of GB"], "requirements.free_gb"),
    "output root is a list": ({"rig": "rig_id: r\noutput_root_folder: [a]\n"}, ["a path expected, not a list -> write one path"], "output_root_folder"),
    "parameters are empty": ({"params": ""}, ["day1.json", "is empty"], ""),
    "two parameter files": ({"more_params": ["other.json"]}, ["day1.json", "other.json", "one parameter file"], ""),
    # YAML
    "yaml: tab": ({"rig": "camera:\n\texposure: 1\n"}, ["rig.yaml", "line 2", "tab"], ""),
    "yaml: duplicate key": ({"rig": GOOD_RIG + "COM_port: COM4\n"}, ["line 5", "'COM_port' stands twice"], ""),
    "yaml: nested duplicate": ({"rig": GOOD_RIG + "x: {a: 1, a: 2}\n"}, ["line 5", "'a' stands twice"], ""),
    "yaml: cycle": ({"rig": "a: &a [*a]\n"}, ["line 1", "cycle"], ""),
    "yaml: deep nesting": ({"rig": "a: " + "[" * 100 + "]" * 100}, ["deeper than 64"], ""),
    "yaml: very deep nesting": ({"rig": "a: " + "[" * 50_000}, ["rig.yaml", "deeper than 64"], ""),
    "yaml: deep block nesting": ({"rig": "- " * 100_000}, ["deeper than 64"], ""),
    "yaml: two documents": ({"rig": "a: 1\n---\nb: 2\n"}, ["several documents"], ""),
    "yaml: python tag": ({"rig": "a: !!python/object/apply:os.getcwd []\n"}, ["line 1", "tag"], ""),
    "yaml: own tag": ({"rig": "a: !include other.yaml\n"}, ["tag"], ""),
    "yaml: number as key": ({"rig": "channels: {1: a}\n"}, ["the key 1 is no text", '"1"'], ""),
    "yaml: list as key": ({"rig": "? [a, b]\n: 1\n"}, ["a key is no text"], ""),
    "yaml: unclosed bracket": ({"rig": "a: [1, 2\nb: 3\n"}, ["rig.yaml", "no valid YAML"], ""),
    "yaml: stray colon": ({"rig": "a: b: c\n"}, ["line 1", "colon"], ""),
    "yaml: undefined alias": ({"rig": "a: *nobody\n"}, ["alias"], ""),
    "yaml: control character": ({"rig": "a: \x07\n"}, ["U+0007"], ""),
    "yaml: top level is a list": ({"rig": "- a\n- b\n"}, ["top level is a list"], ""),
    "yaml: top level is text": ({"rig": "hello\n"}, ["top level is text"], ""),
    "yaml: not a number": ({"rig": GOOD_RIG + "a: {b: .nan}\n"}, ["a.b", "no finite number"], "a.b"),
    "toml: syntax": ({"rig": "a = \n", "rig_name": "rig.toml"}, ["rig.toml", "no valid TOML", "line 1"], ""),
    "toml: duplicate": ({"rig": "a = 1\na = 2\n", "rig_name": "rig.toml"}, ["rig.toml", "no valid TOML"], ""),
    "rig of unknown language": ({"rig": "a=1", "rig_name": "rig.ini"}, [".ini", ".yaml"], ""),
    # JSON
    "json: duplicate key": ({"params": '{"a": 1,\n "b": {"c": 1,\n "c": 2}}'}, ["line 3", "'c' stands twice"], ""),
    "json: NaN": ({"params": '{"a": NaN}'}, ["day1.json: a: is no finite number"], "a"),
    "json: infinite": ({"params": '{"a": 1e999}'}, ["day1.json: a: is no finite number"], "a"),
    "json: comma at the end": ({"params": '{"a": 1,}'}, ["line 1", "comma"], ""),
    "json: comment": ({"params": '{\n// a note\n"a": 1}'}, ["line 2", "comment"], ""),
    "json: lone backslash": ({"params": '{"a": "C:\\data"}'}, ["backslash"], ""),
    "json: single quotes": ({"params": "{'a': 1}"}, ["single quotes"], ""),
    "json: a list": ({"params": "[1, 2]"}, ["top level is a list"], ""),
    "json: two objects": ({"params": '{"a": 1} {"b": 2}'}, ["day1.json", "follows after the end"], ""),
    "json: deep nesting": ({"params": '{"a": ' + "[" * 100_000}, ["deeper than 64"], ""),
    "json: cut off": ({"params": '{"a": "b'}, ["day1.json", "no valid JSON"], ""),
    "json: huge integer": ({"params": '{"a": ' + "9" * 5000 + "}"}, ["too many digits"], ""),
    # keys of the rig
    "rig: misspelt key": ({"rig": GOOD_RIG.replace("output_root_folder", "output_rot_folder")}, ["did you mean output_root_folder", "values:"], "output_rot_folder"),
    "rig: key in capitals": ({"rig": GOOD_RIG + "Log_Level: INFO\n"}, ["did you mean log_level"], "Log_Level"),
    "rig: pipeline": ({"rig": GOOD_RIG + "pre_acquisition_pipeline: [a]\n"}, ["rig.yaml", "parameter file"], "pre_acquisition_pipeline"),
    "rig: pipeline as default": ({"rig": GOOD_RIG + "parameters: {post_acquisition_pipeline: []}\n"}, ["pipelines"], "parameters.post_acquisition_pipeline"),
    "rig: misspelt default": ({"rig": GOOD_RIG + "parameters: {log_levl: INFO}\n"}, ["did you mean log_level"], "parameters.log_levl"),
    "rig: key in two places": ({"rig": GOOD_RIG + "values: {COM_port: COM5}\n"}, ["top level too"], "values.COM_port"),
    "rig: values is a list": ({"rig": GOOD_RIG + "values: [1]\n"}, ["a mapping expected, not a list"], "values"),
    "rig: devices is text": ({"rig": GOOD_RIG + "devices: camera\n"}, ["a mapping expected", "'camera'"], "devices"),
    "rig: device without driver": ({"rig": GOOD_RIG + "devices: {cam: {params: {}}}\n"}, ["is missing"], "devices.cam.driver"),
    "rig: device is text": ({"rig": GOOD_RIG + "devices: {cam: camera}\n"}, ["a mapping expected, not text"], "devices.cam"),
    "rig: misspelt device key": ({"rig": GOOD_RIG + "devices: {cam: {drivr: a}}\n"}, ["did you mean driver"], "devices.cam.drivr"),
    "rig: device opened at the wrong time": ({"rig": GOOD_RIG + "devices: {cam: {driver: a, open: eagr}}\n"}, ["did you mean eager"], "devices.cam.open"),
    "rig: device timeout": ({"rig": GOOD_RIG + "devices: {cam: {driver: a, open_timeout_s: -1}}\n"}, ["too small"], "devices.cam.open_timeout_s"),
    "rig: device name": ({"rig": GOOD_RIG + "devices: {a.b: {driver: a}}\n"}, ["name"], "devices.a.b"),
    "rig: unknown requirement": ({"rig": GOOD_RIG + "requirements: {free_space: 3}\n"}, ["unknown key", "free_gb"], "requirements.free_space"),
    "rig: requirement type": ({"rig": GOOD_RIG + "requirements: {free_gb: lots}\n"}, ["a number expected", "'lots'"], "requirements.free_gb"),
    "rig: readiness choice": ({"rig": GOOD_RIG + "readiness: {on_stale: refuze}\n"}, ["did you mean refuse"], "readiness.on_stale"),
    "rig: readiness age": ({"rig": GOOD_RIG + "readiness: {max_age: soon}\n"}, ["24h"], "readiness.max_age"),
    "rig: empty id": ({"rig": GOOD_RIG.replace("rig-1", "''")}, ["is empty"], "rig_id"),
    # keys and types of parameters
    "misspelt parameter": ({"params": _params(supject="x", outptu_root_folder="x")}, ["did you mean output_root_folder"], "outptu_root_folder"),
    "misspelt subject": ({"params": _params(supject_id="x")}, ["did you mean subject_id"], "supject_id"),
    "rig block in parameters": ({"params": _params(devices={})}, ["belongs to the rig"], "devices"),
    "number in quotes": ({"params": _params(resource_log_interval={"a": 1})}, ["number of seconds"], "resource_log_interval"),
    "number out of limits": ({"params": _params(session_sync_port=70000)}, ["too large: at most 65535"], "session_sync_port"),
    "port in quotes": ({"params": _params(session_sync_port="5000")}, ["remove the quotes"], "session_sync_port"),
    "flag as text": ({"params": _params(ask_notes="no")}, ["true or false expected", "write false"], "ask_notes"),
    "flag as number": ({"params": _params(acquisition_echo=1)}, ["true or false expected"], "acquisition_echo"),
    "subject is a list": ({"params": _params(subject_id=["a"])}, ["a name or number expected, not a list"], "subject_id"),
    "subject is true": ({"params": _params(subject_id=True)}, ["a name or number expected, not true"], "subject_id"),
    "path is a number": ({"params": _params(script_path=5)}, ["a path expected, not 5"], "script_path"),
    "mapping is a list": ({"params": _params(script_parameters=[1])}, ["a mapping expected"], "script_parameters"),
    "unknown level": ({"params": _params(log_level="INFOO")}, ["did you mean INFO"], "log_level"),
    "level of a logger": ({"params": _params(log_levels={"a.b": "LOUD"})}, ["LOUD"], "log_levels.a.b"),
    "unknown launcher": ({"params": _params(launcher="pyhton")}, ["did you mean python"], "launcher"),
    "several that are no list": ({"params": _params(acquisitions={"launcher": "python"})}, ["a list expected"], "acquisitions"),
    "one of several that is no object": ({"params": _params(acquisitions=["camera"])}, ["an object expected"], "acquisitions.0"),
    "one of several without a launcher": ({"params": _params(launcher=None, acquisitions=[{"command": "x"}])}, ["is missing", "say what runs it"], "acquisitions.0.launcher"),
    "one of several with a typo": ({"params": _params(acquisitions=[{"launcher": "command", "comand": "x"}])}, ["did you mean command?"], "acquisitions.0.comand"),
    "one of several with a wrong value": ({"params": _params(acquisitions=[{"launcher": "python", "bonsai_max_retries": "few"}])}, ["a whole number"], "acquisitions.0.bonsai_max_retries"),
    "one of several with a key of the session": ({"params": _params(acquisitions=[{"launcher": "python", "subject_id": "m"}])}, ["no setting of one acquisition", "above the list"], "acquisitions.0.subject_id"),
    "two of one name": ({"params": _params(acquisitions=[{"launcher": "python", "name": "a"}, {"launcher": "python", "name": "a"}])}, ["name of two acquisitions"], "acquisitions.1.name"),
    "all in the background": ({"params": _params(acquisitions=[{"launcher": "python", "background": True}])}, ["none says when they end"], "acquisitions"),
    "an order of nobody": ({"params": _params(acquisitions=[{"launcher": "python", "name": "camera"}], acquisition_stop_order=["camera", "camra"])}, ["none of the acquisitions is called 'camra'"], "acquisition_stop_order"),
    "slave without port": ({"params": _params(session_sync_mode="slave", session_sync_master_host="10.0.0.1")}, ["is missing; a slave needs it"], "session_sync_port"),
    "slave without master": ({"params": _params(session_sync_role="slave", session_sync_port=47001)}, ["give the master's address"], "session_sync_master_host"),
    "master without port": ({"params": _params(session_sync_role="master")}, ["is missing; a master needs it", "47001"], "session_sync_port"),
    "a key that nobody has": ({"params": _params(session_sync_role="master", session_sync_port=47001, session_sync_key_param="day")}, ["'day' names no parameter that has a value"], "session_sync_key_param"),
    "no role": ({"params": _params(session_sync_role="boss")}, ["master"], "session_sync_role"),
    "no time at all": ({"params": _params(session_sync_timeout_sec=0)}, ["0.1"], "session_sync_timeout_sec"),
    "python without script": ({"params": _params(launcher="python")}, ["launcher python needs it"], "script_path"),
    "command without command": ({"params": _params(launcher="command")}, ["is missing"], "command"),
    "newer launcher wanted": ({"params": _params(launcher_version=">=9")}, ["excludes 0.2.57"], "launcher_version"),
    "version nonsense": ({"params": _params(launcher_version="newest")}, ["no version specifier"], "launcher_version"),
    "session name with slash": ({"params": _params(session_uuid="a/b")}, ["no folder name", r'out < > : " / \ | ? * and'], "session_uuid"),
    "session log outside": ({"params": _params(session_log="../x.log")}, ["inside the session folder"], "session_log"),
    "mirror on a drive": ({"params": _params(centralized_log_directory="Z:/logs")}, ["drive path"], "centralized_log_directory"),
    "mirror in the working directory": ({"rig": GOOD_RIG + "centralized_log_directory: shre\n"}, [r"rig.yaml: centralized_log_directory: 'shre' is a relative path -> give a full path (\\server\logs or /mnt/logs)"], "centralized_log_directory"),
    "mirror without drive": ({"params": _params(centralized_log_directory="\\logs")}, ["is a relative path"], "centralized_log_directory"),
    "mirror in a drive's folder": ({"params": _params(centralized_log_directory="D:logs")}, ["is a relative path"], "centralized_log_directory"),
    # github_issue
    "report to nowhere": ({"params": _params(github_issue={"enabled": True})}, ["is missing"], "github_issue.repo"),
    "report to half a name": ({"params": _params(github_issue={"repo": "just-a-name"})}, ["owner/name"], "github_issue.repo"),
    "misspelt report option": ({"params": _params(github_issue={"lables": ["a"]})}, ["did you mean labels"], "github_issue.lables"),
    "report on what": ({"params": _params(github_issue={"report_on": ["acquisition"]})}, ["none of exception"], "github_issue.report_on"),
    "report as text": ({"params": _params(github_issue="yes")}, ["a mapping expected"], "github_issue"),
    "flat report option": ({"params": _params(github_issue_max_output_lines="many")}, ["a whole number"], "github_issue.max_output_lines"),
    "token instead of its variable": ({"params": _params(github_issue={"token_env": "ghp-not a name"})}, ["variable's name, not the token"], "github_issue.token_env"),
    "token itself": ({"params": _params(github_issue={"token_env": "ghp_0123456789abcdef0123"})}, ["not the token"], "github_issue.token_env"),
    "report to no owner": ({"params": _params(github_issue={"repo": "/rigs"})}, ["owner/name"], "github_issue.repo"),
    "report by file transfer": ({"params": _params(github_issue={"api_base_url": "ftp://x"})}, ["no address"], "github_issue.api_base_url"),
    "report with password": ({"params": _params(github_issue={"api_base_url": f"https://a:{SECRET}@x"})}, ["no address"], "github_issue.api_base_url"),
    "two labels in one": ({"params": _params(github_issue={"labels": ["a,b"]})}, ["no comma"], "github_issue.labels"),
    "label without name": ({"params": _params(github_issue={"labels": [" "]})}, ["1 to 50"], "github_issue.labels"),
    # pipelines
    "pipeline is text": ({"params": _params(pre_acquisition_pipeline="a")}, ["a list expected"], "pre_acquisition_pipeline"),
    "entry is a number": ({"params": _params(post_acquisition_pipeline=["a", 5])}, ["not a whole number"], "post_acquisition_pipeline[1]"),
    "entry without path": ({"params": _params(pre_acquisition_pipeline=[{"module_type": "launcher_module"}])}, ["is missing"], "pre_acquisition_pipeline[0].module_path"),
    "misspelt entry key": ({"params": _entry(on_failur="abort")}, ["did you mean on_failure"], "pre_acquisition_pipeline[0].on_failur"),
    "unknown policy": ({"params": _entry(on_failure="stop")}, ["continue, abort, prompt"], "pre_acquisition_pipeline[0].on_failure"),
    "unknown module type": ({"params": _entry(module_type="scrip_module")}, ["did you mean script_module"], "pre_acquisition_pipeline[0].module_type"),
    "module parameters are a list": ({"params": _entry(module_parameters=[1])}, ["a mapping expected"], "pre_acquisition_pipeline[0].module_parameters"),
    "step timeout": ({"params": _entry(timeout_s=0)}, ["too small"], "pre_acquisition_pipeline[0].timeout_s"),
    "step name": ({"params": _params(pre_acquisition_pipeline=["a::b"])}, ["::"], "pre_acquisition_pipeline[0]"),
    # placeholders
    "unknown rig_param": ({"params": _params(script_parameters={"Port": "{rig_param:COM_prot}"})}, ["did you mean COM_port"], "script_parameters.Port"),
    "unknown rig_param, deep": ({"params": _entry(module_parameters={"a": ["{rig_param:nothing}"]})}, ["names no key", "rig.yaml"], "pre_acquisition_pipeline.0.module_parameters.a.0"),
    "rig_param is a mapping": ({"params": _params(a="{rig_param:camera}")}, ["no single value"], "a"),
    "rig_param in a device": ({"rig": GOOD_RIG + "devices: {cam: {driver: a, params: {p: '{rig_param:x1}'}}}\n"}, ["names no key"], "devices.cam.params.p"),
    "circle": ({"params": _params(a="{b}", b="x {c}", c="{a}")}, ["a -> b -> c -> a"], "a"),
    "circle of one": ({"params": _params(a="{a}/x")}, ["a -> a"], "a"),
    "number from a placeholder": ({"params": _params(session_sync_port="{rig_param:COM_port}")}, ["whole number"], "session_sync_port"),
    # where to write
    "no output root": ({"rig": "rig_id: r\n"}, ["no output root", "--output-root"], "output_root_folder"),
    "output root is a file": ({"params": _params(output_root_folder="day1.json")}, ["day1.json is a file, not a folder -> give another one with --output-root"], "output_root_folder"),
    "output root in a file": ({"params": _params(output_root_folder="day1.json/x/y")}, ["is a file"], "output_root_folder"),
    "output root needs the session": ({"params": _params(output_root_folder="{session_uuid}/x")}, ["cannot depend"], "output_root_folder"),
    "output root with NUL": ({"params": _params(output_root_folder="a\0b")}, ["NUL"], "output_root_folder"),
    "output root on a drive": ({"params": _params(output_root_folder="C:/data")}, ["Windows drive path"], "output_root_folder"),
    "output root on a share": ({"params": _params(output_root_folder="\\\\server\\data")}, ["Windows share"], "output_root_folder"),
    "state directory on a drive": ({"rig": GOOD_RIG + "state_directory: D:/state\n"}, ["Windows drive path"], "state_directory"),
    # --param
    "param without value": ({"overrides": ["log_level"]}, ["--param: 'log_level' is no KEY=VALUE -> "], ""),
    "param without key": ({"overrides": ["=3"]}, ["--param: '=3' is no KEY=VALUE -> "], ""),
    "param with an empty part": ({"overrides": ["a..b=3"]}, ["empty"], "a..b"),
    "param is no YAML": ({"overrides": ["a=[1, 2"]}, ["--param: a: the value is no valid YAML: "], "a"),
    "param misspelt": ({"overrides": ["log_levle=INFO"]}, ["did you mean log_level"], "log_levle"),
    "param beyond a list": ({"params": _params(script_arguments=["a"]), "overrides": ["script_arguments.3=b"]}, ["has 1 items"], "script_arguments.3"),
    "param into a list by name": ({"params": _params(script_arguments=["a"]), "overrides": ["script_arguments.x=b"]}, ["no index"], "script_arguments.x"),
    "param through a number": ({"params": _params(protocol_id=5), "overrides": ["protocol_id.x=b"]}, ["has no parts"], "protocol_id.x"),
    "param of the wrong type": ({"overrides": ["ask_notes=maybe"]}, ["--param", "true or false"], "ask_notes"),
    # secrets and comments
    "secret in YAML": ({"rig": f"password: {SECRET}\n# {SECRET}\n\tx: 1\n"}, ["tab"], ""),
    "secret in JSON": ({"params": f'{{"password": "{SECRET}", "x": }}'}, ["no valid JSON"], ""),
    "secret in TOML": ({"rig": f'token = "{SECRET}" "\n', "rig_name": "rig.toml"}, ["no valid TOML"], ""),
    "secret of the wrong type": ({"params": _params(github_issue={"token_env": f"ghp {SECRET}"}, api_key=SECRET)}, ["not the token"], "github_issue.token_env"),
    "secret in a URL": ({"params": _params(launcher=f"https://bob:{SECRET}@host/x.git")}, ["is none of"], "launcher"),
    "secret named in a path": ({"params": _params(password=SECRET, launcher=SECRET)}, ["***"], "launcher"),
    "secret from the environment": ({"params": _params(api_token="$OPEN_SESAME", launcher=SECRET)}, ["***"], "launcher"),
    "secret in --param": ({"overrides": [f"password=[{SECRET}"]}, ["no valid YAML"], "password"),
}  # fmt: skip
_POSIX = {
    "rig is a pipe",
    "mirror on a drive",
    "output root on a drive",
    "output root on a share",
    "state directory on a drive",
}


def _put(path: Path, content: Any) -> None:
    if content == "DIRECTORY":
        path.mkdir()
    elif content == "FIFO":
        os.mkfifo(path)
    elif content == "HUGE":
        with open(path, "wb") as stream:
            stream.truncate(50_000_000)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content, encoding="utf-8", newline="\n")


def test_there_are_enough_kinds() -> None:
    assert len(BROKEN) >= 45


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str, tmp_path: Path) -> None:
    if os.name == "nt" and name in _POSIX:
        pytest.skip("a mistake on POSIX only")
    broken, words, key = BROKEN[name]
    rig = tmp_path / broken.get("rig_name", "rig.yaml")
    params = tmp_path / "day1.json"
    _put(rig, broken.get("rig", GOOD_RIG))
    _put(params, broken.get("params", _params()))
    before = sorted(tmp_path.rglob("*"))

    loaded = load(
        ConfigRequest(
            rig_config=rig,
            params_files=(params, *(tmp_path / more for more in broken.get("more_params", ()))),
            given=tuple((None, text, "--param") for text in broken.get("overrides", ())),
            cwd=tmp_path,
            environ={"HOME": str(tmp_path), "OPEN_SESAME": SECRET},
        )
    )

    assert loaded.configuration is None
    assert len(loaded.mistakes) == 1, "\n".join(map(str, loaded.mistakes))
    message = str(loaded.mistakes[0])
    for word in words:
        assert word in message
    assert loaded.mistakes[0].key == key
    assert loaded.mistakes[0].where
    assert loaded.mistakes[0].remedy
    assert "\n" not in message
    assert len(message) < 500
    assert SECRET not in message
    assert "Traceback" not in message
    assert sorted(tmp_path.rglob("*")) == before


def test_everything_at_once(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text("rig_id: r\nlog_levl: INFO\ndevices: {cam: {}}\n", encoding="utf-8")
    (tmp_path / "day1.json").write_text(
        _params(ask_notes="no", script_parameters={"a": "{rig_param:x1}"}, pre_acquisition_pipeline=[5]), encoding="utf-8"
    )
    loaded = load(
        ConfigRequest(
            rig_config=tmp_path / "rig.yaml",
            params_files=(tmp_path / "day1.json",),
            given=((None, "=1", "--param"),),
            cwd=tmp_path,
        )
    )
    keys = sorted(mistake.key for mistake in loaded.mistakes)
    assert keys == [
        "",
        "ask_notes",
        "devices.cam.driver",
        "log_levl",
        "output_root_folder",
        "pre_acquisition_pipeline[0]",
        "script_parameters.a",
    ]


def test_two_broken_files_are_both_told(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text("a: [", encoding="utf-8")
    (tmp_path / "day1.json").write_text("{", encoding="utf-8")
    loaded = load(ConfigRequest(rig_config=tmp_path / "rig.yaml", params_files=(tmp_path / "day1.json",), cwd=tmp_path))
    assert [mistake.where for mistake in loaded.mistakes] == ["rig.yaml (named by --rig-config)", "day1.json"]


def test_no_rig_file_at_all(tmp_path: Path) -> None:
    loaded = load(ConfigRequest(rig_config=None, cwd=tmp_path))
    assert [mistake.where for mistake in loaded.mistakes] == ["--rig-config"]


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_output_root(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    (tmp_path / "rig.yaml").write_text("output_root_folder: locked/a\n", encoding="utf-8")
    loaded = load(ConfigRequest(rig_config=tmp_path / "rig.yaml", cwd=tmp_path))
    assert "not writable" in str(loaded.mistakes[0])


def test_unwritable_output_root_as_any_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rig.yaml").write_text("output_root_folder: locked/a\n", encoding="utf-8")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    loaded = load(ConfigRequest(rig_config=tmp_path / "rig.yaml", cwd=tmp_path))
    assert "not writable" in str(loaded.mistakes[0])
