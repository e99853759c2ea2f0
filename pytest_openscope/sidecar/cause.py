"""Why an experiment process ended without its ending: told from its exit code, its journal and its faulthandler file."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

from ..records import METADATA, Failure, Outcome, Phase, boot_is_same
from ..system import now_iso
from .view import SessionView

FAULT_LOG = "faulthandler.log"
MAX_FAULT_BYTES = 100_000
_FATAL = re.compile(r"^(?:Fatal Python error|Windows fatal exception): (.+)$", re.MULTILINE)
#: Above it, an exit code is what Windows calls an exception.
_LARGEST_PLAIN_CODE = 0xFFFF
#: What faulthandler calls the signals that it catches.
_FAULTHANDLER_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Floating point exception": "SIGFPE",
    "Floating-point exception": "SIGFPE",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
}


def fault_text(folder: Path) -> str:
    """Return what faulthandler wrote, bounded at its beginning and end."""
    try:
        with open(folder / METADATA / FAULT_LOG, "rb") as stream:
            data = stream.read(MAX_FAULT_BYTES)
    except OSError:
        return ""
    return data.decode("utf-8", "replace").replace("\0", "").strip()


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def failure_of_death(view: SessionView, exit_code: int | None) -> Failure:
    """Describe the death as a failure: ``timeout`` when the sidecar ended the process for a deadline, else ``crash``."""
    step = view.running or {}
    faults = fault_text(view.folder)
    place: dict[str, Any] = {
        "phase": _phase(step.get("phase")),
        "step": str(step.get("step") or ""),
        "nodeid": str(step.get("nodeid") or ""),
        "at": now_iso(),
        "faulthandler": faults,
    }
    where = _where(view)
    if view.killed is not None:
        text = f"{view.killed.get('what') or 'a step'}: the experiment process did not come back and was killed{where}"
        return Failure("timeout", Outcome.TIMEOUT, text, traceback=faults, **place)
    if view.exiting is not None:
        text = f"os._exit({view.exiting.get('code')}) was called{where}"
        stack = str(view.exiting.get("text") or "")
        return Failure("crash", Outcome.CRASHED, text, traceback=stack or faults, **place)
    name = _signal(exit_code, faults)
    text = _how(view, exit_code, name, faults) + where
    return Failure("crash", Outcome.CRASHED, text, traceback=faults, signal=name, **place)


def _signal(exit_code: int | None, faults: str) -> str:
    if exit_code is not None and exit_code < 0:
        return signal_name(-exit_code)
    fatal = _FATAL.search(faults)
    return _FAULTHANDLER_SIGNALS.get(fatal[1].strip(), "") if fatal else ""


def _how(view: SessionView, exit_code: int | None, name: str, faults: str) -> str:
    fatal = _FATAL.search(faults)
    if fatal and fatal[0].startswith("Windows") and exit_code is not None and 0 <= exit_code <= _LARGEST_PLAIN_CODE:
        # faulthandler notes also what a library (COM, a driver) catches and mends; the exit code tells what was fatal.
        fatal = None
    if name:
        return f"the experiment process was ended by {name}"
    if fatal:
        return f"the experiment process died: {fatal[1].strip()}"
    if exit_code is not None:
        shown = f"{exit_code:#010x}" if exit_code > _LARGEST_PLAIN_CODE else str(exit_code)
        return f"the experiment process ended with exit code {shown} before its session had ended"
    session: dict[str, Any] = view.session or {}
    if not boot_is_same(float(session.get("mono", 0.0)), str(session.get("at", ""))):
        return "the computer was restarted or lost power"
    return "the experiment process is gone, how is not known"


def _where(view: SessionView) -> str:
    if view.ending is not None:
        return f" while the session was ending (its outcome was {view.ending.get('outcome')})"
    if view.running is not None:
        return f" in {view.running.get('phase')} step {view.running.get('step')}"
    if view.last_step is not None:
        return f" after {view.last_step.get('phase')} step {view.last_step.get('step')}"
    return " before the first step"


def _phase(value: object) -> Phase | None:
    try:
        return Phase(str(value))
    except ValueError:
        return None
