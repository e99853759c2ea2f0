"""The dry run's acquisition: nothing runs, or a small process fails in the way that was asked for."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass, replace

from typing_extensions import Self

from ..records import AcquisitionFacts
from ..system import command_line, parse_duration_s
from .run import AcquisitionRun
from .spec import LOGGER, AcquisitionSpec

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
    """A way for a simulated acquisition to go wrong, ``after_s`` after its start.

    ``kind`` is ``exit`` (``number``: the exit code), ``hang``, ``crash`` or ``chatty`` (``number``: how many lines).
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
    return replace(spec, command=fault.command(), call=None, cwd=None, process_start_timeout_s=None)


class SimulatedRun(AcquisitionRun):
    """Runs nothing, and ends well when it is waited for or stopped."""

    def start(self) -> Self:
        logger.info("dry run: acquisition %r is simulated, would have run: %s", self.name, command_line(self.spec.command))
        return self

    @property
    def returncode(self) -> int | None:
        """0 once it was waited for or stopped."""
        return 0 if self.done else None

    def wait(self, timeout_s: float | None = None, *, check: bool = True) -> AcquisitionFacts:
        if not self.done:
            self._done.open()
            if self._on_done is not None:
                self._on_done(self)
        return self.facts()

    def ends_within(self, seconds: float | None) -> bool:
        self.wait()
        return True

    def stop(self, reason: str = "asked to stop", wait: bool = True) -> None:
        if not self.done:
            self._ending.reason = reason
            self.wait()

    def facts(self) -> AcquisitionFacts:
        return replace(super().facts(), duration_s=0.0)
