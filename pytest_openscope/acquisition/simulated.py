"""The dry run's acquisition: nothing runs, or a small process fails in the way that was asked for."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..record import AcquisitionFacts
from .spec import LOGGER, AcquisitionSpec, command_line

logger = logging.getLogger(LOGGER)

_CHATTY_LINES = 100_000
_KINDS = "exit:N (an exit code), hang, crash or crash@TIME (such as crash@2s), chatty or chatty:LINES"
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min)?")
_UNITS_S = {"ms": 0.001, "s": 1.0, None: 1.0, "min": 60.0}

_EXIT = "import sys; sys.stderr.write('simulated failure\\n'); sys.exit({code})"
_HANG = "import time; print('simulated hang', flush=True); time.sleep(86400)"
_CRASH = """import os, signal, sys, time
print('simulated crash in {delay_s} s', flush=True)
time.sleep({delay_s})
if os.name == 'nt':
    os._exit(0xC0000005)
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.kill(os.getpid(), signal.SIGSEGV)
"""
_CHATTY = """import sys
for number in range({lines}):
    sys.stdout.write('simulated line %07d of output that comes faster than anybody reads it, 80 long\\n' % number)
"""


@dataclass(frozen=True)
class Fault:
    """A way for a simulated acquisition to go wrong: ``kind`` is ``exit``, ``hang``, ``crash`` or ``chatty``.

    ``amount`` is the exit code, the delay in seconds, or the number of lines.
    """

    kind: str
    amount: float = 0

    def command(self) -> tuple[str, ...]:
        """Return a small program that fails like this."""
        code = {
            "exit": _EXIT.format(code=int(self.amount)),
            "hang": _HANG,
            "crash": _CRASH.format(delay_s=self.amount),
            "chatty": _CHATTY.format(lines=int(self.amount)),
        }[self.kind]
        return (sys.executable, "-I", "-S", "-c", code)

    def __str__(self) -> str:
        if self.kind == "hang":
            return "hang"
        return f"{self.kind}@{self.amount:g}s" if self.kind == "crash" else f"{self.kind}:{int(self.amount)}"


def parse_fault(text: str) -> Fault:
    """Read what stands behind ``--inject acquisition=``.

    Raises:
        ValueError: not one of the kinds; the message lists them.
    """
    kind, separator, amount = (part.strip() for part in re.split(r"([:@])", text.strip() + ":", maxsplit=1)[:3])
    amount = amount[:-1] if amount.endswith(":") else amount
    if kind == "hang" and not amount:
        return Fault("hang")
    if kind == "exit" and separator == ":" and re.fullmatch(r"\d{1,3}", amount) and int(amount) < 256:
        return Fault("exit", int(amount))
    if kind == "crash" and (not amount or separator == "@"):
        time = _TIME.fullmatch(amount or "0s")
        if time:
            return Fault("crash", float(time[1]) * _UNITS_S[time[2]])
    if kind == "chatty" and separator == ":" and re.fullmatch(r"\d{0,9}", amount):
        return Fault("chatty", int(amount or _CHATTY_LINES))
    raise ValueError(f"{text!r} is no fault of an acquisition; possible are {_KINDS}")


def faulty(spec: AcquisitionSpec, fault: Fault) -> AcquisitionSpec:
    """Return the spec with a command that fails like this instead of its own."""
    logger.info("dry run: acquisition %r simulates the fault %s instead of: %s", spec.name, fault, command_line(spec.command))
    return replace(spec, command=fault.command(), cwd=None, process_start_timeout_s=None)


class SimulatedRun:
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
