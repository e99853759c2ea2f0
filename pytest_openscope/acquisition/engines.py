"""What runs MATLAB code: the interface that MATLAB (:mod:`.matlab_engine`) and GNU Octave (:mod:`.octave`) have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TextIO


class EngineUnavailable(Exception):  # noqa: N818 - it says what happened
    """There is no engine to work with; the message says why and what to do."""


class EngineDied(Exception):  # noqa: N818 - it says what happened
    """The engine went away while it worked, or before: the work can be resumed on another one."""


class EngineInterrupted(Exception):  # noqa: N818 - it says what happened
    """The work was ended from outside: by :meth:`Engine.interrupt`, or by somebody at MATLAB's own window."""


class FunctionFailed(Exception):  # noqa: N818 - it says what happened
    """The function raised an error, or could not be called like this."""


class Engine(ABC):
    """One engine, connected.

    Attributes:
        pid: the process that does the work, when it is ours to stop: it is sampled, and stopped after a crash of the session;
            None for an engine that others started.
        create_time: the start time by which that process is known.
    """

    pid: int | None = None
    create_time: float | None = None

    @abstractmethod
    def evaluate(
        self, function: str, arguments: Sequence[Any], nargout: int, folders: Sequence[str], stdout: TextIO, stderr: TextIO
    ) -> None:
        """Call a function; what it prints is written to the streams as it comes, then its outputs, as ``output 1: ...``.

        Args:
            function: its name, dotted for one of a package.
            arguments: values of JSON: text, numbers, true, false, null, lists (cells) and mappings (structures).
            nargout: the number of outputs.
            folders: put in front of the search path before.
            stdout, stderr: get the output.

        Raises:
            FunctionFailed: the function raised an error.
            EngineInterrupted: it was ended from outside.
            EngineDied: the engine is gone.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Ask :meth:`evaluate` to end; called from another thread. It returns when that was done or cannot be done."""

    @abstractmethod
    def close(self, keep_alive: bool) -> None:
        """Let go of the engine; it may be used no more.

        Args:
            keep_alive: leave it running, if others started it.
        """
