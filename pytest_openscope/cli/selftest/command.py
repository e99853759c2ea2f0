"""Runs the checks and shows them as a table."""

from __future__ import annotations

import json
import os
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ..common import EXIT_FOUND, EXIT_OK, WrongUse
from .bench import CheckError, SkipError, described, kill, processes_of
from .checks import CHECKS, Place, remove

#: Sessions mostly wait; more at once would only make each other late.
_AT_ONCE = 4
#: A sidecar that has done its work leaves within this time.
_LEAVES_S = 20.0


@dataclass
class Row:
    """One line of the table; ``result`` is ``pass``, ``fail`` or ``skip``."""

    check: str
    result: str
    seconds: float
    text: str


def selftest(
    mirror: Annotated[
        Path | None,
        typer.Option(help="also try this share, e.g. a UNC path; a folder is made in it and removed", metavar="PATH"),
    ] = None,
    output: Annotated[
        list[Path] | None, typer.Option(help="also write the table to this file, .json or .md; repeatable", metavar="FILE")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="run only this check; repeatable", metavar="CHECK")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="keep the temporary folder, to look at what failed")] = False,
) -> int:
    """Show on this computer, within two minutes and without a person, what it must do for experiments.

    Runs real sessions in a temporary folder: they pass, fail, hang, are killed. Touches no rig, and no network but the
    share that --mirror names; leaves nothing behind.

    Exit code 0: nothing failed; 1: something did; 4: wrong options.
    """
    files = output or []
    wrong = [f"--only {name}: no such check -> one of {', '.join(CHECKS)}" for name in only or () if name not in CHECKS]
    wrong += [f"--output {path}: neither table -> end its name in .json or .md" for path in files if path.suffix not in _FORMS]
    wrong += [f"--output {path}: no such folder -> make it first" for path in files if not path.resolve().parent.is_dir()]
    if wrong:
        raise WrongUse(*wrong)
    place = Place(Path(tempfile.mkdtemp(prefix="openscope-selftest-")).resolve(), mirror.resolve() if mirror else None)
    began = time.perf_counter()
    try:
        rows = _run(place, [name for name in CHECKS if not only or name in only])
        rows.append(_look_for_rest(place))
    finally:
        if not keep:
            remove(place.folder)
    if not keep and place.folder.exists():
        rows[-1] = Row("nothing-left", "fail", rows[-1].seconds, f"{place.folder} could not be removed")
    for row in rows:
        row.text = _without_names(row.text, place)
    seconds = time.perf_counter() - began
    print(_table(rows, place.facts, seconds))
    if keep:
        print(f"kept: {place.folder}")
    for path in files:
        path.write_text(_FORMS[path.suffix](rows, place.facts, seconds), encoding="utf-8")
    return EXIT_FOUND if any(row.result == "fail" for row in rows) else EXIT_OK


def _run(place: Place, names: Sequence[str]) -> list[Row]:
    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        rows = []
        for row in pool.map(lambda name: _one(place, name), names):
            print(f"{row.result:4}  {row.check}", flush=True)
            rows.append(row)
        return rows


def _one(place: Place, name: str) -> Row:
    began = time.perf_counter()
    try:
        result, text = "pass", CHECKS[name](place)
    except SkipError as reason:
        result, text = "skip", str(reason)
    except CheckError as problem:
        result, text = "fail", str(problem)
    except Exception as error:
        # What no check expected is a finding too.
        last = traceback.extract_tb(error.__traceback__)[-1]
        result, text = "fail", f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
    return Row(name, result, round(time.perf_counter() - began, 1), " ".join(text.split()))


def _look_for_rest(place: Place) -> Row:
    """Check that no process of a session is left; one that is, is ended."""
    began = time.perf_counter()
    while (left := processes_of(place.folder)) and time.perf_counter() - began < _LEAVES_S:
        time.sleep(0.1)
    text = f"{len(left)} processes were left, and were ended: {described(left)}" if left else "no process, no folder"
    for process in left:
        kill(process.pid)
    return Row("nothing-left", "fail" if left else "pass", round(time.perf_counter() - began, 1), text)


def _without_names(text: str, place: Place) -> str:
    """Take folder and user out of a text that is sent to others."""
    for folder, shown in ((place.folder, "<folder>"), (Path.home(), "~")):
        for written in (json.dumps(str(folder))[1:-1], str(folder), folder.as_posix()):
            text = text.replace(written, shown)
    return text


def _summary(rows: Sequence[Row], seconds: float) -> str:
    counts = {result: sum(row.result == result for row in rows) for result in ("pass", "fail", "skip")}
    return f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped in {seconds:.0f} s"


def _table(rows: Sequence[Row], facts: dict[str, str], seconds: float) -> str:
    width = max(len(row.check) for row in rows)
    lines = [f"{row.check:{width}}  {row.result}  {row.seconds:5.1f} s  {row.text}" for row in rows]
    wide = max((len(name) for name in facts), default=0)
    known = [f"{name:{wide}}  {value}" for name, value in facts.items()]
    return "\n".join(["", *known, "", *lines, "", _summary(rows, seconds)])


def _json(rows: Sequence[Row], facts: dict[str, str], seconds: float) -> str:
    content = {
        "at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "failed": sum(row.result == "fail" for row in rows),
        "seconds": round(seconds, 1),
        "facts": facts,
        "checks": [asdict(row) for row in rows],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _markdown(rows: Sequence[Row], facts: dict[str, str], seconds: float) -> str:
    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    lines = ["# openscope selftest", "", _summary(rows, seconds), "", "| fact | value |", "|---|---|"]
    lines += [f"| {cell(name)} | {cell(value)} |" for name, value in facts.items()]
    lines += ["", "| check | result | s | what was seen |", "|---|---|---|---|"]
    lines += [f"| {row.check} | {row.result} | {row.seconds:.1f} | {cell(row.text)} |" for row in rows]
    return "\n".join([*lines, ""])


_FORMS = {".json": _json, ".md": _markdown}
