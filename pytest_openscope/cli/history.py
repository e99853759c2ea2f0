"""``openscope history``: what many sessions say together."""

from __future__ import annotations

import os
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..records import END_STATE, METADATA
from ..system import json_bytes, native_path, parse_duration_s, step_back
from ..views import HistoryError, HistorySource, answer_history, history_database, history_tables, write_history_page
from .common import EXIT_FOUND, EXIT_OK, RigConfig, WrongUse, read_configuration

#: Of what is written into a file or a pipe, which has no width of its own.
_WIDTH_OF_FILES = 160


def history(
    root: Annotated[
        list[Path] | None, typer.Option(help="output root, the folder that holds session folders; repeatable", metavar="FOLDER")
    ] = None,
    central: Annotated[
        list[Path] | None, typer.Option(help="central log directory, with the copies of all rigs; repeatable", metavar="FOLDER")
    ] = None,
    rig_config: RigConfig = None,
    rig: Annotated[list[str] | None, typer.Option(help="only sessions of this rig; repeatable", metavar="ID")] = None,
    since: Annotated[str, typer.Option(help="only sessions since a day (2026-03-04), or as long ago (90d, 12w)")] = "",
    json_: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
    html: Annotated[Path | None, typer.Option(help="write everything as a page that opens offline", metavar="FILE")] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="write the tables as Parquet files, by date and rig", metavar="FOLDER")
    ] = None,
    database: Annotated[
        Path | None, typer.Option(help="database on this computer, instead of the one of this user", metavar="FILE")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="look again at sessions too that ended long ago")] = False,
) -> int:
    """Show what many sessions say together: outcomes, failures by defect, time between failures, values that drift.

    Without --root and --central it is about the rig of --rig-config. What was read once is kept in a database.
    Exit code 0: all was read; 1: something could not be read, the answer is from what is known; 4: wrong options.
    """
    mistakes: list[str] = []
    day = _day(since, mistakes)
    sources = {HistorySource(_absolute(path), central=False): None for path in root or ()}
    sources |= {HistorySource(_absolute(path), central=True): None for path in central or ()}
    if not sources:
        sources = {HistorySource(_absolute(path), central=False): None for path in _root_of(rig_config, mistakes)}
    mistakes += [
        f"{source.path}: is a session folder -> give the folder above it"
        for source in sources
        if not source.central and (source.path / METADATA / END_STATE).exists()
    ]
    mistakes += _unusable_targets(html, database, parquet)
    if mistakes:
        raise WrongUse(*mistakes)
    step_back()  # an experiment may be running on this computer
    place = _absolute(database) if database is not None else history_database(os.environ)
    tables = _absolute(parquet) if parquet is not None else None
    try:
        answer = answer_history(list(sources), place, rig or (), day, full, tables)
        if html is not None:
            write_history_page(answer, html)
    except ImportError as error:
        raise WrongUse(f'history: {error.name or error} is not installed -> pip install "pytest-openscope[history]"') from None
    except (HistoryError, OSError) as error:
        print(f"ERROR: history: {error}", file=sys.stderr)
        return EXIT_FOUND
    if json_:
        sys.stdout.write(json_bytes(vars(answer)).decode("utf-8"))
    elif html is not None:
        print(html)
    else:
        console = Console()
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = _WIDTH_OF_FILES
        history_tables(answer, console)
    for problem in answer.problems:
        print(f"WARNING: {problem}", file=sys.stderr)
    return EXIT_FOUND if answer.problems else EXIT_OK


def _unusable_targets(html: Path | None, database: Path | None, parquet: Path | None) -> list[str]:
    """Return what is wrong with the places that results go to."""
    mistakes = []
    for option, target in (("--html", html), ("--database", database)):
        if target is not None and (target.is_dir() or not target.absolute().parent.is_dir()):
            mistakes.append(f"{option} {target}: is no file in a folder that exists -> name one")
    if parquet is not None and parquet.exists() and not parquet.is_dir():
        mistakes.append(f"--parquet {parquet}: is a file -> name a folder")
    for option, target in (("--parquet", parquet), ("--database", database)):
        if target is not None and not _is_text(target):
            mistakes.append(f"{option} {target!r}: DuckDB takes no name with such bytes -> give another one")
    return mistakes


def _is_text(path: Path) -> bool:
    try:
        return bool(os.fspath(path).encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _root_of(rig_config: Path | None, mistakes: list[str]) -> list[Path]:
    """Return the output root in the rig file; none, with the mistake noted, where there is none."""
    if rig_config is None:
        mistakes.append("history: no sessions are named -> add --root FOLDER, --central FOLDER or --rig-config FILE")
        return []
    text = read_configuration(rig_config).rig.output_root_folder
    if not text or "{" in text:
        mistakes.append(f"{rig_config}: names no output root that is the same for all sessions -> add --root FOLDER")
        return []
    return [native_path(text)]


def _day(text: str, mistakes: list[str]) -> date | None:
    """Return the day that ``--since`` means."""
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        return (datetime.now() - timedelta(seconds=parse_duration_s(text))).date()
    except (ValueError, OverflowError):
        mistakes.append(f"--since {text!r}: is neither a day nor a time -> write 2026-03-04, 90d or 12w")
        return None
