"""Puts a session report together: one HTML file with its style, its scripts and its data in it, and nothing from outside."""

from __future__ import annotations

import base64
import gzip
import json
import statistics
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ... import __version__
from ...system import command_line, write_atomic
from ..pages import source_hash, template_environment
from ..values import duration_s_of, number_of, size
from .content import SessionFiles
from .plots import plots_of

REPORT = "session_report.html"
_TEMPLATE = Path(__file__).with_name("template")
#: What a step's outcome looks like beside its colour, which alone says nothing to some.
_SIGNS = {"passed": "✓", "skipped": "–", "interrupted": "‖", "timeout": "⏱", "failed": "✗", "error": "✗", "crashed": "✗"}


def write_report(folder: Path, target: Path | None = None) -> Path:
    """Write the report of a session and return its path.

    Args:
        folder: the session folder.
        target: where the report goes; ``session_report.html`` in the session folder without.

    Raises:
        ImportError: bokeh or Jinja2 is not installed (extra ``report``).
        OSError: the file cannot be written.
    """
    import jinja2
    from bokeh.resources import Resources

    environment = template_environment(_TEMPLATE, jinja2.ChainableUndefined)
    # In bokeh's data a reference stands behind what it refers to.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.filters.update(duration=_duration, number=_number, size=size)
    files = SessionFiles(folder)
    plots = plots_of(files)
    scripts = Resources(mode="inline", components=["bokeh"]).js_raw if plots is not None else []
    scripts = [*scripts, _text("report.js")]
    log = files.log()
    page = environment.get_template("report.html").render(
        files=files,
        outcome=str(files.end.get("outcome") or ("running" if files.end.get("provisional") else "unknown")),
        advice=advice(files.end),
        duration_s=duration_s_of(files.end),
        signs=_SIGNS,
        plots=plots,
        measurements=_measurements(files),
        log=log,
        log_data=base64.b64encode(gzip.compress(json.dumps(log).encode("utf-8"), 6, mtime=0)).decode("ascii"),
        style=_text("report.css"),
        scripts=scripts,
        script_hashes=[source_hash(script) for script in scripts],
        version=__version__,
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
    )
    path = folder / REPORT if target is None else target
    write_atomic(path, page.encode("utf-8"))
    return path


def advice(end: Mapping[str, Any], rig: str = "RIG", folder: str = "SESSION_FOLDER") -> list[str]:
    """Return what a person can do now, the most urgent first.

    Args:
        end: content of ``end_state.json``.
        rig: the rig file, as commands name it.
        folder: the session folder, as commands name it.
    """
    outcome = str(end.get("outcome") or "")
    said = []
    if not end:
        said.append("The session has not ended, or nobody could write its end: python -m pytest_openscope recover finishes it.")
    unsafe = [text for text in end.get("helper_failures") or () if "may not be safe" in str(text)]
    said += [f"Look at the hardware first: {text}." for text in unsafe]
    if outcome and outcome != "passed" and not end.get("dry_run"):
        command = command_line(["pytest", "--rig-config", rig, "--continue-session", "last"])
        said.append(f"When the cause is mended, go on with the same animal: {command}")
    rescued = end.get("rescued") or {}
    if rescued.get("problem"):
        command = command_line(["python", "-m", "pytest_openscope", "resume", folder])
        said.append(f"Some of post-acquisition has not run ({rescued['problem']}): {command}")
    elif rescued:
        said.append(f"Post-acquisition was run after the crash: {', '.join(rescued.get('steps') or ())}.")
    mirror = end.get("mirror") or {}
    if mirror.get("status") == "pending":
        said.append("The central copy of the log is not complete; it goes on by itself, at the latest with the next session.")
    if any("writing end_state.json" in str(text) for text in end.get("helper_failures") or ()):
        said.append("The session's end could not be written: look whether its folder is still there, and keep these lines.")
    if end.get("lost_records"):
        said.append(f"{end['lost_records']} log records were lost: free some space on the session's disk.")
    return said or ["Nothing is left to do."]


def _measurements(files: SessionFiles) -> list[dict[str, Any]]:
    """Return each measurement with where its value lies between its limits and among the rig's earlier sessions."""
    earlier = files.earlier_measurements()
    found = []
    for one in files.end.get("measurements") or ():
        before = earlier.get(str(one.get("name")), [])
        median = statistics.median(before) if before else None
        found.append({**one, "before": before, "median": median, "points": _sparkline(before, number_of(one.get("value")))})
    return found


def _sparkline(before: list[float], value: float | None) -> str:
    """Return the points of a line through earlier values and this one, in a box of 100 by 20; "" where there is none."""
    if not before or value is None:
        return ""
    values = [*before, value]
    low, high = min(values), max(values)
    step = 100 / len(before)
    heights = [(one - low) / (high - low) if high > low else 0.5 for one in values]
    return " ".join(f"{number * step:.1f},{18 - 16 * height:.1f}" for number, height in enumerate(heights))


def _text(name: str) -> str:
    return (_TEMPLATE / name).read_text(encoding="utf-8")


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
