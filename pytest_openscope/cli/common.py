"""What several commands share: their options, the configuration of the rig, exit codes, how mistakes are told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..config import ConfigRequest, Configuration, default_state_directory, load

EXIT_OK, EXIT_FOUND, EXIT_USAGE = 0, 1, 4

RigConfig = Annotated[
    Path | None, typer.Option("--rig-config", envvar="OPENSCOPE_RIG_CONFIG", help="rig configuration file", metavar="FILE")
]
StateDirectory = Annotated[
    Path | None, typer.Option(help="the rig's state directory, instead of --rig-config", metavar="FOLDER")
]


def tell(mistakes: Iterable[object]) -> None:
    """Print mistakes to stderr, a line each."""
    for mistake in mistakes:
        print(f"ERROR: {mistake}", file=sys.stderr)


def read_configuration(rig_config: Path | None, params: Sequence[Path] = (), dry_run: bool = True) -> Configuration | None:
    """Return the configuration as a session would have it; None, with the mistakes told, when there is none."""
    if rig_config is None:
        tell(["--rig-config: no rig configuration is given -> add --rig-config FILE"])
        return None
    request = ConfigRequest(
        rig_config=rig_config, params_files=tuple(params), dry_run=dry_run, no_input=True, environ=os.environ
    )
    loaded = load(request)
    if loaded.configuration is None:
        tell(loaded.mistakes)
    return loaded.configuration


def states_of_this_user() -> list[Path]:
    """Return the state directories of all rigs that have theirs at the platform's usual place."""
    try:
        return sorted(path for path in default_state_directory("any", os.environ).parent.iterdir() if path.is_dir())
    except OSError:
        return []
