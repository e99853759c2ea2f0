"""The adapters ``python`` and ``command``: a child process whose command stands in the parameters.

The ``python`` command is that of the launcher, whose parameter files stay valid; ``command`` is any program: ``command`` (a
list, or a text that is split like a command line) followed by ``script_arguments``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..system import native_path
from .adapter import Adapter, Finding, mistake
from .paths import is_absolute, is_elsewhere, is_template
from .spec import AcquisitionSpec, name_of_command


class PythonAdapter(Adapter):
    """``launcher: python``: a script, run by an interpreter of the parameters or by this one."""

    kind = "python"

    def spec(self) -> AcquisitionSpec:
        self.need(script_path="a script")
        interpreter = self._interpreter()
        command = (
            interpreter,
            str(self.path("script_path")),
            *self.arguments("python_arguments"),
            *self.arguments("script_arguments"),
        )
        unbuffered = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        env = {name: text for name, text in unbuffered.items() if name not in os.environ}
        return with_command(self.task.defaults, command, env)

    def check(self, dry_run: bool) -> Iterator[Finding]:
        command = self.spec().command
        yield from check_script(self.parameters, command[1], dry_run)
        if not dry_run:
            keys = ("python_exe_path", "python_venv_path")
            yield from check_program(command[0], next((key for key in keys if self.parameters.get(key)), keys[0]))

    def _interpreter(self) -> str:
        if self.parameters.get("python_exe_path"):
            return str(native_path(str(self.parameters["python_exe_path"])))
        if self.parameters.get("python_venv_path"):
            venv = native_path(str(self.parameters["python_venv_path"]))
            return str(venv / "Scripts" / "python.exe" if sys.platform == "win32" else venv / "bin" / "python")
        return sys.executable


class CommandAdapter(Adapter):
    """``launcher: command``: any program."""

    kind = "command"

    def spec(self) -> AcquisitionSpec:
        command = self.arguments("command")
        if not command:
            raise mistake("command", "launcher 'command' needs a command", "give the program and its arguments as a list")
        return with_command(self.task.defaults, (*command, *self.arguments("script_arguments")))

    def check(self, dry_run: bool) -> Iterator[Finding]:
        command = self.spec().command
        if not dry_run:
            yield from check_program(command[0], "command")


def with_command(
    defaults: AcquisitionSpec, command: tuple[str, ...], env: Mapping[str, str | None] | None = None, **changes: Any
) -> AcquisitionSpec:
    """Return the spec of a command, named after what it runs."""
    name = name_of_command(command) or defaults.name
    return replace(defaults, command=command, name=name, env={**defaults.env, **(env or {})}, **changes)


def check_script(parameters: Mapping[str, Any], text: str, dry_run: bool) -> Iterator[Finding]:
    """Look for the script or workflow; in a dry run it may be one that only the rig has."""
    script = Path(text)
    if is_template(text) or script.is_file():
        return
    if script.is_dir():
        problem, remedy = f"{text!r} is a folder", "give the path of the script"
    else:
        folder = script.parent if is_absolute(text) else script.absolute().parent
        problem, remedy = f"there is no {script.name} in {folder}", "mend the path"
    unknown = dry_run and is_elsewhere(parameters, text)
    yield Finding(problem, remedy, "script_path", "unknown" if unknown else "error")


def check_program(program: str, key: str) -> Iterator[Finding]:
    """Look for a program of this computer."""
    if is_template(program) or shutil.which(program) is not None:
        return
    if Path(program).is_dir():
        yield Finding(f"{program!r} is a folder", "name the program in it", key)
    elif Path(program).is_file():
        yield Finding(f"{program!r} may not be executed", "give it execute permission, or name its interpreter", key)
    else:
        yield Finding(f"there is no program {program!r}", "install it, or give its full path", key)
