"""The command line: one file a command; what is wrong is told as pytest tells it, with its exit code 4."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from .archive import archive
from .audit import audit
from .common import EXIT_USAGE, WrongUse
from .github_check import github_check
from .history import history
from .import_rig import import_rig
from .init import init
from .note import note
from .outbox import outbox
from .recover import recover
from .report import report
from .rerun import rerun
from .resume import resume
from .schema import schema
from .selftest import selftest

#: typer brings a click of its own in newer versions; this is the class of every mistake on the command line in each of them.
_UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="What can be done for a rig beside running experiments.",
)
_ALL = (init, import_rig, note, archive, recover, report, history, resume, rerun, outbox, github_check, audit, schema, selftest)
for command in _ALL:
    app.command(command.__name__.replace("_", "-"))(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (4 for a wrong command line)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Redirected into a file, Windows' stdout takes its own code page only, and a path may hold any character.
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    program = "openscope" if Path(sys.argv[0]).stem == "openscope" else "python -m pytest_openscope"
    try:
        code = typer.main.get_command(app).main(args=given or ["--help"], prog_name=program, standalone_mode=False)
    except _UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else program
        mistakes: Sequence[object] = [f"{error.format_message().rstrip('.')} -> see {path} --help"]
    except WrongUse as error:
        mistakes = error.args
    except typer.Abort:
        print("interrupted", file=sys.stderr)
        return 2
    else:
        return int(code or 0) if given else EXIT_USAGE
    for mistake in mistakes:
        print(f"ERROR: {mistake}", file=sys.stderr)
    return EXIT_USAGE
