"""The phases of a session and what a failure in one of them means for the rest."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class _Word(str, Enum):
    """A member of a fixed list of words, which it is shown as."""

    def __str__(self) -> str:
        return str(self.value)

    @property
    def rank(self) -> int:
        """Position in the list, from 0."""
        return list(type(self)).index(self)


class Phase(_Word):
    """Where a step belongs; the members stand in the order in which they run."""

    PRE_ACQUISITION = "pre_acquisition"
    ACQUISITION = "acquisition"
    POST_ACQUISITION = "post_acquisition"


class OnFailure(_Word):
    """What a failed step does to the steps after it."""

    ABORT = "abort"
    CONTINUE = "continue"
    PROMPT = "prompt"


class Outcome(_Word):
    """How a step or a session ended; the members stand from the best to the worst."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"
    CRASHED = "crashed"

    @property
    def severity(self) -> int:
        """0 for the best; the session's outcome is the worst of its steps."""
        return self.rank

    def worse(self, other: Outcome) -> Outcome:
        """Return the worse one of the two."""
        return self if self.severity >= other.severity else other


class Gate:
    """Decides which steps may still run, after what has happened so far.

    ``confirm`` asks the operator whether to go on after a failed step whose policy is ``prompt``; it answers False when
    nobody is there. ``closed`` is told why whenever steps before post-acquisition are held back, also in signal
    handlers.
    """

    def __init__(self, confirm: Callable[[str], bool], closed: Callable[[str], None] = lambda cause: None) -> None:
        self._confirm = confirm
        self._closed = closed
        self._blocked: dict[Phase, str] = {}
        self._aborted_before_acquisition = ""
        #: True from the moment the body of an acquisition step starts.
        self.acquisition_begun = False

    def step_failed(self, phase: Phase, step: str, policy: OnFailure, *, explicit: bool = True) -> None:
        """Apply the policy of a failed step; ``explicit`` tells whether the user wrote it out."""
        if policy is OnFailure.CONTINUE:
            return
        if policy is OnFailure.PROMPT and self._confirm(f"step {step!r} ({phase}) failed. Go on all the same?"):
            return
        cause = f"{phase} step {step!r} failed"
        if phase is Phase.PRE_ACQUISITION:
            self._stop_before_post(cause)
        elif phase is Phase.ACQUISITION:
            self._blocked.setdefault(Phase.ACQUISITION, cause)
            self._closed(cause)
        elif explicit:
            self._blocked.setdefault(Phase.POST_ACQUISITION, cause)

    def stop(self, cause: str, *, everything: bool = False) -> None:
        """Let no further step start but post-acquisition of an acquisition that has begun, or none at all."""
        self._stop_before_post(cause)
        if everything:
            self._blocked.setdefault(Phase.POST_ACQUISITION, cause)

    def _stop_before_post(self, cause: str) -> None:
        self._blocked.setdefault(Phase.PRE_ACQUISITION, cause)
        self._blocked.setdefault(Phase.ACQUISITION, cause)
        if not self.acquisition_begun and not self._aborted_before_acquisition:
            self._aborted_before_acquisition = cause
        self._closed(cause)

    def reason_to_skip(self, phase: Phase) -> str:
        """Return why a step of ``phase`` may not run, naming the step that caused it; empty when it may."""
        if phase in self._blocked:
            return self._blocked[phase]
        if phase is Phase.POST_ACQUISITION and self._aborted_before_acquisition and not self.acquisition_begun:
            return f"no acquisition took place: {self._aborted_before_acquisition}"
        return ""
