"""``openscope report``: makes a session's report, one HTML file."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from ..records import METADATA
from ..system import step_back
from ..views import write_report
from .common import EXIT_FOUND, EXIT_OK, WrongUse


def report(
    folder: Annotated[Path, typer.Argument(help="the session folder", metavar="SESSION_FOLDER")],
    output: Annotated[
        Path | None, typer.Option(help="where it goes, instead of into the session folder", metavar="FILE")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="show it in the browser")] = False,
) -> int:
    """Make the report of a session: outcome, steps, resources, measurements, log; one file that opens offline.

    Exit code 0: it is there; 1: it could not be written; 4: no session folder, or the extra is missing.
    """
    folder = folder.expanduser().absolute()
    if not (folder / METADATA).is_dir():
        raise WrongUse(f"{folder}: is no session folder -> give the folder that holds {METADATA}")
    step_back()  # an experiment may be running on this computer
    try:
        path = write_report(folder, output)
    except ImportError as error:
        raise WrongUse(f'report: {error.name or error} is not installed -> pip install "pytest-openscope[report]"') from None
    except OSError as error:
        print(f"ERROR: report: {error}", file=sys.stderr)
        return EXIT_FOUND
    print(path)
    if open_:
        webbrowser.open(path.as_uri())
    return EXIT_OK
