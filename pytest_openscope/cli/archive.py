"""``openscope archive``: finishes archives that are owed, or archives a folder by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ..modules import ModuleFailed, archive_session, owing_folders, state_of_archives, work_off_archives
from .common import EXIT_FOUND, EXIT_OK, RigConfig, StateDirectory, WrongUse, state_directories


def archive(
    folder: Annotated[
        list[Path] | None, typer.Argument(help="session folders; by default all that owe an archive on this rig")
    ] = None,
    network_dir: Annotated[
        str | None, typer.Option(help="archive FOLDER there, whatever it owes: folder or URL", metavar="PLACE")
    ] = None,
    backup_dir: Annotated[str | None, typer.Option(help="and there", metavar="PLACE")] = None,
    checksum_algo: Annotated[str, typer.Option(help="xxh3 or sha256")] = "xxh3",
    status: Annotated[bool, typer.Option("--status", help="only say what is owed, and why")] = False,
    rig_config: RigConfig = None,
    state_directory: StateDirectory = None,
) -> int:
    """Finish the archives that sessions owe, or archive a folder by hand; nothing is overwritten anywhere.

    With --network-dir or --backup-dir a folder gets the copies that are named, each in a folder of its own name there.

    Exit code 0: everything is archived and verified; 1: something is not; 4: wrong options.
    """
    if (network_dir or backup_dir) and not folder:
        raise WrongUse("archive: no folder is named -> give the folder to archive")
    if missing := [one for one in folder or () if not one.is_dir()]:
        raise WrongUse(*(f"{one}: there is no such folder -> name a session folder" for one in missing))
    folders = [one.absolute() for one in folder or ()]
    if not folder:
        folders = [one for state in state_directories(rig_config, state_directory) for one in owing_folders(state)]
    if status:
        lines = [line for one in folders for line in state_of_archives(one)]
        print("\n".join(lines) or "no archive is owed")
        return EXIT_FOUND if lines else EXIT_OK
    if network_dir or backup_dir:
        for one in folders:
            try:
                _order(one, network_dir, backup_dir, checksum_algo)
            except ModuleFailed as problem:
                raise WrongUse(f"{one}: {problem}") from None
    codes = [_work_off(one) for one in folders]
    if not folders:
        print("no archive is owed")
    return max(codes, default=EXIT_OK)


def _order(folder: Path, network_dir: str | None, backup_dir: str | None, checksum_algo: str) -> None:
    """Note what is to be archived, as a step in the background does."""
    places = {"network_dir": network_dir, "backup_dir": backup_dir}
    given: dict[str, Any] = {
        key: place.rstrip("/\\") + "/" + folder.name if place and "://" in place else str(Path.cwd() / place / folder.name)
        for key, place in places.items()
        if place
    }
    given.update(copy_to_network=bool(network_dir), copy_to_backup=bool(backup_dir), checksum_algo=checksum_algo)
    archive_session(folder, step="by_hand", when="background", **given)


def _work_off(folder: Path) -> int:
    code, found = EXIT_OK, False
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(folder.name, total=None)
        reports = work_off_archives(
            folder, on_progress=lambda now: bar.update(task, total=now.bytes, completed=now.bytes_done), wait_s=2.0
        )
        for step, report in reports:
            found = True
            bar.stop()
            print(f"{folder.name}: {step}: {report}")
            for problem in () if isinstance(report, str) else report.problems:
                print(f"  {problem}", file=sys.stderr)
            if isinstance(report, str) or not report.complete:
                code = EXIT_FOUND
            bar.start()
    if not found:
        busy = bool(state_of_archives(folder))
        print(f"{folder.name}: " + ("another process is at its archive" if busy else "no archive is owed"))
        code = EXIT_FOUND if busy else EXIT_OK
    return code
