"""From the keys of a parameter file to the command that runs, and what is said before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.acquisition.adapter import Task
from pytest_openscope.acquisition.failures import describe_returncode
from pytest_openscope.acquisition.kinds import adapter_of
from pytest_openscope.acquisition.kinds import check_parameters as check
from pytest_openscope.acquisition.kinds import default_spec as defaults
from pytest_openscope.acquisition.kinds import describe_command as describe
from pytest_openscope.acquisition.paths import repository_folder
from pytest_openscope.acquisition.process import environment, explain, program_on_windows
from pytest_openscope.acquisition.spec import AcquisitionSpec
from pytest_openscope.config import Settings
from pytest_openscope.records import Mistake
from pytest_openscope.records.failures import ConfigurationError
from pytest_openscope.system.command_lines import split_command, split_windows

FOLDER = Path("/data/m1_2025-01-01_10-00-00")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="paths and quoting of POSIX")


def build(parameters: dict[str, Any]) -> AcquisitionSpec | None:
    return adapter_of(Task(parameters, FOLDER)).spec()


def built(parameters: dict[str, Any]) -> AcquisitionSpec:
    spec = build(parameters)
    assert spec is not None
    return spec


@pytest.mark.parametrize("parameters", [{}, {"launcher": "base", "script_path": "echo"}, {"launcher": None}])
def test_kinds_without_a_process(parameters: dict[str, Any]) -> None:
    assert build(parameters) is None


@posix_only
def test_python_in_its_order_and_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    spec = built(
        {
            "launcher": "python",
            "script_path": "code\\run.py",
            "python_arguments": ["-a", 1],
            "script_arguments": "--b 'two words'",
            "local_repository_path": "/repos",
            "repository_url": "https://github.com/lab/stimulus.git",
            "script_parameters": {"ignored": 1},
        }
    )
    assert spec.command == (sys.executable, "/repos/stimulus/code/run.py", "-a", "1", "--b", "two words")
    assert spec.env["PYTHONUNBUFFERED"] == "1"


@posix_only
def test_interpreters() -> None:
    base = {"launcher": "python", "script_path": "/x.py"}
    assert built({**base, "python_venv_path": "/envs/a"}).command[0] == "/envs/a/bin/python"
    assert built({**base, "python_venv_path": "/envs/a", "python_exe_path": "/bin/py"}).command[0] == "/bin/py"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/lab/code.git", "code"),
        ("git@github.com:lab/code.git", "code"),
        ("git@host:code", "code"),
        ("C:\\repos\\code\\", "code"),
        ("https://github.com/lab/code/", "code"),
    ],
)
def test_the_repository_has_the_name_in_its_url(url: str, name: str) -> None:
    assert repository_folder({"local_repository_path": "/r", "repository_url": url}) == Path("/r") / name


def test_without_a_local_path_there_is_no_repository() -> None:
    assert repository_folder({"repository_url": "https://github.com/lab/code"}) is None


@pytest.mark.parametrize("command", [["ffmpeg", "-y", 3], "ffmpeg -y 3"])
def test_a_command_and_further_arguments(command: object) -> None:
    spec = built({"launcher": "command", "command": command, "script_arguments": ["a b", True]})
    assert spec.command == ("ffmpeg", "-y", "3", "a b", "true")
    assert spec.name == "ffmpeg"


@posix_only
def test_bonsai_as_the_launcher_called_it() -> None:
    spec = built(
        {
            "launcher": "bonsai",
            "bonsai_exe_path": "bonsai/Bonsai.exe",
            "script_path": "C:/flows/a.bonsai",
            "local_repository_path": "/r",
            "script_parameters": {
                "Id": 7,
                "Sync": True,
                "table_path": "x\\t.csv",
                "log_file": "C:/a.log",
                "Dur": "00:01:00",
            },
            "script_arguments": ["--verbose"],
        }
    )
    assert spec.command == (
        "/r/bonsai/Bonsai.exe", "C:/flows/a.bonsai", "--start", "--no-editor", "-p", "Id=7", "-p", "Sync=true",
        "-p", f"table_path={FOLDER}/x/t.csv", "-p", "log_file=C:/a.log", "-p", "Dur=00:01:00", "--verbose",
        "-p", f"RootFolder={FOLDER}",
    )  # fmt: skip
    assert spec.stderr_fails


def test_matlab_is_described() -> None:
    text = describe({"launcher": "matlab", "matlab_engine_name": "rig", "script_parameters": {"a": 1}}, FOLDER)
    assert text == f"MATLAB engine rig: slap2_launcher('execute', {str(FOLDER)!r}, 'a', 1)"
    assert describe({}, FOLDER) == "nothing (launcher: base)"
    assert describe({"launcher": "command", "command": ["a", "b c"]}, FOLDER).startswith("a ")


def limits(parameters: dict[str, Any]) -> AcquisitionSpec:
    return defaults(Settings.model_validate(parameters))


def test_limits_come_from_the_parameters() -> None:
    spec = limits(
        {
            "acquisition_timeout_s": "1m",
            "process_start_timeout_sec": 5,
            "acquisition_error_terminate": True,
            "acquisition_error_grace_period_sec": 2,
            "acquisition_echo": True,
            "stop_graceful_s": 1,
            "stop_kill_s": 3,
        }
    )
    assert (spec.timeout_s, spec.process_start_timeout_s, spec.stderr_fails, spec.stderr_grace_s, spec.echo) == (
        60,
        5,
        True,
        2,
        True,
    )
    assert (spec.stop.graceful_s, spec.stop.terminate_s, spec.stop.kill_s) == (1, 5, 3)
    assert limits({}).timeout_s is None


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"launcher": "python"}, "script_path"),
        ({"launcher": "command"}, "command"),
        ({"launcher": "command", "command": " "}, "command"),
        ({"launcher": "command", "command": 'a "b'}, "command"),
        ({"launcher": "bonsai", "bonsai_exe_path": "x"}, "script_path"),
    ],
)
def test_what_cannot_be_built_names_the_key(parameters: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(parameters)
    assert [mistake.key for mistake in caught.value.mistakes] == [key]
    assert all(mistake.remedy for mistake in caught.value.mistakes)
    assert [mistake.key for mistake in check(parameters, dry_run=False)] == [key]


def test_what_is_missing_is_said_before_the_session(tmp_path: Path) -> None:
    parameters = {"launcher": "python", "script_path": str(tmp_path / "run.py"), "python_exe_path": "no-such-python"}
    assert [mistake.key for mistake in check(parameters, dry_run=False, where="day1.json")] == [
        "script_path",
        "python_exe_path",
    ]
    assert str(check(parameters, dry_run=False, where="day1.json")[0]) == (
        f"day1.json: script_path: there is no run.py in {tmp_path} -> mend the path"
    )
    near = check({"launcher": "python", "script_path": "code/run.py"}, dry_run=False)[0]
    assert near.problem == f"there is no run.py in {Path.cwd() / 'code'}"
    # A dry run has none of the rig's programs; the script is the experiment's own, where no repository brings it.
    assert [mistake.key for mistake in check(parameters, dry_run=True)] == ["script_path"]
    places = [{"repository_url": "https://host/lab.git"}]
    if sys.platform != "win32":
        places.append({"script_path": "C:/lab/run.py"})
    for elsewhere in places:
        unknown: list[Mistake] = []
        assert check({**parameters, **elsewhere}, dry_run=True, unknown=unknown) == []
        assert [mistake.key for mistake in unknown] == ["script_path"]
    (tmp_path / "run.py").write_text("")
    assert check({"launcher": "python", "script_path": str(tmp_path / "run.py")}, dry_run=False) == []
    assert "is a folder" in str(check({"launcher": "python", "script_path": str(tmp_path)}, dry_run=False)[0])
    assert [str(mistake) for mistake in check({"launcher": "command", "command": ["no-such"]}, dry_run=False)] == [
        "parameters: command: there is no program 'no-such' -> install it, or give its full path"
    ]
    assert check({"launcher": "command", "command": ["{rig_param:tool}"]}, dry_run=False) == []


def test_a_command_of_paths_and_numbers() -> None:
    assert split_command([Path("a"), 1, "b c"]) == ("a", "1", "b c")
    assert split_command(Path("a b")) == ("a b",)
    assert split_command('"a b" c') == ("a b", "c")


def test_return_codes_in_words() -> None:
    assert describe_returncode(3) == "ended with exit code 3"
    assert "access violation" in describe_returncode(0xC0000005)
    assert "signal 300" in describe_returncode(-300)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_signals_in_words() -> None:
    assert describe_returncode(-11) == "was killed by SIGSEGV (Segmentation fault)"
    assert "not found" in describe_returncode(127)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (r"C:\rig\run.exe  --fast", [r"C:\rig\run.exe", "--fast"]),
        (r'"C:\Program Files\cam.exe" "D:\my data\\" x', [r"C:\Program Files\cam.exe", "D:\\my data\\\\", "x"]),
        (r'--out="D:\my data" "a"b', [r"--out=D:\my data", "ab"]),
        ("'two words' it's 'x'y", ["two words", "it's", "'x'y"]),
        ('"" \'\' "\'"', ["", "", "'"]),
        ("\t ", []),
        ("'a b", ["'a", "b"]),
    ],
)
def test_a_command_line_of_windows(text: str, words: list[str]) -> None:
    assert split_windows(text) == words


@pytest.mark.parametrize("text", ['"a b', 'a "b" "c', 'x"y z'])
def test_an_open_quote_on_windows(text: str) -> None:
    with pytest.raises(ValueError, match="No closing quotation"):
        split_windows(text)


def test_names_of_variables_are_the_same_in_any_case_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "a")
    monkeypatch.setenv("KEEP", "b")
    spec = AcquisitionSpec(env={"Path": "c", "keep": None})
    monkeypatch.setattr(sys, "platform", "win32")
    changed = environment(spec, FOLDER, "camera")
    assert (changed["PATH"], "Path" in changed, "KEEP" in changed) == ("c", False, False)
    monkeypatch.setattr(sys, "platform", "linux")
    changed = environment(spec, FOLDER, "camera")
    assert (changed["PATH"], changed["Path"], changed["KEEP"]) == ("a", "c", "b")


def test_a_program_is_looked_up_where_the_child_would(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "tool.exe"
    tool.parent.mkdir()
    tool.write_text("")
    tool.chmod(0o755)
    assert program_on_windows("tool.exe", None, str(tool.parent)) == str(tool)
    assert program_on_windows(str(Path("bin") / "tool.exe"), tmp_path, "") == str(tool)
    assert program_on_windows(str(tool), None, "") == str(tool)
    assert program_on_windows("no-such", tmp_path, str(tool.parent)) == "no-such"


def test_a_command_that_is_too_long_for_windows() -> None:
    error = FileNotFoundError(2, "The filename or extension is too long")
    error.winerror = 206  # type: ignore[attr-defined]
    assert "too long" in explain(AcquisitionSpec(command=("tool",)), error)


@pytest.mark.parametrize(
    ("number", "told"),
    [(5, "may not be executed: Windows"), (32, "held by another"), (225, "virus"), (740, "administrator"), (1260, "AppLocker")],
)
def test_what_windows_refuses_is_named(number: int, told: str) -> None:
    error = PermissionError(13, "Access is denied") if number in (5, 32) else OSError(22, "refused")
    error.winerror = number  # type: ignore[attr-defined]
    assert told in explain(AcquisitionSpec(command=("tool.exe",)), error)
