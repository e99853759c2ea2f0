"""``openscope note``: adds a note to the rig's running session."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ..config import default_state_directory
from ..records import hand_over
from ..sidecar import running_sessions
from .common import EXIT_FOUND, EXIT_OK, RigConfig, StateDirectory, WrongUse, state_directories

#: The session's helper process looks five times a second.
_TAKEN_S = 5.0


def note(
    text: Annotated[str, typer.Argument(help="the note")],
    rig_config: RigConfig = None,
    state_directory: StateDirectory = None,
    session: Annotated[
        str | None, typer.Option(help="name of the session, where several rigs of this computer have one running")
    ] = None,
) -> int:
    """Add a note to the session that runs on the rig now; by default to the one of this computer.

    Exit code 0: the session has it; 1: it did not take it; 4: no session runs, or several do.
    """
    if not text.strip():
        raise WrongUse("note: the text is empty -> write what there is to say, in quotes")
    states = state_directories(rig_config, state_directory)
    running = [view for view in running_sessions(states) if session in (None, view.uuid)]
    if not running:
        where = default_state_directory("RIG", os.environ)
        raise WrongUse(f"note: no session runs here -> give --rig-config where the rig's state directory is not {where}")
    if len(running) > 1:
        names = ", ".join(view.uuid for view in running)
        raise WrongUse(f"note: several sessions run: {names} -> say which one with --session")
    (view,) = running
    if not hand_over(view.folder, _TAKEN_S, type="note", text=text):
        problem = f"{view.uuid} did not take it within {_TAKEN_S:g} s -> try again; its helper process may be gone"
        print(f"ERROR: note: {problem}", file=sys.stderr)
        return EXIT_FOUND
    print(f"noted in {view.uuid}")
    return EXIT_OK
