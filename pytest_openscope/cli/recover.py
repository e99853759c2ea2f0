"""``python -m pytest_openscope recover``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..config import ConfigRequest, default_state_directory, load
from ..sidecar import recover
from .parser import EXIT_USAGE, CommandParser, tell


def _states_of_this_user() -> list[Path | None]:
    """Return the state directories of all rigs that have theirs at the platform's usual place."""
    try:
        return [*sorted(path for path in default_state_directory("any", os.environ).parent.iterdir() if path.is_dir())]
    except OSError:
        return []


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m pytest_openscope recover``; 0 nothing is left, 1 a session could not be finished, 4 wrong options."""
    parser = CommandParser("recover", "Finish sessions that a power cut or a kill left without ending.")
    parser.add_argument("--rig-config", type=Path, help="the rig whose sessions are finished; by default all of this user's")
    parser.add_argument("--state-directory", type=Path, help="the rig's state directory, instead of --rig-config")
    parser.add_argument("--output-root", type=Path, help="also look at the session folders in this folder")
    options = parser.parse_args(argv)
    state, root, secrets = options.state_directory, options.output_root, frozenset[str]()
    if options.rig_config is not None:
        request = ConfigRequest(rig_config=options.rig_config, no_input=True, environ=os.environ)
        loaded = load(request)
        if loaded.configuration is None:
            tell(loaded.mistakes)
            return EXIT_USAGE
        state = state or loaded.configuration.rig.state_directory
        root = root or loaded.configuration.settings.output_root
        secrets = loaded.configuration.secrets
    states = [state] if state is not None or root is not None else _states_of_this_user()
    lines = [line for one in states for line in recover(one, root, secrets=secrets)]
    for line in lines or ["nothing to recover"]:
        print(line)
    return 1 if any("could not be recovered" in line for line in lines) else 0
