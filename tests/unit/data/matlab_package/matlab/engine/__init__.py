"""A stand-in of ``matlab.engine`` that behaves, and fails, as the real one is documented to.

The MATLAB sessions are processes (``shared_matlab.py``), found by files in the folder that ``STANDIN_MATLAB`` names; so they
can be killed. ``STANDIN_MATLAB_DEATH`` names what a call raises whose MATLAB has died: EngineError, SystemError (both have been
seen), RejectedExecutionError.

What is like the real package: futures and their exceptions, an own TimeoutError, streams that must be io.StringIO, unsupported
types, one connection to a session at a time, KeyboardInterrupt that ends in a cancel and None, every attribute of an engine a
function, ``quit`` and the end of the object that leave a shared session alive.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import threading
import time
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import psutil

import matlab


class EngineError(Exception):
    pass


class MatlabExecutionError(Exception):
    pass


class RejectedExecutionError(Exception):
    pass


class CancelledError(Exception):
    pass


class InterruptedError(Exception):
    pass


class TimeoutError(Exception):
    pass


_GONE = "MATLAB function cannot be evaluated"
_TYPES = (bool, int, float, str, bytes, complex, matlab.double)


def _sessions() -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(Path(os.environ["STANDIN_MATLAB"]).glob("*.json")):
        session = json.loads(path.read_text())
        if psutil.pid_exists(session["pid"]) and psutil.Process(session["pid"]).status() != psutil.STATUS_ZOMBIE:
            found[path.stem] = session
    return found


def find_matlab() -> tuple[str, ...]:
    return tuple(_sessions())


def connect_matlab(name: str | None = None, *, background: bool = False) -> Any:
    if name is None:
        raise NotImplementedError("the real one would start a MATLAB")
    future = FutureResult()
    threading.Thread(target=_connect, args=(name, future), daemon=True).start()
    return future if background else future.result()


def _connect(name: str, future: FutureResult) -> None:
    time.sleep(0.05)
    session = _sessions().get(name)
    try:
        if session is None:
            raise EngineError(f"Unable to connect to MATLAB session '{name}'.")
        pipe = Client(("127.0.0.1", session["port"]))
        if pipe.recv() != "welcome":
            raise EngineError(f"Unable to connect to MATLAB session '{name}': it is connected already.")
        future._set(MatlabEngine(pipe))
    except (OSError, EOFError, EngineError) as error:
        future._fail(EngineError(str(error)))


class FutureResult:
    def __init__(self, engine: MatlabEngine | None = None, number: int = 0) -> None:
        self._engine, self._number = engine, number
        self._over = threading.Event()
        self._result: Any = None
        self._error: Exception | None = None
        self._cancelled = False

    def _set(self, result: Any) -> None:
        self._result = result
        self._over.set()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._over.set()

    def _validate(self) -> None:
        if self._engine is not None and not self._engine._check_matlab():
            raise RejectedExecutionError("MATLAB has already terminated")

    def result(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout < 0:
            raise TypeError("timeout cannot be a negative number")
        self._validate()
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._over.wait(0.05):
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError("timeout from the execution of the MATLAB function")
        except KeyboardInterrupt:
            self.cancel()
            return None
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> bool:
        self._validate()
        if self._over.is_set():
            return False
        if self._engine is None:
            self._fail(CancelledError("the connection was cancelled"))
            return True
        self._cancelled = True
        return self._engine._send(("cancel", self._number))

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        self._validate()
        return self._over.is_set()


class MatlabFunc:
    def __init__(self, engine: MatlabEngine, name: str) -> None:
        self._engine, self._name = engine, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._engine._check_matlab():
            raise RejectedExecutionError("MATLAB has already terminated")
        nargout = kwargs.pop("nargout", 1)
        streams = {name: kwargs.pop(name, None) for name in ("stdout", "stderr")}
        background = kwargs.pop("background", False)
        if kwargs:
            raise TypeError(f"invalid keyword argument: {next(iter(kwargs))!r}")
        for name, stream in streams.items():
            if stream is not None and not isinstance(stream, io.StringIO):
                raise TypeError(f"{name} must be an instance of io.StringIO, not {type(stream).__name__}")
        for value in args:
            _check_type(value)
        name = self._name
        if name == "feval":
            name, *rest = args
            args = tuple(rest)
        future = self._engine._begin(name, args, nargout, streams)
        return future if background else future.result()


def _check_type(value: Any) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            _check_type(inner)
    elif isinstance(value, (list, tuple)) and not isinstance(value, matlab.double):
        for inner in value:
            _check_type(inner)
    elif not isinstance(value, _TYPES):
        raise TypeError(f"unsupported Python data type: {type(value).__name__}")


class MatlabEngine:
    def __init__(self, pipe: Any) -> None:
        self.__dict__.update(_pipe=pipe, _futures={}, _streams={}, _lock=threading.Lock(), _dead=False, _left=False)
        threading.Thread(target=_listen, args=(pipe, self._futures, self._streams, self.__dict__), daemon=True).start()

    def __getattr__(self, name: str) -> MatlabFunc:
        return MatlabFunc(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("attributes cannot be added to MatlabEngine")

    def __del__(self) -> None:
        self.exit()

    def _check_matlab(self) -> bool:
        return not self.__dict__["_left"]

    def exit(self) -> None:
        """Leave; the session was shared by somebody else and lives on."""
        if not self.__dict__["_left"]:
            self._send(("bye", 0))
            self.__dict__["_left"] = True

    quit = exit

    def _begin(self, name: str, args: Any, nargout: int, streams: dict[str, Any]) -> FutureResult:
        if self._dead:
            raise _death()
        number = len(self._futures) + 1
        future = self._futures[number] = FutureResult(self, number)
        self._streams[number] = streams
        if not self._send(("feval", number, name, list(args), nargout)):
            future._fail(_death())
        return future

    def _send(self, message: Any) -> bool:
        try:
            with self._lock:
                self._pipe.send(message)
        except OSError:
            return False
        return True


def _death() -> Exception:
    name = os.environ.get("STANDIN_MATLAB_DEATH", "EngineError")
    return (getattr(builtins, name) if name == "SystemError" else globals()[name])(_GONE)


def _listen(pipe: Any, futures: dict[int, FutureResult], streams: dict[int, Any], engine: dict[str, Any]) -> None:
    """Take what MATLAB says until it is gone; not a method, so that it does not keep the engine alive."""
    while True:
        try:
            kind, number, *rest = pipe.recv()
        except (EOFError, OSError, TypeError):
            break
        if kind == "out":
            stream = streams[number].get(rest[0])
            if stream is not None:
                stream.write(rest[1])
        elif kind == "done":
            futures[number]._set(rest[0])
        else:
            futures[number]._fail(globals()[rest[0]](rest[1]))
    engine["_dead"] = True
    for future in futures.values():
        if not future._over.is_set():
            future._fail(_death())
