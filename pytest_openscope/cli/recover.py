"""``openscope recover``: finishes sessions that a power cut or a kill left without ending."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..sidecar import recover as recover_sessions
from .common import EXIT_FOUND, EXIT_OK, StateDirectory, read_configuration, state_directories


def recover(
    rig_config: Annotated[
        Path | None, typer.Option(help="the rig whose sessions are finished; by default all of this user's", metavar="FILE")
    ] = None,
    state_directory: StateDirectory = None,
    output_root: Annotated[
        Path | None, typer.Option(help="also look at the session folders in this folder", metavar="FOLDER")
    ] = None,
) -> int:
    """Finish sessions that a power cut or a kill left without ending.

    Exit code 0: nothing is left; 1: a session could not be finished; 4: wrong options.
    """
    state, root, secrets, urls = state_directory, output_root, frozenset[str](), tuple[str, ...]()
    if rig_config is not None:
        configuration = read_configuration(rig_config, dry_run=False)
        state = state or configuration.rig.state_directory
        root = root or configuration.settings.output_root
        secrets = configuration.secrets
        urls = configuration.settings.alerts.to if configuration.settings.alerts is not None else ()
    states: list[Path | None] = [state] if state is not None or root is not None else [*state_directories(None, None)]
    lines = [line for one in states for line in recover_sessions(one, root, secrets=secrets, alert_urls=urls)]
    for line in lines or ["nothing to recover"]:
        print(line)
    return EXIT_FOUND if any("could not be recovered" in line for line in lines) else EXIT_OK
