"""How a step says that it failed."""

from __future__ import annotations


class ModuleFailed(Exception):  # noqa: N818 - named for what happened
    """A step said that it failed without raising: a return value, an exit code, a check that did not hold."""

    #: What a session's record calls such a failure (``record.Failure.kind``).
    openscope_kind = "step"


class StepTimedOut(ModuleFailed):
    """A step took longer than it may."""

    openscope_kind = "timeout"
