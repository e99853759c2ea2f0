"""What the end of an acquisition process means: success, failure, a limit of time, or what somebody asked for."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..records import AcquisitionFacts
from ..system import StopReport
from .spec import LOGGER

logger = logging.getLogger(LOGGER)

_WINDOWS_STATUS = {
    0xC0000005: "access violation",
    0xC0000017: "out of memory",
    0xC00000FD: "stack overflow",
    0xC0000135: "a DLL was not found",
    0xC0000142: "a DLL could not be initialised",
    0xC000013A: "Ctrl-C or a closed console",
    0xC0000374: "heap corruption",
    0xC0000409: "stack buffer overrun or abort",
}


class AcquisitionFailed(Exception):  # noqa: N818 - it says what happened
    """An acquisition process did not start, failed, or had to be stopped; the message is for the operator."""

    #: What a session's record calls such a failure (``record.Failure.kind``).
    openscope_kind = "acquisition"

    def __init__(self, message: str, facts: AcquisitionFacts) -> None:
        super().__init__(message)
        self.facts = facts


class AcquisitionTimeout(AcquisitionFailed):
    """It ran for longer than it may."""

    openscope_kind = "timeout"


def reason_of(error: BaseException) -> str:
    """Return why a program is stopped whose step was left by an exception."""
    text = str(error)
    return f"the step was left by {type(error).__name__}" + (f": {text[:200]}" if text else "")


@dataclass
class Ending:
    """Why a process was stopped, or did not start; filled while it runs.

    Attributes:
        good_exit_codes: those that tell of no failure.
        start_error: what to tell the operator, and the exception behind it.
        kind: ``timeout``, ``silent``, ``stderr``, ``fatal`` or ``asked``; "" for a process that ended by itself.
        reason: why it was stopped, in words.
        fatal: the line that told of a fatal error.
        call_error: what a call within this process raised.
        last_error: its last line on stderr before the stop, whose own complaints explain nothing.
    """

    good_exit_codes: Sequence[int] = (0,)
    start_error: tuple[str, BaseException] | None = None
    kind: str = ""
    reason: str = ""
    last_error: str = ""
    fatal: str = ""
    call_error: BaseException | None = None

    def failure(
        self, facts: AcquisitionFacts, *, ended: bool, stderr_counts: bool, stopped_is_failure: bool
    ) -> AcquisitionFailed | None:
        """Return the exception that tells of the failure; None when there is none (yet).

        Args:
            facts: what is known of the process.
            ended: it has ended.
            stderr_counts: it wrote to stderr where that is a failure.
            stopped_is_failure: a stop that somebody asked for is one too.
        """
        title = f"acquisition {facts.name!r}"
        if self.start_error is not None:
            return AcquisitionFailed(f"{title} did not start: {self.start_error[0]}", facts)
        last = self.last_error if self.kind else last_line(facts.stderr_tail)
        said = f"; last line on stderr: {last}" if last else ""
        if self.kind in ("timeout", "silent", "stderr"):
            error = AcquisitionTimeout if self.kind == "timeout" else AcquisitionFailed
            return error(f"{title} was stopped: {self.reason}{said}", facts)
        if self.kind == "asked":
            return AcquisitionFailed(f"{title} was stopped: {self.reason}", facts) if stopped_is_failure else None
        if self.fatal and (ended or self.kind == "fatal"):
            how = f"and was stopped: {self.reason}" if self.kind else f"and {_how(facts)}"
            return AcquisitionFailed(f"{title} had a fatal error, {how}: {self.fatal}", facts)
        if not ended:
            return None
        if self.call_error is not None:
            return AcquisitionFailed(f"{title} failed: {type(self.call_error).__name__}: {self.call_error}", facts)
        if facts.returncode is None:
            return AcquisitionFailed(f"{title} has ended, but something else took its exit code{said}", facts)
        if facts.returncode not in self.good_exit_codes:
            return AcquisitionFailed(f"{title} {describe_returncode(facts.returncode)}{said}", facts)
        if stderr_counts:
            return AcquisitionFailed(f"{title} wrote to stderr, which counts as a failure{said}", facts)
        return None

    def log(self, facts: AcquisitionFacts, ended: bool, report: StopReport | None) -> None:
        """Log how it ended, what it used, what was stopped and what survived."""
        how = _how(facts) if ended else "could not be stopped"
        used = [f"after {facts.duration_s:.3f} s"]
        if facts.peak_memory_mb is not None:
            source = "counted by the system" if facts.peak_memory_mb == facts.peak_memory_main_mb else "sampled over its tree"
            used.append(f"peak memory {facts.peak_memory_mb:.1f} MB {source}")
        if facts.cpu_s is not None:
            used.append(f"CPU {facts.cpu_s:.2f} s")
        good = facts.returncode in self.good_exit_codes or (self.kind == "asked" and ended)
        logger.log(logging.INFO if good else logging.ERROR, "acquisition %r %s (%s)", facts.name, how, ", ".join(used))
        if report is not None and report.stopped:
            text = "acquisition %r: stopped (%s): %s"
            logger.info(text, facts.name, report.request or "ended by itself", ", ".join(report.stopped))
        if facts.survivors:
            logger.error("acquisition %r: these processes still run: %s", facts.name, ", ".join(facts.survivors))


def _how(facts: AcquisitionFacts) -> str:
    if facts.returncode is None:
        return "ended, its exit code was taken by something else"
    return describe_returncode(facts.returncode)


def last_line(lines: list[str]) -> str:
    """Return the last line that is not blank, cut at 500 characters; "" when there is none."""
    return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "")


def describe_returncode(returncode: int) -> str:
    """Say in words how a process ended: ``ended with exit code 3``, ``was killed by SIGSEGV (Segmentation fault)``."""
    if returncode < 0:
        try:
            name, meaning = signal.Signals(-returncode).name, signal.strsignal(-returncode)
        except ValueError:
            name, meaning = f"signal {-returncode}", None
        text = f"was killed by {name}" + (f" ({meaning})" if meaning else "")
        return text + (", perhaps because memory ran out" if name == "SIGKILL" else "")
    if returncode in _WINDOWS_STATUS:
        return f"ended with exit code 0x{returncode:08X} ({_WINDOWS_STATUS[returncode]})"
    meaning = {126: "a program that cannot be executed", 127: "a program that was not found"}.get(returncode)
    hint = f" (of a shell: {meaning})" if meaning and sys.platform != "win32" else ""
    return f"ended with exit code {returncode}{hint}"
