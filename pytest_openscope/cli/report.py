"""``openscope report``: makes a session's report, one HTML file."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from ..records import METADATA
from ..system import step_back
from .common import EXIT_FOUND, EXIT_OK, EXIT_USAGE, tell


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
    from ..views import write_report

    folder = folder.expanduser().absolute()
    if not (folder / METADATA).is_dir():
        tell([f"{folder}: is no session folder -> give the folder that holds {METADATA}"])
        return EXIT_USAGE
    step_back()  # an experiment may be running on this computer
    try:
        path = write_report(folder, output)
    except ImportError as error:
        tell([f'report: {error.name or error} is not installed -> pip install "pytest-openscope[report]"'])
        return EXIT_USAGE
    except OSError as error:
        tell([f"report: {error}"])
        return EXIT_FOUND
    print(path)
    if open_:
        webbrowser.open(path.as_uri())
    return EXIT_OK
