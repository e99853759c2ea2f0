"""Ready-made steps: the experiment notes, a text file that an editor shows during the session.

``experiment_notes_editor`` creates it and opens it without waiting, ``experiment_notes_post_prompt`` appends the operator's
closing notes (optional), and ``experiment_notes_finalize`` has the operator confirm that it is saved and puts it into the
session. A prompt that asks to type ``yes`` accepts only that. Without an operator nothing is asked, with a warning.
"""

from __future__ import annotations

import codecs
import os
import re
import shutil
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import BeforeValidator, field_validator

from ..config import PathText, Text, key
from ..records import METADATA
from ..system import command_line, create_time, read_json, same_process, split_command, write_json
from .context import ModuleContext
from .failures import ModuleFailed
from .parameters import FlagText, IntegerText, StepParameters
from .routing import add_entry, as_written

_HEAD = ("# Experiment Notes", "# Created:", "# EditorPID:")
_ATTEMPTS = 5


def _words(value: Any) -> Any:
    """Split a command that is one text; a text that names a program as a whole (blanks, backslashes) is not split."""
    if isinstance(value, str) and not value:
        return ()
    if isinstance(value, str) and shutil.which(value):
        return (value,)
    if not isinstance(value, (str, list, tuple)):
        raise ValueError(f"must be a text or a list of texts, not {value!r}")
    try:
        return tuple(split_command(value if isinstance(value, str) else [*map(str, value)]))
    except ValueError as error:
        raise ValueError(f"cannot be split into words ({error}): {value!r}") from error


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class ExperimentNotes(StepParameters):
    """Parameters that all three steps of the notes have."""

    experiment_notes_filename: PathText = key("experiment_notes.txt", "the file; a relative path lies in the session folder")
    experiment_notes_encoding: Text = key("utf-8", "the file's encoding")

    @field_validator("experiment_notes_encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            codecs.lookup(value)
        except LookupError:
            raise ValueError(f"{value!r} is no encoding that Python knows") from None
        return value


class NotesEditor(ExperimentNotes):
    """Parameters of ``experiment_notes_editor``."""

    experiment_notes_launch_editor: FlagText = key(True, "open the file in an editor")
    experiment_notes_editor_command: Words = key(
        (), "the editor, a text or a list; default: Notepad on Windows, elsewhere $VISUAL, $EDITOR or xdg-open"
    )
    experiment_notes_editor_args: Words = key((), "its arguments before the file, which comes last")

    @property
    def command(self) -> list[str]:
        return [*(self.experiment_notes_editor_command or _default_editor()), *self.experiment_notes_editor_args]

    def would(self) -> str:
        made = f"create the notes file {self.experiment_notes_filename}"
        return f"{made} and open it with {command_line(self.command)}" if self.experiment_notes_launch_editor else made


class ClosingNotes(ExperimentNotes):
    """Parameters of ``experiment_notes_post_prompt``."""

    prompt: Text = key("Enter final experiment notes (optional)", "what the operator reads")

    def would(self) -> str:
        return f"ask the operator for closing notes and append them to {self.experiment_notes_filename}"


class NotesFinalize(ExperimentNotes):
    """Parameters of ``experiment_notes_finalize``."""

    experiment_notes_confirm_prompt: Text = key(
        "Confirm that the experiment notes are saved; press Enter to continue.",
        "what the operator confirms; one that asks to type yes accepts only that, five times",
    )
    experiment_notes_autoclose_editor: FlagText = key(False, "ask the editor's processes to end; they are never killed")
    experiment_notes_preview: FlagText = key(True, "put the notes into the log")
    experiment_notes_preview_limit: IntegerText | None = key(None, "most of them in the log", "characters")
    manifest_path: PathText | None = key(None, "routing manifest that gets an entry of type notes")

    def would(self) -> str:
        asked = f"ask the operator ({self.experiment_notes_confirm_prompt})"
        return f"{asked} and put the notes of {self.experiment_notes_filename} into the session"


def experiment_notes_editor(context: ModuleContext, parameters: NotesEditor) -> Path:
    """Create the file, never over one that is there, and open the editor without waiting for it.

    The editor's process is kept in ``launcher_metadata/experiment_notes_editor.json`` for ``experiment_notes_finalize``.

    Returns:
        The file.

    Raises:
        ModuleFailed: the editor cannot be started.
        OSError: the file cannot be created.
    """
    path = context.path(parameters.experiment_notes_filename)
    context.logger.info("%s %s", "created" if _create(parameters, path) else "found, and left as it is,", path)
    if parameters.experiment_notes_launch_editor:
        command = [*parameters.command, str(path)]
        pid = _start(command)
        facts = {"pid": pid, "create_time": create_time(pid), "command": command, "notes": str(path)}
        _editor_file(context).parent.mkdir(parents=True, exist_ok=True)
        write_json(_editor_file(context), facts)
        context.logger.info("opened the notes in an editor (pid %d): %s", pid, command_line(command))
    return path


def experiment_notes_post_prompt(context: ModuleContext, parameters: ClosingNotes) -> str:
    """Ask for closing notes, append the answer with the time, put the whole file's text into the session.

    Returns:
        The answer; "" for none.
    """
    try:
        answer = context.ask(parameters.prompt).strip()
    except EOFError:
        context.logger.warning("nobody is there to give closing notes")
        return ""
    if not answer:
        context.logger.info("no closing notes")
        return ""
    path = context.path(parameters.experiment_notes_filename)
    _create(parameters, path)
    before = path.read_bytes()
    with open(path, "a", encoding=parameters.experiment_notes_encoding) as stream:
        stream.write("" if not before or before.endswith(b"\n") else "\n")
        stream.write(f"[{_now()}] {answer}\n")
    context.note(answer)
    context.set_experiment_notes(_read(parameters, path))
    context.logger.info("closing notes appended to %s", path)
    return answer


def experiment_notes_finalize(context: ModuleContext, parameters: NotesFinalize) -> str:
    """Ask, close the editor if told to, read the notes and put them into the session.

    Returns:
        The text below the file's head.

    Raises:
        ModuleFailed: the operator did not confirm, or the routing manifest is broken.
    """
    _confirm(context, parameters.experiment_notes_confirm_prompt)
    if parameters.experiment_notes_autoclose_editor:
        _close_editor(context)
    path = context.path(parameters.experiment_notes_filename)
    if _create(parameters, path):
        context.logger.warning("there were no notes at %s; an empty file was made", path)
    text = _read(parameters, path)
    if not text:
        context.logger.warning("the notes in %s are empty", path)
    context.set_experiment_notes(text)
    if parameters.experiment_notes_preview and text:
        limit = parameters.experiment_notes_preview_limit
        shown = text[:limit] if limit is not None and 0 < limit < len(text) else text
        context.logger.info("notes in %s:\n%s%s", path, shown, "" if shown == text else "\n… (cut short)")
    if parameters.manifest_path:
        entry = {"type": "notes", "files": [as_written(path, context.session_folder)]}
        add_entry(context.path(parameters.manifest_path), entry)
    return text


# The file


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _create(parameters: ExperimentNotes, path: Path) -> bool:
    """Create the file with its head; False where there is one, which stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x", encoding=parameters.experiment_notes_encoding) as stream:
            stream.write(f"{_HEAD[0]}\n{_HEAD[1]} {_now()}\n\n")
    except FileExistsError:
        return False
    return True


def _read(parameters: ExperimentNotes, path: Path) -> str:
    """Return what was written under the head, without blank lines around it; undecodable bytes become ``\\ufffd``."""
    name = parameters.experiment_notes_encoding
    text = path.read_bytes().decode("utf-8-sig" if name.lower().replace("_", "-") in ("utf-8", "utf8") else name, "replace")
    lines = text.splitlines()
    while lines and (not lines[0].strip() or lines[0].startswith(_HEAD)):
        lines.pop(0)
    return "\n".join(lines).strip()


# The operator


def _confirm(context: ModuleContext, prompt: str) -> None:
    must_type_yes = re.search(r"type\W+yes\b", prompt, re.IGNORECASE) is not None
    for _ in range(_ATTEMPTS):
        try:
            answer = context.ask(prompt)
        except EOFError:
            context.logger.warning("nobody is there to confirm the notes; they are taken as they are")
            return
        if not must_type_yes or answer.strip().lower() in ("yes", "y"):
            return
    raise ModuleFailed(f"the operator did not confirm the notes after {_ATTEMPTS} questions")


# The editor


def _editor_file(context: ModuleContext) -> Path:
    return context.session_folder / METADATA / "experiment_notes_editor.json"


def _default_editor() -> list[str]:
    if sys.platform == "win32":
        return ["notepad.exe"]
    return list(split_command(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "")) or ["xdg-open"]


def _start(command: list[str]) -> int:
    """Start the editor so that a Ctrl-C meant for the session does not reach it; a thread reaps it when it ends."""
    quiet = subprocess.DEVNULL
    try:
        if sys.platform == "win32":
            process = subprocess.Popen(command, stdin=quiet, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP)
        else:
            process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    except (OSError, ValueError) as error:
        raise ModuleFailed(
            f"the editor {command[0]!r} cannot be started: {error} (set experiment_notes_editor_command,"
            " or experiment_notes_launch_editor to false)"
        ) from error
    threading.Thread(target=process.wait, name="notes-editor", daemon=True).start()
    return process.pid


def _close_editor(context: ModuleContext) -> None:
    """Ask the editor's processes to end; they are never killed, since they may hold what was not saved."""
    facts = read_json(_editor_file(context)) or {}
    if not isinstance(facts.get("pid"), int):
        context.logger.info("there is no editor to close")
        return
    editor = same_process(facts["pid"], facts["create_time"]) if facts.get("create_time") else None
    try:
        processes = [*editor.children(recursive=True), editor] if editor else []
    except psutil.NoSuchProcess:
        processes = []
    if not processes:
        context.logger.info("the editor has ended already")
        return
    for process in processes:
        try:
            _ask_to_end(process)
        except (psutil.Error, OSError, subprocess.SubprocessError) as error:
            context.logger.warning("the editor's process %d cannot be ended: %s", process.pid, error)
    _, alive = psutil.wait_procs(processes, timeout=3)
    if alive:
        context.logger.warning("the editor is still open (pid %s)", ", ".join(str(process.pid) for process in alive))
    else:
        context.logger.info("closed the editor")


def _ask_to_end(process: psutil.Process) -> None:
    """Send SIGTERM; on Windows, where that would be a kill, ask its windows to close, as ``taskkill`` without ``/F`` does."""
    if sys.platform != "win32":
        process.terminate()
    else:
        command = ["taskkill", "/PID", str(process.pid)]
        # No pipes: what it starts could hold them open, and Windows then waits for their end beyond the timeout.
        nothing = subprocess.DEVNULL
        subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=10, check=False)
