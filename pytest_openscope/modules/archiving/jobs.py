"""Archives that are owed: a note in the session folder for each, and the process that works them off.

Shares are never touched by the experiment process. A step leaves ``launcher_metadata/archive_jobs/<step>.json`` and starts
the *archive worker*, ``main`` below, for the session folder; or leaves the note to the sidecar, which starts the worker when
the session has ended. Until every file is verified the note stays open, and the rig's state directory points to it, so that
the next session goes on with it. While its session runs, the session's own files (``launcher_metadata``) are put off: they
are complete only when it has ended.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from ...records import JOURNAL, METADATA, WITNESS_JOURNAL, JournalReader, boot_is_same, safe_name
from ...system import FileLock, is_alive, light_command, now_iso, read_json, remove_file, spawn_detached, step_back, write_json
from . import JOBS
from .engine import Archiver, Progress, Report
from .parameters import ArchiverParameters

_LOG = "worker.log"
_POINTERS = "archives"
#: A worker waits so long for another one that is at the same folder, and for the sidecar that started it.
_PATIENCE_S = 24 * 3600.0


def note_job(session_folder: Path, step: str, parameters: ArchiverParameters) -> Path:
    """Put an archive on record as owed, in the session folder and, where a rig runs the session, with the rig; return its note.

    Raises:
        OSError: the session folder cannot be written.
    """
    path = session_folder / METADATA / JOBS / f"{safe_name(step, 'archive')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"step": step, "created_at": now_iso(), "done": False, "parameters": parameters.model_dump(mode="json")})
    state = (_session_event(session_folder) or {}).get("state_directory")
    if state:
        point_to(Path(str(state)), session_folder)
    return path


def _session_event(session_folder: Path) -> dict[str, Any] | None:
    events = JournalReader(session_folder / METADATA / JOURNAL).read()
    return next((event for event in events if event["event"] == "session"), None)


def open_jobs(session_folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the notes of a folder that are not done, with their content."""
    return [(path, facts) for path, facts in _jobs(session_folder) if not facts.get("done")]


def _jobs(session_folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted((session_folder / METADATA / JOBS).glob("*.json")):
        facts = read_json(path)
        if facts is not None and isinstance(facts.get("parameters"), dict):
            yield path, facts


def session_runs(session_folder: Path) -> bool:
    """Tell whether an experiment process still writes this session."""
    if any(event["event"] == "ended" for event in JournalReader(session_folder / METADATA / JOURNAL).read()):
        return False
    started = _session_event(session_folder)
    if started is None:
        return False
    helped = JournalReader(session_folder / METADATA / WITNESS_JOURNAL).read()
    begun = [event for event in helped if event["event"] == "sidecar_started" and not event.get("finish")]
    boot = str(begun[0].get("boot") or "") if begun else ""
    if not boot_is_same(float(started.get("mono") or 0.0), str(started.get("at") or ""), boot):
        return False
    created = started.get("create_time")
    return is_alive(int(started.get("pid") or 0), float(created) if created is not None else None)


def is_record(name: str) -> bool:
    """Tell whether a file is one of the session's own, which may still grow after a copy was made."""
    return name.startswith(f"{METADATA}/")


def work_off_archives(
    session_folder: Path,
    *,
    step: str | None = None,
    on_progress: Callable[[Progress], object] = lambda _: None,
    wait_s: float = 0.0,
) -> Iterator[tuple[str, Report | str]]:
    """Work off the open notes of a folder; yield each step's name with its report, or with why it could not be run.

    With ``step`` it is that note alone, whose step waits for it within its session.

    Nothing is yielded when another process is at it and keeps at it for ``wait_s``.
    """
    folder = session_folder / METADATA / JOBS
    if not folder.is_dir():
        return
    lock = FileLock(folder / "lock")
    if not lock.acquire(wait_s, 0.2):
        return
    try:
        for path, facts in open_jobs(session_folder):
            name = str(facts.get("step") or path.stem)
            if step is not None and name != step:
                continue
            try:
                report = _run_job(session_folder, path, facts, on_progress, step is not None)
            except Exception as error:  # one archive that cannot be begun must not keep the others from it
                print(traceback.format_exc(), file=sys.stderr, flush=True)
                write_json(path, {**facts, "tried_at": now_iso(), "problem": f"{type(error).__name__}: {error}"})
                yield name, f"{type(error).__name__}: {error}"
            else:
                yield name, report
    finally:
        lock.release()


def _run_job(
    session_folder: Path,
    path: Path,
    facts: dict[str, Any],
    on_progress: Callable[[Progress], object],
    in_step: bool,
) -> Report:
    parameters = ArchiverParameters.model_validate(facts["parameters"])
    # A step runs within its session, or in a process that makes up for steps after a crash: both write records until they end.
    in_session = in_step and (session_folder / METADATA / JOURNAL).exists()
    put_off = is_record if in_session or session_runs(session_folder) else (lambda _: False)
    report = Archiver(parameters, put_off=put_off, may_change=is_record, on_progress=on_progress).run()
    done = report.complete and not report.later
    write_json(path, {**facts, "tried_at": now_iso(), "done": done, "problem": None, "report": report.as_json()})
    return report


# -- the rig's list of folders that owe an archive ---------------------------------------------------------------------


def point_to(state_directory: Path, session_folder: Path) -> Path:
    """Remember a folder for the next session on this rig.

    Raises:
        OSError: the state directory cannot be written.
    """
    path = state_directory / _POINTERS / f"{safe_name(session_folder.name, 'session')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"session_folder": str(session_folder.absolute())})
    return path


def owing_folders(state_directory: Path) -> list[Path]:
    """Return the session folders that owe an archive, oldest name first; what owes none any more is forgotten."""
    found = []
    for path in sorted((state_directory / _POINTERS).glob("*.json")):
        folder = Path(str((read_json(path) or {}).get("session_folder")))
        if open_jobs(folder):
            found.append(folder)
        elif folder.is_dir() or folder.parent.is_dir():  # a disk that is not plugged in would lack both
            remove_file(path)
    return found


def state_of_archives(session_folder: Path) -> list[str]:
    """Say of each open archive of a folder how it stands."""
    lines = []
    for path, facts in open_jobs(session_folder):
        report = facts.get("report") or {}
        problems = report.get("problems") or []
        text = facts.get("problem") or ("; ".join(problems[:3]) if problems else "not finished yet")
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        lines.append(f"{session_folder.name}: {facts.get('step', path.stem)}: {text}{more}")
    return lines


def hand_over_archives(session_folder: Path, state_directory: Path | None, after: tuple[int, float | None]) -> None:
    """Start a worker for what a session's folder owes, and let the rig remember it.

    Args:
        after: pid and start time of the process that calls, and still writes the session's own files until it ends.

    Raises:
        OSError: the state directory cannot be written, or the process cannot be created.
    """
    owed = list(_jobs(session_folder))
    if not owed:
        return
    for path, facts in owed:
        if facts.get("done"):
            # Records may have changed since: a report was answered late, steps were made up for after a crash.
            write_json(path, {**facts, "done": False})
    if state_directory is not None:
        point_to(state_directory, session_folder)
    start_worker(session_folder, after=after)


def go_on_with_archives(state_directory: Path) -> list[str]:
    """Start a worker for each earlier session of a rig that owes an archive; return how each stands.

    Raises:
        OSError: a process cannot be created.
    """
    lines = []
    for folder in owing_folders(state_directory):
        lock = FileLock(folder / METADATA / JOBS / "lock")
        if lock.acquire():  # else a worker is at it
            lock.release()
            lines += state_of_archives(folder)
            start_worker(folder)
    return lines


# -- the worker --------------------------------------------------------------------------------------------------------


def start_worker(
    session_folder: Path, *, step: str | None = None, after: tuple[int, float | None] | None = None
) -> subprocess.Popen[bytes]:
    """Start the process that works off a folder's notes; it ends by itself.

    Args:
        step: this step's note only, with reports on ``stdout`` (a pipe); else all of them, in the background.
        after: pid and start time of a process whose end it awaits first: the sidecar, which still writes.

    Raises:
        OSError: the process cannot be created.
    """
    arguments = ["--folder", str(session_folder.absolute())]
    arguments += ["--step", step] if step is not None else ["--background"]
    arguments += ["--after", f"{after[0]}:{after[1] or ''}"] if after is not None else []
    folder = session_folder / METADATA / JOBS
    with open(folder / _LOG, "ab") as log:
        process = spawn_detached(
            light_command(f"{__package__}.jobs", arguments, [entry for entry in sys.path if entry]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if step is not None else subprocess.DEVNULL,
            stderr=log,
        )
    if step is None:
        process.returncode = 0  # it outlives this process by design; Popen's finalizer would warn that it does
    return process


def main(arguments: Sequence[str]) -> int:
    """Run the worker; the exit code is 0 when nothing is left to do."""
    parser = argparse.ArgumentParser(prog="archive worker")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--step")
    parser.add_argument("--background", action="store_true")
    parser.add_argument("--after")
    options = parser.parse_args(arguments)
    if options.background:
        _let_others_go_first()
    if options.after:
        _await_end(options.after)
    code = 0
    reports = work_off_archives(
        options.folder,
        step=options.step,
        on_progress=lambda progress: _tell({"progress": asdict(progress)}),
        wait_s=_PATIENCE_S,
    )
    for name, report in reports:
        if isinstance(report, str):
            _tell({"problem": report})
            code = 1
            continue
        _tell({"report": report.as_json(), "text": str(report), "would": report.would})
        print(f"{now_iso()} {name}: {report}", *report.problems, sep="\n  ", file=sys.stderr, flush=True)
        code = code or int(not report.complete)
    return code


def _let_others_go_first() -> None:
    """Take processor and disks only where nobody else wants them: the next session may be recording."""
    step_back()
    try:
        if sys.platform == "win32":
            psutil.Process().ionice(psutil.IOPRIO_VERYLOW)
        elif sys.platform == "linux":
            psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    except (psutil.Error, OSError):
        return


def _await_end(process: str) -> None:
    pid, _, created = process.partition(":")
    deadline = time.monotonic() + _PATIENCE_S
    while is_alive(int(pid), float(created) if created else None) and time.monotonic() < deadline:
        time.sleep(0.1)


def _tell(message: dict[str, Any]) -> None:
    """Tell whoever started this process; it goes on when nobody listens any more."""
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        return
