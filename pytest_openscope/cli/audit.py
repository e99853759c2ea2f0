"""``python -m pytest_openscope audit``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..mirror import LOG_NAME, audit_day_log
from .parser import EXIT_USAGE, CommandParser, tell


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m pytest_openscope audit``.

    Returns:
        0 all was clean, 1 something was mended or could not be, 4 there is no such day's log or none was named.
    """
    parser = CommandParser(
        "audit", "Check a day's log in the central mirror against the sessions' own copies beside it, and mend it."
    )
    parser.add_argument("day_log", nargs="+", type=Path, help="YYYY/MM/DD/launcher.log, or the day's folder")
    parser.add_argument("--lock-wait-s", type=float, default=300.0, help="how long to wait for another PC's lock (300)")
    options = parser.parse_args(argv)
    code = 0
    for given in options.day_log:
        path = given / LOG_NAME if given.is_dir() else given
        try:
            report = audit_day_log(path, options.lock_wait_s)
        except (FileNotFoundError, NotADirectoryError, FileExistsError):
            code = EXIT_USAGE
            problem = "is no day's log of this package" if path.exists() else "there is no such day's log"
            tell([f"{path}: {problem} -> name a day's folder in the central log directory, YYYY/MM/DD"])
        except OSError as error:
            code = max(code, 1)
            tell([f"{path}: {error.strerror or error} -> try again when the share can be reached and nobody has it locked"])
        else:
            code = max(code, 0 if report.clean and not report.blanked and not report.appended else 1)
            print(report)
    return code
