"""Ready-made steps: the experiment notes, a text file that an editor shows during the session.

``experiment_notes_editor`` creates it and opens it without waiting, ``experiment_notes_post_prompt`` appends the operator's
closing notes (optional), and ``experiment_notes_finalize`` has the operator confirm that it is saved and puts it into the
session.

Parameters of all: ``experiment_notes_filename`` (default ``experiment_notes.txt``, in the session folder) and
``experiment_notes_encoding`` (default UTF-8). Of the editor: ``experiment_notes_launch_editor`` (default true),
``experiment_notes_editor_command`` (text or list; default Notepad on Windows, elsewhere ``$VISUAL``, ``$EDITOR`` or
``xdg-open``; the file's path comes last), ``experiment_notes_editor_args``. Of the closing notes: ``prompt``. Of the end:
``experiment_notes_confirm_prompt``, ``experiment_notes_autoclose_editor`` (default false), ``manifest_path`` (a routing
manifest that gets an entry), ``experiment_notes_preview`` (default true), ``experiment_notes_preview_limit`` (characters). A
prompt that asks to type ``yes`` accepts only that. Without an operator nothing is asked, with a warning.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from ..records import METADATA
from ..system import command_line, create_time, read_json, same_process, split_command, write_json
from .context import ModuleContext, ModuleFailed, ReadyMade

_HEAD = ("# Experiment Notes", "# Created:", "# EditorPID:")
_CONFIRM = "Confirm that the experiment notes are saved; press Enter to continue."
_ATTEMPTS = 5


def open_editor(context: ModuleContext) -> None:
    """Create the file, open the editor, remember it for :func:`finalize`.

    Raises:
        ModuleFailed: the editor cannot be started.
        OSError: the file cannot be created.
    """
    path = _path(context)
    context.logger.info("%s %s", "created" if _create(context, path) else "found, and left as it is,", path)
    if not context.parameters.get("experiment_notes_launch_editor", True):
        return
    command = [*_editor_command(context.parameters), str(path)]
    pid = _start(command)
    write_json(_editor_file(context), {"pid": pid, "create_time": create_time(pid), "command": command, "notes": str(path)})
    context.logger.info("opened the notes in an editor (pid %d): %s", pid, command_line(command))


def append(context: ModuleContext) -> None:
    """Ask for closing notes, append the answer with the time, put the whole file's text into the session."""
    try:
        answer = context.ask(str(context.parameters.get("prompt") or "Enter final experiment notes (optional)")).strip()
    except EOFError:
        context.logger.warning("nobody is there to give closing notes")
        return
    if not answer:
        context.logger.info("no closing notes")
        return
    path = _path(context)
    _create(context, path)
    before = path.read_bytes()
    with open(path, "a", encoding=_encoding(context)) as stream:
        stream.write("" if not before or before.endswith(b"\n") else "\n")
        stream.write(f"[{_now()}] {answer}\n")
    context.note(answer)
    context.set_experiment_notes(_read(context, path))
    context.logger.info("closing notes appended to %s", path)


def finalize(context: ModuleContext) -> None:
    """Ask, close the editor if told to, read the notes and pass them on.

    Raises:
        ModuleFailed: the operator did not confirm, or the routing manifest is broken.
    """
    _confirm(context)
    if context.parameters.get("experiment_notes_autoclose_editor"):
        _close_editor(context)
    path = _path(context)
    if _create(context, path):
        context.logger.warning("there were no notes at %s; an empty file was made", path)
    text = _read(context, path)
    if not text:
        context.logger.warning("the notes in %s are empty", path)
    context.set_experiment_notes(text)
    if context.parameters.get("experiment_notes_preview", True) and text:
        limit = context.parameters.get("experiment_notes_preview_limit")
        shown = text[:limit] if isinstance(limit, int) and 0 < limit < len(text) else text
        context.logger.info("notes in %s:\n%s%s", path, shown, "" if shown == text else "\n… (cut short)")
    manifest = context.parameters.get("manifest_path")
    if manifest:
        _add_to_manifest(context.path(str(manifest)), {"type": "notes", "files": [_relative_to_session(context, path)]})


def _would_open(parameters: dict[str, Any]) -> str:
    made = f"create the notes file {_filename(parameters)}"
    if not parameters.get("experiment_notes_launch_editor", True):
        return made
    return f"{made} and open it with {command_line(_editor_command(parameters))}"


def _would_finalize(parameters: dict[str, Any]) -> str:
    return f"ask the operator ({_prompt(parameters)}) and put the notes of {_filename(parameters)} into the session"


STEPS = {
    "experiment_notes_editor": ReadyMade(open_editor, _would_open),
    "experiment_notes_post_prompt": ReadyMade(
        append, lambda parameters: f"ask the operator for closing notes and append them to {_filename(parameters)}"
    ),
    "experiment_notes_finalize": ReadyMade(finalize, _would_finalize),
}


# The file


def _filename(parameters: dict[str, Any]) -> str:
    return str(parameters.get("experiment_notes_filename") or "experiment_notes.txt")


def _path(context: ModuleContext) -> Path:
    return context.path(_filename(context.parameters))


def _encoding(context: ModuleContext) -> str:
    return str(context.parameters.get("experiment_notes_encoding") or "utf-8")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _create(context: ModuleContext, path: Path) -> bool:
    """Create the file with its head; False where there is one, which stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x", encoding=_encoding(context)) as stream:
            stream.write(f"{_HEAD[0]}\n{_HEAD[1]} {_now()}\n\n")
    except FileExistsError:
        return False
    return True


def _read(context: ModuleContext, path: Path) -> str:
    """Return what was written under the head, without blank lines around it; undecodable bytes become ``\\ufffd``."""
    name = _encoding(context)
    text = path.read_bytes().decode("utf-8-sig" if name.lower().replace("_", "-") in ("utf-8", "utf8") else name, "replace")
    lines = text.splitlines()
    while lines and (not lines[0].strip() or lines[0].startswith(_HEAD)):
        lines.pop(0)
    return "\n".join(lines).strip()


def _add_to_manifest(manifest: Path, entry: dict[str, Any]) -> None:
    """Append an entry to a routing manifest (``{"entries": [...]}``), which other programs may be reading.

    Raises:
        ModuleFailed: the file that is there is no manifest; it stays untouched.
    """
    data: dict[str, Any] = {"entries": []}
    if manifest.exists():
        try:
            data = json.loads(manifest.read_text(encoding="utf-8-sig"))
            known = data["entries"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModuleFailed(f"{manifest} is no routing manifest: {error}") from error
        if not isinstance(known, list):
            raise ModuleFailed(f"{manifest} is no routing manifest: its entries are no list")
    if entry not in data["entries"]:
        data["entries"].append(entry)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    write_json(manifest, data)


def _relative_to_session(context: ModuleContext, path: Path) -> str:
    """Return the path as manifests write it: with ``/``, relative to the session folder where it lies in it."""
    try:
        return path.resolve().relative_to(context.session_folder.resolve()).as_posix()
    except ValueError:
        return path.as_posix()


# The operator


def _prompt(parameters: dict[str, Any]) -> str:
    return str(parameters.get("experiment_notes_confirm_prompt") or _CONFIRM)


def _confirm(context: ModuleContext) -> None:
    prompt = _prompt(context.parameters)
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


def _editor_command(parameters: dict[str, Any]) -> list[str]:
    given = _words(parameters, "experiment_notes_editor_command")
    return (given or _default_editor()) + _words(parameters, "experiment_notes_editor_args")


def _default_editor() -> list[str]:
    if sys.platform == "win32":
        return ["notepad.exe"]
    return list(split_command(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "")) or ["xdg-open"]


def _words(parameters: dict[str, Any], name: str) -> list[str]:
    """Split a command that is one text; a text that names a program as a whole (blanks, backslashes) is not split."""
    value = parameters.get(name) or ()
    if isinstance(value, dict) or not isinstance(value, Iterable):
        raise ModuleFailed(f"{name} must be a text or a list of texts, not {value!r}")
    if isinstance(value, str) and shutil.which(value):
        return [value]
    try:
        return list(split_command(value if isinstance(value, str) else [*value]))
    except ValueError as error:
        raise ModuleFailed(f"{name} cannot be split into words ({error}): {value!r}") from error


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
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
