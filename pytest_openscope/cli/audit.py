"""``openscope audit``: checks a day's log in the central mirror."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..mirror import LOG_NAME, audit_day_log
from .common import EXIT_FOUND, EXIT_OK, EXIT_USAGE


def audit(
    day_log: Annotated[list[Path], typer.Argument(help="YYYY/MM/DD/launcher.log, or the day's folder")],
    lock_wait_s: Annotated[float, typer.Option(help="how long to wait for another PC's lock")] = 300.0,
) -> int:
    """Check a day's log in the central mirror against the sessions' own copies beside it, and mend it.

    Exit code 0: all was clean; 1: something was mended or could not be; 4: there is no such day's log.
    """
    code = EXIT_OK
    for given in day_log:
        path = given / LOG_NAME if given.is_dir() else given
        try:
            report = audit_day_log(path, lock_wait_s)
        except (FileNotFoundError, NotADirectoryError, FileExistsError):
            problem = "is no day's log of this package" if path.exists() else "there is no such day's log"
            code = EXIT_USAGE
            print(f"ERROR: {path}: {problem} -> name a day's folder in the central log directory, YYYY/MM/DD", file=sys.stderr)
        except OSError as error:
            code = max(code, EXIT_FOUND)
            problem = f"{error.strerror or error} -> try again when the share can be reached and nobody has it locked"
            print(f"ERROR: {path}: {problem}", file=sys.stderr)
        else:
            code = max(code, EXIT_OK if report.clean and not report.blanked and not report.appended else EXIT_FOUND)
            print(report)
    return code
