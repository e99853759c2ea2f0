"""The acquisition of a parameter file: from its keys to the command that runs.

The ``python`` and ``bonsai`` commands are those of the launcher, whose parameter files stay valid; ``command`` is any
program: ``command`` (a list, or a text that is split like a command line) followed by ``script_arguments``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..config import Settings
from ..records import ConfigurationError, Mistake
from ..system import StopPolicy, command_line, native_path, split_command
from .spec import AcquisitionSpec, name_of_command

Parameters = Mapping[str, Any]


def default_spec(settings: Settings) -> AcquisitionSpec:
    """Return the limits, the stop policy and the like that the parameters set, for every acquisition of the session."""
    return AcquisitionSpec(
        timeout_s=settings.acquisition_timeout_s,
        process_start_timeout_s=settings.process_start_timeout_sec,
        stderr_fails=settings.acquisition_error_terminate,
        stderr_grace_s=settings.acquisition_error_grace_period_sec,
        stop=StopPolicy(settings.stop_graceful_s, settings.stop_terminate_s, settings.stop_kill_s),
        echo=settings.acquisition_echo,
    )


def build_spec(parameters: Parameters, session_folder: Path, defaults: AcquisitionSpec | None = None) -> AcquisitionSpec | None:
    """Return what to run for the merged and expanded parameters; None when the launcher kind starts no process.

    Kinds without a process are ``base`` (runs nothing), an absent one, and ``matlab`` (a call into a running MATLAB).

    Raises:
        ConfigurationError: the key that says what to run is missing, or has a form that cannot be used.
    """
    defaults = defaults or AcquisitionSpec()
    kind, env, stderr_fails = _kind(parameters), {}, defaults.stderr_fails
    if kind == "python":
        command = _python(parameters)
        unbuffered = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        env = {name: text for name, text in unbuffered.items() if name not in os.environ}
    elif kind == "command":
        command = _command(parameters)
    elif kind == "bonsai":
        command = _bonsai(parameters, session_folder)
        # Bonsai reports a broken workflow on stderr only; the launcher fails it unless told otherwise.
        stderr_fails = stderr_fails or parameters.get("acquisition_error_terminate") is None
    else:
        return None
    return replace(
        defaults, command=command, name=name_of_command(command) or defaults.name, env=env, stderr_fails=stderr_fails
    )


def describe_command(parameters: Parameters, session_folder: Path) -> str:
    """Return in one line what would run, for the log of a dry run.

    Raises:
        ConfigurationError: see :func:`build_spec`.
    """
    if _kind(parameters) == "matlab":
        return _matlab(parameters, session_folder)
    spec = build_spec(parameters, session_folder)
    return "nothing (launcher: base)" if spec is None else command_line(spec.command)


def check_parameters(
    parameters: Parameters, dry_run: bool, where: str = "parameters", unknown: list[Mistake] | None = None
) -> list[Mistake]:
    """Return what would keep the acquisition from starting: a script, an interpreter or a program that is not there.

    A dry run needs no programs; a missing script is a mistake in it too. A path that still holds placeholders is not judged.

    Args:
        unknown: gets the script that a dry run cannot know, since a repository that is not here or a drive of the rig has it.
    """
    try:
        spec = build_spec(parameters, Path())
    except ConfigurationError as error:
        found = [Mistake(where, mistake.problem, mistake.remedy, mistake.key) for mistake in error.mistakes]
        return [] if dry_run else found
    kind = _kind(parameters)
    if spec is None or kind not in ("python", "command") + (("bonsai",) if dry_run else ()):
        return []
    mistakes: list[Mistake] = []
    program_key = "command"
    if kind in ("python", "bonsai"):
        program_key = next((key for key in ("python_exe_path", "python_venv_path") if parameters.get(key)), "python_exe_path")
        script = Path(spec.command[1])
        if not _is_template(spec.command[1]) and not script.is_file():
            elsewhere = parameters.get("repository_url") or (sys.platform != "win32" and PureWindowsPath(spec.command[1]).drive)
            known = not (dry_run and elsewhere)
            (mistakes if known or unknown is None else unknown).append(_no_script(script, where))
    if dry_run:
        return mistakes
    program = spec.command[0]
    if not _is_template(program) and shutil.which(program) is None:
        if Path(program).is_dir():
            problem, remedy = f"{program!r} is a folder", "name the program in it"
        elif Path(program).is_file():
            problem, remedy = f"{program!r} may not be executed", "give it execute permission, or name its interpreter"
        else:
            problem, remedy = f"there is no program {program!r}", "install it, or give its full path"
        mistakes.append(Mistake(where, problem, remedy, program_key))
    return mistakes


def _no_script(script: Path, where: str) -> Mistake:
    if script.is_dir():
        return Mistake(where, f"{str(script)!r} is a folder", "give the path of the script", "script_path")
    folder = script.parent if _is_absolute(str(script)) else script.absolute().parent
    return Mistake(where, f"there is no {script.name} in {folder}", "mend the path", "script_path")


def repository_folder(parameters: Parameters) -> Path | None:
    """Return ``local_repository_path``/<name of the repository>; None when no repository is named."""
    local = parameters.get("local_repository_path")
    if not local:
        return None
    url = str(parameters.get("repository_url") or "").replace("\\", "/").rstrip("/").removesuffix(".git")
    name = url.replace(":", "/").rpartition("/")[2]
    return native_path(str(local)) / name if name else native_path(str(local))


def _kind(parameters: Parameters) -> str:
    return str(parameters.get("launcher") or "base").strip().lower()


def _python(parameters: Parameters) -> tuple[str, ...]:
    script = parameters.get("script_path")
    if not script:
        raise _mistake("script_path", "launcher 'python' needs a script", "give its path as script_path")
    return (
        _interpreter(parameters),
        str(_in_repository(parameters, str(script))),
        *_arguments(parameters, "python_arguments"),
        *_arguments(parameters, "script_arguments"),
    )


def _interpreter(parameters: Parameters) -> str:
    if parameters.get("python_exe_path"):
        return str(native_path(str(parameters["python_exe_path"])))
    if parameters.get("python_venv_path"):
        venv = native_path(str(parameters["python_venv_path"]))
        return str(venv / "Scripts" / "python.exe" if sys.platform == "win32" else venv / "bin" / "python")
    return sys.executable


def _command(parameters: Parameters) -> tuple[str, ...]:
    command = _arguments(parameters, "command")
    if not command:
        raise _mistake("command", "launcher 'command' needs a command", "give the program and its arguments as a list")
    return (*command, *_arguments(parameters, "script_arguments"))


def _bonsai(parameters: Parameters, session_folder: Path) -> tuple[str, ...]:
    mistakes = [
        Mistake("parameters", f"launcher 'bonsai' needs {what}", f"give its path as {key}", key)
        for key, what in (("bonsai_exe_path", "the program"), ("script_path", "a workflow"))
        if not parameters.get(key)
    ]
    if mistakes:
        raise ConfigurationError(mistakes)
    properties: list[str] = []
    for name, value in (parameters.get("script_parameters") or {}).items():
        properties += ["-p", f"{name}={_property(str(name), value, session_folder)}"]
    return (
        str(_in_repository(parameters, str(parameters["bonsai_exe_path"]))),
        str(_in_repository(parameters, str(parameters["script_path"]))),
        "--start",
        "--no-editor",
        *properties,
        *_arguments(parameters, "script_arguments"),
        "-p",
        f"RootFolder={session_folder}",
    )


def _property(name: str, value: Any, session_folder: Path) -> str:
    if isinstance(value, str) and value and name.lower().endswith(("_path", "_file")) and not _is_absolute(value):
        return str(session_folder / native_path(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _matlab(parameters: Parameters, session_folder: Path) -> str:
    function = parameters.get("matlab_entrypoint") or parameters.get("matlab_function") or "slap2_launcher"
    arguments: list[Any] = ["execute", str(session_folder), *(parameters.get("matlab_entrypoint_args") or ())]
    for pairs in (parameters.get("script_parameters"), parameters.get("matlab_entrypoint_kwargs")):
        for name, value in (pairs or {}).items():
            arguments += [str(name), value]
    engine = parameters.get("matlab_engine_name") or "any"
    return f"MATLAB engine {engine}: {function}({', '.join(repr(argument) for argument in arguments)})"


def _arguments(parameters: Parameters, key: str) -> list[str]:
    value = parameters.get(key) or ()
    if isinstance(value, str):
        try:
            return list(split_command(value))
        except ValueError as error:
            raise _mistake(key, f"{value!r}: {error}", "close the quote, or give a list") from None
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in value]


def _in_repository(parameters: Parameters, text: str) -> Path:
    """Return the path; a relative one lies in the repository, or in the working directory where there is none."""
    path = native_path(text)
    if _is_absolute(text):
        return path
    folder = repository_folder(parameters)
    return folder / path if folder is not None else path


def _is_absolute(text: str) -> bool:
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or bool(PureWindowsPath(text).drive)


def _is_template(text: str) -> bool:
    return any(sign in text for sign in "{$%")


def _mistake(key: str, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError([Mistake("parameters", problem, remedy, key)])
