"""Ready-made step: create the notes file and open it in an editor, without waiting.

Parameters: ``experiment_notes_filename`` (default ``experiment_notes.txt``, in the session folder),
``experiment_notes_launch_editor`` (default true), ``experiment_notes_editor_command`` (text or list; default Notepad on
Windows, elsewhere ``$VISUAL``, ``$EDITOR`` or ``xdg-open``; the file's path comes last), ``experiment_notes_editor_args``,
``experiment_notes_encoding``.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from typing import Any

from . import notes
from .context import ModuleContext, ModuleFailed


def would(parameters: dict[str, Any]) -> str:
    """Say what a dry run leaves out."""
    name = parameters.get("experiment_notes_filename") or notes.DEFAULT_FILENAME
    if not parameters.get("experiment_notes_launch_editor", True):
        return f"create the notes file {name}"
    return f"create the notes file {name} and open it with {shlex.join(_command(parameters))}"


def run_pre_acquisition(context: ModuleContext) -> None:
    """Create the file, open the editor, remember it for ``experiment_notes_finalize``.

    Raises:
        ModuleFailed: the editor cannot be started.
        OSError: the file cannot be created.
    """
    path = notes.notes_path(context)
    new = notes.create(context, path)
    context.logger.info("%s %s", "created" if new else "found, and left as it is,", path)
    if not context.parameters.get("experiment_notes_launch_editor", True):
        return
    command = [*_command(context.parameters), str(path)]
    pid = _start(command)
    notes.remember_editor(context, {"pid": pid, "create_time": _create_time(pid), "command": command, "notes": str(path)})
    context.logger.info("opened the notes in an editor (pid %d): %s", pid, shlex.join(command))


run = run_pre_acquisition


def _command(parameters: dict[str, Any]) -> list[str]:
    command = _words(parameters.get("experiment_notes_editor_command"), "experiment_notes_editor_command")
    return (command or _default_command()) + _words(
        parameters.get("experiment_notes_editor_args"), "experiment_notes_editor_args"
    )


def _default_command() -> list[str]:
    if sys.platform == "win32":
        return ["notepad.exe"]
    return shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "") or ["xdg-open"]


def _words(value: Any, name: str) -> list[str]:
    """Split a command that is one text; a text that names a program as a whole (blanks, backslashes) is not split."""
    if not value:
        return []
    if not isinstance(value, str):
        if isinstance(value, Iterable) and not isinstance(value, dict):
            return [str(part) for part in value]
        raise ModuleFailed(f"{name} must be a text or a list of texts, not {value!r}")
    import shutil

    if shutil.which(value):
        return [value]
    try:
        if sys.platform != "win32":
            return shlex.split(value)
        return [
            word[1:-1] if len(word) > 1 and word[0] == word[-1] == '"' else word for word in shlex.split(value, posix=False)
        ]
    except ValueError as error:
        raise ModuleFailed(f"{name} cannot be split into words ({error}): {value!r}") from error


def _start(command: list[str]) -> int:
    """Start the editor so that a Ctrl-C meant for the session does not reach it; a thread reaps it when it ends."""
    import subprocess
    import threading

    try:
        if sys.platform == "win32":
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP)
        else:
            quiet = subprocess.DEVNULL
            process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    except (OSError, ValueError) as error:
        raise ModuleFailed(
            f"the editor {command[0]!r} cannot be started: {error} (set experiment_notes_editor_command,"
            " or experiment_notes_launch_editor to false)"
        ) from error
    threading.Thread(target=process.wait, name="notes-editor", daemon=True).start()
    return process.pid


def _create_time(pid: int) -> float | None:
    """Start time of the process, so that its pid is not taken for another's later."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except (psutil.Error, OSError):
        return None
