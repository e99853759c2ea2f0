"""The phases of a session and what a failure in one of them means for the rest."""

from __future__ import annotations

from enum import Enum


class Phase(str, Enum):
    """Where a step belongs; the members stand in the order in which they run."""

    PRE_ACQUISITION = "pre_acquisition"
    ACQUISITION = "acquisition"
    POST_ACQUISITION = "post_acquisition"

    def __str__(self) -> str:
        return self.value

    @property
    def rank(self) -> int:
        """Position in the order of a session, from 0."""
        return _ORDER[self]


_ORDER = {phase: rank for rank, phase in enumerate(Phase)}


class OnFailure(str, Enum):
    """What a failed step does to the steps after it."""

    ABORT = "abort"
    CONTINUE = "continue"
    PROMPT = "prompt"

    def __str__(self) -> str:
        return self.value


class Outcome(str, Enum):
    """How a step or a session ended; the members stand from the best to the worst."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"
    CRASHED = "crashed"

    def __str__(self) -> str:
        return self.value

    @property
    def severity(self) -> int:
        """0 for the best; the session's outcome is the worst of its steps."""
        return _SEVERITY[self]

    def worse(self, other: Outcome) -> Outcome:
        """Return the worse one of the two."""
        return self if self.severity >= other.severity else other


_SEVERITY = {outcome: rank for rank, outcome in enumerate(Outcome)}
