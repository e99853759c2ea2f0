"""Ready-made step: ask the operator for closing notes (optional) and append them to the notes file.

Parameters: ``experiment_notes_filename``, ``experiment_notes_encoding``, ``prompt``. Without an operator nothing is asked.
"""

from __future__ import annotations

from typing import Any

from . import notes
from .context import ModuleContext

DEFAULT_PROMPT = "Enter final experiment notes (optional)"


def would(parameters: dict[str, Any]) -> str:
    """Say what a dry run leaves out."""
    name = parameters.get("experiment_notes_filename") or notes.DEFAULT_FILENAME
    return f"ask the operator for closing notes and append them to {name}"


def run_post_acquisition(context: ModuleContext) -> None:
    """Ask, append the answer with the time, put the whole file's text into the session."""
    from datetime import datetime

    try:
        answer = context.ask(str(context.parameters.get("prompt") or DEFAULT_PROMPT)).strip()
    except EOFError:
        context.logger.warning("nobody is there to give closing notes")
        return
    if not answer:
        context.logger.info("no closing notes")
        return
    path = notes.notes_path(context)
    notes.create(context, path)
    before = path.read_bytes()
    with open(path, "a", encoding=notes.encoding(context)) as stream:
        stream.write("" if not before or before.endswith(b"\n") else "\n")
        stream.write(f"[{datetime.now().astimezone().isoformat(timespec='seconds')}] {answer}\n")
    context.note(answer)
    context.set_experiment_notes(notes.read(context, path))
    context.logger.info("closing notes appended to %s", path)


run = run_post_acquisition
