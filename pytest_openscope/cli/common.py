"""What several commands share: their options, the configuration of the rig, exit codes."""

from __future__ import annotations

import os
from collections.abc import Sequence
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


class WrongUse(Exception):  # noqa: N818 - not an error of the program
    """A command cannot do what it was told; its arguments are the mistakes, a line each."""


def environment_without_ours() -> dict[str, str]:
    """Return the environment without the variables that steer this package."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENSCOPE_")}


def read_configuration(rig_config: Path | None, params: Sequence[Path] = (), dry_run: bool = True) -> Configuration:
    """Return the configuration as a session would have it.

    Raises:
        WrongUse: there is none.
    """
    if rig_config is None:
        raise WrongUse("--rig-config: no rig configuration is given -> add --rig-config FILE")
    request = ConfigRequest(rig_config=rig_config, params_files=tuple(params), dry_run=dry_run, environ=os.environ)
    loaded = load(request)
    if loaded.configuration is None:
        raise WrongUse(*loaded.mistakes)
    return loaded.configuration


def state_directories(rig_config: Path | None, state_directory: Path | None) -> list[Path]:
    """Return the state directory that is named; without a name those of all rigs of this user at the platform's usual place.

    Raises:
        WrongUse: the rig configuration has mistakes.
    """
    if state_directory is not None:
        return [state_directory]
    if rig_config is not None:
        return [read_configuration(rig_config).rig.state_directory]
    try:
        return sorted(path for path in default_state_directory("any", os.environ).parent.iterdir() if path.is_dir())
    except OSError:
        return []
