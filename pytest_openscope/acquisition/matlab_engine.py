"""MATLAB as the engine: a session that somebody has shared under a name (``matlab.engine.shareEngine``).

Of ``matlab.engine`` only what MathWorks documents is used ("MATLAB Engine API for Python"). What its own Python code shows
besides:

- ``FutureResult.result`` takes a KeyboardInterrupt for itself, cancels and returns None: the main thread does not wait in it.
- Streams must be ``io.StringIO``.
- Every other attribute of an engine is a MATLAB function of that name.
- Leaving a shared session (``quit``, also called when the object goes) does not end MATLAB.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from types import ModuleType
from typing import Any, TextIO

logger = logging.getLogger("pytest_openscope.acquisition")

PACKAGE = "matlab.engine"
INSTALL = "pip install matlabengine==VERSION, of the version that belongs to the installed MATLAB"
_SLICE_S = 1.0
_POLL_S = 0.05


class EngineUnavailable(Exception):  # noqa: N818 - it says what happened
    """There is no MATLAB to work with; the message says why and what to do."""


class EngineDied(Exception):  # noqa: N818 - it says what happened
    """MATLAB went away while it worked, or before: the work can be resumed on another one."""


class EngineInterrupted(Exception):  # noqa: N818 - it says what happened
    """The work was ended from outside: by a cancel, or by somebody at MATLAB's own window."""


class FunctionFailed(Exception):  # noqa: N818 - it says what happened
    """The function raised an error, or could not be called like this."""


def load_package() -> ModuleType:
    """Return ``matlab.engine``.

    Raises:
        EngineUnavailable: it is not installed, or finds no MATLAB.
    """
    try:
        return importlib.import_module(PACKAGE)
    except (ImportError, RuntimeError, OSError) as error:
        # All but the first: what it raises when it finds no MATLAB, another release of it, or an unsupported Python.
        raise EngineUnavailable(f"the package {PACKAGE} does not work here ({error}); {INSTALL}") from error


class MatlabEngine:
    """Connects to a shared MATLAB session, waiting until there is one; what is given up may be used no more.

    Args:
        name: under which it is shared.
        timeout_s: the longest wait.
        poll_s: between two looks.
        tell: gets what the operator is to know while it waits.

    Raises:
        EngineUnavailable: there is none by then, or the package is missing.
    """

    def __init__(self, name: str, timeout_s: float, poll_s: float, tell: Callable[[str], object] = logger.warning) -> None:
        self._package = load_package()
        self._name = name
        self._interrupted = False
        self._future: Any = None
        self._lock = threading.Lock()
        self._engine = self._connect(timeout_s, poll_s, tell)

    def _connect(self, timeout_s: float, poll_s: float, tell: Callable[[str], object]) -> Any:
        deadline_s, poll_s = time.monotonic() + timeout_s, max(poll_s, _POLL_S)
        remedy = f"start MATLAB, and in it matlab.engine.shareEngine('{self._name}')"
        problem = refusal = ""
        for attempt in count(1):
            try:
                shared = tuple(self._package.find_matlab())
                if self._name in shared:
                    engine = self._attach(deadline_s)
                    if engine is not None:
                        logger.info("connected to the shared MATLAB %r (attempt %d)", self._name, attempt)
                        return engine
                    problem = refusal or "it is shared, but does not answer"
                else:
                    problem = f"shared are {', '.join(shared)}" if shared else "no MATLAB is shared"
            except self._package.EngineError as error:
                problem = refusal = str(error)
            if time.monotonic() + poll_s > deadline_s:
                break
            if attempt == 1:
                tell(f"waiting at most {timeout_s:g} s for a MATLAB that is shared as {self._name!r} ({problem}): {remedy}")
            time.sleep(poll_s)
        raise EngineUnavailable(f"no MATLAB shared as {self._name!r} within {timeout_s:g} s: {problem}; {remedy}")

    def _attach(self, deadline_s: float) -> Any:
        """Return the connection; None when there is none by then."""
        future = self._package.connect_matlab(self._name, background=True)
        try:
            while not future.done():
                if time.monotonic() >= deadline_s:
                    future.cancel()
                    return None
                time.sleep(_POLL_S)
        except BaseException:
            future.cancel()
            raise
        engine = future.result()
        if engine is None:
            raise KeyboardInterrupt
        return engine

    def evaluate(
        self, function: str, arguments: Sequence[Any], nargout: int, folders: Sequence[str], stdout: TextIO, stderr: TextIO
    ) -> None:
        """Call a function; what it prints is written to the streams as it comes, then its outputs, as ``output 1: ...``.

        ``arguments`` are values of JSON (lists become cells, mappings structures); ``folders`` are put on the search path.

        Raises:
            FunctionFailed, EngineInterrupted, EngineDied: see there.
        """
        streams = {"stdout": _Stream(stdout), "stderr": _Stream(stderr)}
        if folders:
            self._call("addpath", folders, 0, streams)
        outputs = self._call(function, [self._value(one) for one in arguments], nargout, streams)
        for number, value in enumerate((outputs,) if nargout == 1 else outputs or (), 1):
            print(f"output {number}: {value}", file=stdout)

    def _call(self, function: str, arguments: Sequence[Any], nargout: int, streams: Mapping[str, Any]) -> Any:
        package = self._package
        try:
            with self._lock:
                if self._interrupted:
                    raise EngineInterrupted(f"{function} was not called any more")
                self._future = self._engine.feval(function, *arguments, nargout=nargout, background=True, **streams)
            while True:
                try:
                    return self._future.result(timeout=_SLICE_S)
                except package.TimeoutError:
                    continue
        except (package.CancelledError, package.InterruptedError) as error:
            raise EngineInterrupted(f"{function} was interrupted: {error}") from error
        except (package.EngineError, package.RejectedExecutionError, SystemError) as error:
            raise EngineDied(f"MATLAB {self._name!r} is gone: {error}") from error
        except (package.MatlabExecutionError, SyntaxError, TypeError, ValueError) as error:
            raise FunctionFailed(str(error)) from error

    def _value(self, value: Any) -> Any:
        """Return the value as the engine takes it: all but None, which is MATLAB's ``[]``."""
        if value is None:
            return importlib.import_module("matlab").double([])
        if isinstance(value, Mapping):
            return {str(name): self._value(one) for name, one in value.items()}
        return [self._value(one) for one in value] if isinstance(value, (list, tuple)) else value

    def interrupt(self) -> None:
        """Cancel the call, from another thread; MATLAB does so when its function next lets it (not within a MEX file)."""
        with self._lock:
            self._interrupted = True
            future = self._future
        if future is None:
            return
        try:
            if not future.cancel() and not future.done():
                logger.warning("MATLAB %r does not let its function be cancelled: press Ctrl-C in its window", self._name)
        except self._package.RejectedExecutionError as error:
            logger.warning("MATLAB %r cannot be asked to cancel: %s", self._name, error)

    def close(self, end_timeout_s: float | None) -> None:
        """Leave the session, so that others (and we, once more) can connect to it; with a time end MATLAB, and wait so long."""
        gone = (self._package.EngineError, self._package.RejectedExecutionError, SystemError)
        with contextlib.suppress(*gone):
            if end_timeout_s is not None:
                self._engine.feval("exit", nargout=0, background=True)
                deadline_s = time.monotonic() + end_timeout_s
                while self._name in self._package.find_matlab():
                    if time.monotonic() > deadline_s:
                        logger.warning("MATLAB %r did not end within %g s", self._name, end_timeout_s)
                        break
                    time.sleep(_POLL_S)
        with contextlib.suppress(*gone):
            self._engine.quit()


class _Stream(io.StringIO):
    """What the engine writes to: passes everything on at once, and keeps nothing."""

    def __init__(self, target: TextIO) -> None:
        super().__init__()
        self._target = target

    def write(self, text: str, /) -> int:
        """Pass it on; a target that is closed or full costs the call nothing."""
        with contextlib.suppress(OSError, ValueError):
            self._target.write(text.replace("\r\n", "\n"))
            self._target.flush()
        return len(text)
