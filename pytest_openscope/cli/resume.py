"""``openscope resume``: runs the steps of post-acquisition that a session did not reach before its process died."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..records import METADATA, Outcome
from ..sidecar import (
    SessionView,
    add_to_states,
    finish_dead,
    is_owed,
    is_running,
    reopen,
    run_unreached,
    start_finisher,
    unreached_steps,
)
from .common import EXIT_FOUND, EXIT_OK, WrongUse


def resume(
    folder: Annotated[Path, typer.Argument(help="the session folder", metavar="SESSION_FOLDER")],
) -> int:
    """Run the post-acquisition that a session did not reach, on its folder, ids and parameters, without devices.

    Exit code 0: all of it has passed, or nothing was left; 1: a step failed or could not be run; 4: it is no dead session.
    """
    folder = folder.expanduser().absolute()
    view = SessionView.of(folder)
    if view.session is None:
        raise WrongUse(f"{folder}: is no session folder -> give the folder that holds {METADATA}")
    if view.ended is None and is_running(view.session):
        raise WrongUse(f"{folder}: the session is running -> wait for its end")
    if view.ended is None:
        finish_dead(view)
    if view.death is None:
        print(f"{folder.name}: its process did not die; nothing is left to run")
        return EXIT_OK
    if not is_owed(view):
        print(f"{folder.name}: no step of post-acquisition is left to run")
        return EXIT_OK
    print(f"{folder.name}: to run: {', '.join(unreached_steps(view)) or 'none; what runs is waited for'}", flush=True)
    problem = run_unreached(view, print, to_log=False)
    worst = add_to_states(view, (), problem)
    reopen(view)
    start_finisher(folder)
    if problem:
        names = ", ".join(unreached_steps(view))
        print(f"ERROR: {folder.name}: {names}: {problem} -> mend that, then resume again", file=sys.stderr)
    return EXIT_FOUND if problem or worst is not Outcome.PASSED else EXIT_OK
