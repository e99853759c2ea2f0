"""Ready-made step: have the operator confirm that the notes are saved, and put them into the session.

Parameters: ``experiment_notes_filename``, ``experiment_notes_confirm_prompt``, ``experiment_notes_autoclose_editor``
(default false), ``manifest_path`` (a routing manifest that gets an entry), ``experiment_notes_preview`` (default true),
``experiment_notes_preview_limit`` (characters), ``experiment_notes_encoding``. A prompt that asks to type ``yes`` accepts only
that. Without an operator the confirmation is skipped, with a warning.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from . import notes
from .context import ModuleContext, ModuleFailed

DEFAULT_PROMPT = "Confirm that the experiment notes are saved; press Enter to continue."
_ATTEMPTS = 5


def would(parameters: dict[str, Any]) -> str:
    """Say what a dry run leaves out."""
    name = parameters.get("experiment_notes_filename") or notes.DEFAULT_FILENAME
    return f"ask the operator ({_prompt(parameters)}) and put the notes of {name} into the session"


def run_post_acquisition(context: ModuleContext) -> None:
    """Ask, close the editor if told to, read the notes and pass them on.

    Raises:
        ModuleFailed: the operator did not confirm, or the routing manifest is broken.
    """
    _confirm(context)
    if context.parameters.get("experiment_notes_autoclose_editor"):
        _close_editor(context)
    path = notes.notes_path(context)
    if notes.create(context, path):
        context.logger.warning("there were no notes at %s; an empty file was made", path)
    text = notes.read(context, path)
    if not text:
        context.logger.warning("the notes in %s are empty", path)
    context.set_experiment_notes(text)
    if context.parameters.get("experiment_notes_preview", True) and text:
        limit = context.parameters.get("experiment_notes_preview_limit")
        shown = text[:limit] if isinstance(limit, int) and 0 < limit < len(text) else text
        context.logger.info("notes in %s:\n%s%s", path, shown, "" if shown == text else "\n… (cut short)")
    manifest = context.parameters.get("manifest_path")
    if manifest:
        entry = {"type": "notes", "files": [notes.relative_to_session(context, path)]}
        notes.add_to_manifest(context, context.path(str(manifest)), entry)


run = run_post_acquisition


def _prompt(parameters: dict[str, Any]) -> str:
    return str(parameters.get("experiment_notes_confirm_prompt") or DEFAULT_PROMPT)


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


def _close_editor(context: ModuleContext) -> None:
    """Ask the editor's processes to end; they are never killed, since they may hold what was not saved."""
    import subprocess

    import psutil

    facts = notes.known_editor(context)
    if facts is None:
        context.logger.info("there is no editor to close")
        return
    try:
        editor = psutil.Process(facts["pid"])
        if facts.get("create_time") is None or abs(editor.create_time() - facts["create_time"]) > 1:
            context.logger.info("the editor has ended already")
            return
        processes = [*editor.children(recursive=True), editor]
    except psutil.NoSuchProcess:
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


def _ask_to_end(process: Any) -> None:
    """Send SIGTERM; on Windows, where that would be a kill, ask its windows to close, as ``taskkill`` without ``/F`` does."""
    if sys.platform != "win32":
        process.terminate()
        return
    import subprocess

    command = ["taskkill", "/PID", str(process.pid)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
