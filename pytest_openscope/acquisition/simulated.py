"""The dry run's acquisition: nothing runs, or a small process fails in the way that was asked for."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..records import AcquisitionFacts
from ..system import parse_duration_s
from .spec import LOGGER, AcquisitionSpec, Block, command_line

logger = logging.getLogger(LOGGER)

_CHATTY_LINES = 100_000
_KINDS = "exit:N (an exit code, default 1), hang, crash, chatty or chatty:LINES, each with a time (@2s) behind it"
_FAULT = re.compile(r"(exit|hang|crash|chatty)(?::(\d{1,9}))?(?:@(.+))?")

_BEGIN = "import os, signal, sys, time\ntime.sleep({after_s})\n"
_PROGRAMS = {
    "exit": "sys.stderr.write('simulated failure\\n'); sys.exit({number})",
    "hang": "print('simulated hang', flush=True); time.sleep(86400)",
    "crash": """print('simulated crash', flush=True)
if os.name == 'nt':
    os._exit(0xC0000005 - 2**32)
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.kill(os.getpid(), signal.SIGSEGV)
""",
    "chatty": """for number in range({number}):
    sys.stdout.write('simulated line %07d of output that comes faster than anybody reads it, 80 long\\n' % number)
""",
}


@dataclass(frozen=True)
class Fault:
    """A way for a simulated acquisition to go wrong.

    Attributes:
        kind: ``exit``, ``hang``, ``crash`` (by a signal; on Windows an access violation) or ``chatty``.
        number: the exit code, or how many lines.
        after_s: when, after the start.
    """

    kind: str
    number: int = 0
    after_s: float = 0.0

    def command(self) -> tuple[str, ...]:
        """Return a small program that fails like this."""
        code = (_BEGIN + _PROGRAMS[self.kind]).format(after_s=self.after_s, number=self.number)
        return (sys.executable, "-I", "-S", "-c", code)

    def __str__(self) -> str:
        number = f":{self.number}" if self.kind in ("exit", "chatty") else ""
        return self.kind + number + (f"@{self.after_s:g}s" if self.after_s else "")


def parse_fault(text: str) -> Fault:
    """Read what stands behind ``--inject acquisition=``, or all of it.

    Raises:
        ValueError: not one of the kinds; the message lists them.
    """
    found = _FAULT.fullmatch(text.strip().removeprefix("acquisition=").strip())
    if found is not None:
        kind, number, when = found.groups()
        after_s = parse_duration_s(when) if when else 0.0
        if kind == "exit" and int(number or 1) < 256:
            return Fault(kind, int(number or 1), after_s)
        if kind == "chatty":
            return Fault(kind, int(number or _CHATTY_LINES), after_s)
        if kind in ("hang", "crash") and number is None:
            return Fault(kind, 0, after_s)
    raise ValueError(f"{text!r} is no fault of an acquisition; possible are {_KINDS}")


def faulty(spec: AcquisitionSpec, fault: Fault) -> AcquisitionSpec:
    """Return the spec with a command that fails like this instead of its own."""
    logger.info("dry run: acquisition %r simulates the fault %s instead of: %s", spec.name, fault, command_line(spec.command))
    return replace(spec, command=fault.command(), cwd=None, process_start_timeout_s=None)


class SimulatedRun(Block):
    """Has the methods of :class:`.run.AcquisitionRun`; runs nothing and ends well when it is waited for or stopped."""

    pid: int | None = None
    create_time: float | None = None
    stdout_path: Path | None = None
    stderr_path: Path | None = None

    def __init__(self, spec: AcquisitionSpec, on_done: Callable[[Any], Any] | None = None) -> None:
        self.spec = spec
        self.name = spec.name
        self.returncode: int | None = None
        self.stop_reason = ""
        self._on_done = on_done

    def start(self) -> SimulatedRun:
        """Log what would have run."""
        logger.info("dry run: acquisition %r is simulated, would have run: %s", self.name, command_line(self.spec.command))
        return self

    @property
    def done(self) -> bool:
        """True once it was waited for or stopped."""
        return self.returncode is not None

    def poll(self) -> int | None:
        """Return None before the end, then 0."""
        return self.returncode

    def wait(self, timeout_s: float | None = None, *, check: bool = True) -> AcquisitionFacts:
        """End at once."""
        if self.returncode is None:
            self.returncode = 0
            if self._on_done is not None:
                self._on_done(self)
        return self.facts()

    def stop(self, reason: str = "asked to stop", wait: bool = True) -> None:
        """End at once."""
        if self.returncode is None:
            self.stop_reason = reason
            self.wait()

    def postpone(self, seconds: float) -> None:
        """Do nothing: there are no limits of time."""

    def check(self, *, stopped_is_failure: bool = True) -> None:
        """Do nothing: it never fails."""

    def facts(self) -> AcquisitionFacts:
        """Return the command, and that it took no time."""
        return AcquisitionFacts(
            name=self.name,
            command=list(self.spec.command),
            returncode=self.returncode,
            duration_s=0.0,
            stop_reason=self.stop_reason,
        )
