"""A central directory for the sessions of :mod:`conftest`'s rigs, and what must be true of it in the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from pytest_openscope.mirror.audit import audit_day_log as audit
from pytest_openscope.mirror.day_file import parse_line
from pytest_openscope.mirror.files import day_key

METADATA = "launcher_metadata"
JSON_FILES = ("input_parameters.json", "processed_parameters.json", "command_line_arguments.json", "git_revisions.json")


def use_share(bench: Any, share: Path, rig_id: str = "bench", sessions: str = "sessions", **keys: Any) -> Path:
    """Write ``rig.yaml`` with a central directory; the sidecar does not outlive a failed test for long."""
    lines = {
        "rig_id": rig_id,
        "output_root_folder": sessions,
        "state_directory": "state",
        "centralized_log_directory": share.as_posix(),
        "mirror_finish_s": 30,
        **keys,
    }
    bench.write("rig.yaml", "".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items()))
    return share


def own_folder(share: Path, folder: Path, rig_id: str = "bench") -> Path:
    """The folder of a session's own copy in the central directory."""
    (found,) = share.glob(f"[0-9]*/*/*/{rig_id}/{folder.name}")
    return found


def session_log(folder: Path) -> bytes:
    return (folder / METADATA / "launcher.log").read_bytes()


def json_of(folder: Path, name: str) -> Any:
    return json.loads((folder / METADATA / name).read_text(encoding="utf-8"))


def mirror_status(folder: Path) -> str:
    return str(json_of(folder, "end_state.json")["mirror"]["status"])


def assert_mirrored(share: Path, *sessions: tuple[str, Path]) -> None:
    """Each session ``(rig_id, folder)``: copy identical, states beside it, each line once in the day's log, no others there."""
    days: dict[Path, dict[bytes, list[tuple[int, bytes]]]] = {}
    for rig_id, folder in sessions:
        own = own_folder(share, folder, rig_id)
        log = session_log(folder)
        assert (own / "launcher.log").read_bytes() == log
        written = [name for name in JSON_FILES if (folder / METADATA / name).exists()]
        for name in (*written, "end_state.json"):
            assert (own / name).read_bytes() == (folder / METADATA / name).read_bytes(), name
        day = own.parent.parent / "launcher.log"
        lines = days.setdefault(day, lines_by_session(day)).pop(day_key(rig_id, folder.name))
        place = 0
        for (offset, text), expected in zip(sorted(lines), log.split(b"\n")[:-1], strict=True):
            assert (offset, text) == (place, expected)
            place += len(text) + 1
    for day, rest in days.items():
        assert not rest
        report = audit(day, lock_wait_s=10)
        assert (report.clean, report.blanked, report.appended) == (True, 0, 0), report


def lines_by_session(day: Path) -> dict[bytes, list[tuple[int, bytes]]]:
    data = day.read_bytes()
    assert data.endswith(b"\n")
    found: dict[bytes, list[tuple[int, bytes]]] = {}
    for raw in data.split(b"\n")[:-1]:
        line = parse_line(raw)
        assert line is not None, raw[:200]
        found.setdefault(line.key, []).append((line.offset, line.text))
    return found


def start(bench: Any, *arguments: object, output: str = "output.txt", **options: Any) -> Any:
    """Start an experiment; what it prints goes to a file."""
    with open(bench.path / output, "wb") as stream:
        return bench.start(*arguments, stdout=stream, stderr=subprocess.STDOUT, **options)


def living_processes() -> Iterator[tuple[psutil.Process, str]]:
    """All living processes but this one, each with its command line."""
    for process in psutil.process_iter():
        # A zombie has no command line; to ask for its status is slow on Windows, which has none.
        with contextlib.suppress(psutil.Error, OSError):  # of Windows it raises plain errors too
            if process.pid != os.getpid() and (line := " ".join(process.cmdline())):
                yield process, line


def end_what_never_began(path: Path) -> None:
    """End processes whose creator was killed while it created them: on Windows they may stay suspended for good."""
    for process, line in living_processes():
        with contextlib.suppress(psutil.Error, OSError):
            idle = not sum(process.cpu_times()[:2]) and time.time() - process.create_time() > 20
            if str(path) in line and idle:
                process.kill()


def works_in(process: psutil.Process, path: Path) -> bool:
    """Tell whether this is its working directory."""
    try:
        return process.cwd() == str(path)
    except (psutil.Error, OSError):
        return False


def processes_of(path: Path) -> list[str]:
    """Command lines of living processes that name ``path`` or work in it, or what one that just ends still locks there."""
    found = [line for process, line in living_processes() if str(path) in line or works_in(process, path)]
    return found or locked_in(path)


def locked_in(path: Path) -> list[str]:
    """Sessions of which a sidecar holds the lock, as Linux tells without a try to take it.

    The main thread of a process that ends is a zombie a moment before the others have let go of its files.
    """
    locks = Path("/proc/locks")
    held = set(re.findall(r":(\d+) \S+ \S+$", locks.read_text("ascii"), re.MULTILINE)) if locks.exists() else set()
    found = []
    with contextlib.suppress(FileNotFoundError):  # somebody removes a folder meanwhile
        found += [str(one) for one in path.rglob("witness.jsonl") if str(one.stat().st_ino) in held]
    return found
