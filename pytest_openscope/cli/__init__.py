"""``python -m pytest_openscope COMMAND``: what can be done for a rig beside running experiments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

__all__ = ["main"]

#: command: (module, function, what it does)
_COMMANDS = {
    "recover": ("recover", "main", "finish sessions that a power cut or a kill left unfinished"),
    "outbox": ("reports", "outbox_main", "list, send or drop reports that wait to be sent"),
    "github-check": ("reports", "github_check_main", "check token, repository and permission; creates nothing"),
    "audit": ("audit", "main", "check a day's log in the central mirror against the sessions' copies"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (4 for a wrong command line)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Redirected into a file, Windows' stdout takes its own code page only, and a path may hold any character.
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print("usage: python -m pytest_openscope COMMAND ...\n\nCommands:")
        for name, (_, _, text) in _COMMANDS.items():
            print(f"  {name:14} {text}")
        return 0 if given else 4
    if given[0] not in _COMMANDS:
        print(f"ERROR: unknown command {given[0]!r} -> use one of: {', '.join(_COMMANDS)}", file=sys.stderr)
        return 4
    module, function, _ = _COMMANDS[given[0]]
    command: Callable[[list[str]], int | None] = getattr(import_module(f".{module}", __name__), function)
    return command(given[1:]) or 0
