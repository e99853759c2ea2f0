"""GNU Octave as the engine of MATLAB code: one ``octave-cli``, spoken to over pipes.

Octave reads one line per call on its stdin, as if somebody typed it. When the call is over Octave prints a marker on stdout and
on stderr, so that all output is known to have been read. An interrupt (Ctrl-C) ends the line but not Octave.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, TextIO

from ..system import ProcessTree, StopPolicy, create_time, send_break, start_of_now
from .engines import Engine, EngineDied, EngineInterrupted, EngineUnavailable, FunctionFailed
from .failures import describe_returncode, last_line

logger = logging.getLogger("pytest_openscope.acquisition")

_OPTIONS = ("--quiet", "--no-history", "--no-line-editing", "--interactive")
#: No prompt, no pager; pending output is not held back.
_SET_UP = "PS1 (''); PS2 (''); page_screen_output (false);"
#: A process that has ended leaves this long to the readers of its pipes, which a grandchild may hold open.
_LAST_WORDS_S = 1.0
_BEGIN, _END = "\x1e", "\x1f"


class OctaveEngine(Engine):
    """Starts Octave.

    Args:
        program: ``octave-cli``, or its path.
        environment: of the process.
        start_timeout_s: how long it may take until it can be used.
        interrupt_timeout_s: how long a call may go on after :meth:`interrupt`; then the process is killed.
        kill_s: how long a killed process may take to vanish.

    Raises:
        EngineUnavailable: it does not start.
    """

    def __init__(
        self,
        program: str,
        environment: Mapping[str, str],
        start_timeout_s: float,
        interrupt_timeout_s: float,
        kill_s: float = 5.0,
    ) -> None:
        self._interrupt_timeout_s, self._kill_s = interrupt_timeout_s, kill_s
        self._token = f"{_BEGIN}openscope-{secrets.token_hex(8)}:"
        self._calls = 0
        self._interrupted = False
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._complaints = io.StringIO()  # of its start
        self._begin(None, self._complaints)
        # A new group and session: a Ctrl-C at the terminal is the session's, which passes it on as an interrupt.
        group: dict[str, Any] = {}
        if sys.platform == "win32":
            group["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
        else:
            group["start_new_session"] = True
        try:
            self._process = subprocess.Popen(
                [program, *_OPTIONS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environment),
                bufsize=0,
                **group,
            )
        except OSError as error:
            raise EngineUnavailable(f"{program!r} cannot be started: {error.strerror or error}; install GNU Octave") from error
        self.pid = self._process.pid
        self.create_time = create_time(self.pid) or start_of_now()
        self._threads = [
            threading.Thread(target=self._read, args=(name, pipe), name=f"octave {name}", daemon=True)
            for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr))
        ]
        for thread in self._threads:
            thread.start()
        try:
            self._greet(program, start_timeout_s)
        except BaseException:
            self.close(keep_alive=False)
            raise

    def _greet(self, program: str, timeout_s: float) -> None:
        try:
            self._write(f"{_SET_UP} {self._marker('ready')}\n")
            if self._wait(timeout_s) is None:
                raise EngineUnavailable(f"{program!r} cannot be used {timeout_s:g} s after its start")
        except EngineDied as error:
            said = last_line(self._complaints.getvalue().splitlines())
            raise EngineUnavailable(
                f"{program!r} is no Octave that can be used: {error}{f': {said}' if said else ''}"
            ) from error

    def evaluate(
        self, function: str, arguments: Sequence[Any], nargout: int, folders: Sequence[str], stdout: TextIO, stderr: TextIO
    ) -> None:
        """Call the function; its outputs are shown as Octave shows them."""
        names = [f"openscope_{number}__" for number in range(1, nargout + 1)]
        try:
            path = f"addpath ({_list(folders)});" if folders else ""
            call = f"feval ({_list([function, *arguments])});"
        except TypeError as error:
            raise FunctionFailed(str(error)) from error
        if names:
            call = f"[{', '.join(names)}] = {call}"
        show = "".join(f" printf ('output {n}: '); disp ({name});" for n, name in enumerate(names, 1))
        self._begin(stdout, stderr)
        # No variable but the error lives through the call: a script may clear them all.
        line = (
            f"try, {path} {call}{show} {self._marker('done')} catch openscope_error__, {_TELL_ERROR} "
            f"{self._marker('failed ', 'undo_string_escapes (openscope_error__.message)')} end_try_catch; "
            f"clear openscope_error__ openscope_frame__ {' '.join(names)};\n"
        )
        try:
            ended = "interrupted"
            if not self._interrupted:
                self._write(line)
                ended = self._wait(None) or ended
            if ended.startswith("failed "):
                raise FunctionFailed(_unescape(ended.removeprefix("failed ")))
            if ended != "done":
                raise EngineInterrupted(f"{function} was interrupted")
        finally:
            self._over.set()
            self._sinks.clear()

    def interrupt(self) -> None:
        """Press Ctrl-C, again after half of the time; kill Octave if that does not help."""
        self._interrupted = True
        for _ in range(2):
            if self._over.is_set():
                return
            self._press_ctrl_c()
            with contextlib.suppress(EngineDied):
                self._write(f"{self._marker('interrupted')}\n")
            self._over.wait(self._interrupt_timeout_s / 2)
        if not self._over.is_set():
            logger.warning("Octave (pid %s) does not react to Ctrl-C, and is killed", self.pid)
            self._kill()

    def close(self, keep_alive: bool) -> None:
        """End Octave, which is of no use to anybody else."""
        self._over.set()
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._kill()
        for thread in self._threads:
            thread.join(_LAST_WORDS_S)

    def _press_ctrl_c(self) -> None:
        assert self.pid is not None
        try:
            if sys.platform == "win32":
                send_break(self.pid)
            else:
                os.killpg(self.pid, signal.SIGINT)
        except OSError as error:
            logger.warning("Octave (pid %s) cannot be interrupted: %s", self.pid, error)

    def _kill(self) -> None:
        assert self.pid is not None
        group = None if sys.platform == "win32" else self.pid
        ProcessTree(self.pid, self.create_time, pgid=group).stop(StopPolicy(0.0, 0.0, self._kill_s))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._kill_s)

    # The conversation -------------------------------------------------------------------------------------------------

    def _begin(self, stdout: TextIO | None, stderr: TextIO | None) -> None:
        self._calls += 1
        self._over.clear()
        self._said: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._sinks: dict[str, TextIO | None] = {"stdout": stdout, "stderr": stderr}

    def _marker(self, text: str, more: str = "''") -> str:
        """Return the code that prints the end of the present call, with what is to be said of it, on both streams."""
        head, form = literal(f"{self._token}{self._calls}:{text}"), literal("%s%s" + _END)
        prints = (f"fprintf ({stream}, {form}, {head}, {more}); fflush ({stream});" for stream in ("stdout", "stderr"))
        return " ".join(prints)

    def _write(self, line: str) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        data = memoryview(line.encode("utf-8"))
        try:
            while data:
                data = data[pipe.write(data) or 0 :]
        except (OSError, ValueError) as error:
            raise EngineDied(self._obituary()) from error

    def _wait(self, timeout_s: float | None) -> str | None:
        """Wait for the end of the present call and return what was said of it; None when the time is over.

        Raises:
            EngineDied: Octave has ended.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not all(self._said.values()):
                if self._process.poll() is not None:
                    break
                if deadline_s is not None and time.monotonic() >= deadline_s:
                    return None
                self._changed.wait(0.1)
        if self._process.poll() is not None:
            for thread in self._threads:
                thread.join(_LAST_WORDS_S)
            if not all(self._said.values()):
                raise EngineDied(self._obituary())
        return self._said["stdout"][0]

    def _obituary(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_S)
        for thread in self._threads:
            thread.join(_LAST_WORDS_S)
        code = self._process.returncode
        return f"Octave (pid {self.pid}) {'does not listen any more' if code is None else describe_returncode(code)}"

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while True:
            try:
                data = os.read(pipe.fileno(), 65536)
            except (OSError, ValueError):
                data = b""
            rest += decoder.decode(data, final=not data)
            rest = self._take(name, rest, last=not data)
            if not data:
                break
        with self._changed:
            self._changed.notify_all()

    def _take(self, name: str, text: str, last: bool) -> str:
        """Hand on the output, note the markers in it, and return what may be the beginning of one."""
        while True:
            before, found, after = text.partition(self._token)
            if not found:
                break
            body, ended, after = after.partition(_END)
            if not ended:
                break
            self._put(name, before)
            call, _, said = body.partition(":")
            with self._changed:
                if call == str(self._calls):
                    self._said[name].append(said)
                    self._changed.notify_all()
            text = after
        begin = len(text) if last else _start_of(self._token, text)
        self._put(name, text[:begin])
        return text[begin:]

    def _put(self, name: str, text: str) -> None:
        sink = self._sinks.get(name)
        if sink is not None and text:
            # A stream that cannot be written (a full disk) must not keep Octave waiting at a full pipe.
            with contextlib.suppress(OSError, ValueError):
                sink.write(text)
                sink.flush()


#: Prints an error as Octave itself does.
_TELL_ERROR = (
    "fprintf (stderr, 'error: %s\\n', openscope_error__.message);"
    " for openscope_frame__ = openscope_error__.stack(:)', fprintf (stderr, 'error:     %s at line %d column %d\\n',"
    " openscope_frame__.name, openscope_frame__.line, openscope_frame__.column); end;"
)


def _start_of(token: str, text: str) -> int:
    """Return where a token begins that the text holds, or may hold when more of it is there; its length for nowhere."""
    at = text.find(token)
    if at >= 0:
        return at
    at = text.rfind(token[0])
    return at if at >= 0 and token.startswith(text[at:]) else len(text)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text, flags=re.DOTALL)


def literal(value: Any) -> str:
    """Return a value as Octave code, of the type that MATLAB's engine makes of it.

    Raises:
        TypeError: it has no equal.
    """
    if value is None:
        return "[]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"int64 ({value})"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else {"nan": "NaN", "inf": "Inf", "-inf": "-Inf"}[str(value)]
    if isinstance(value, (str, os.PathLike)):
        return _quoted(os.fspath(value))
    if isinstance(value, Mapping):
        return f"struct ({', '.join(f'{_quoted(str(name))}, {{{literal(one)}}}' for name, one in value.items())})"
    if isinstance(value, (list, tuple)):
        return f"{{{_list(value)}}}"
    raise TypeError(f"{type(value).__name__} has no equal in Octave: {value!r:.60}")


def _list(values: Sequence[Any]) -> str:
    return ", ".join(literal(one) for one in values)


def _quoted(text: str) -> str:
    return '"' + "".join(char if char.isprintable() and char not in '"\\' else _octal(char) for char in text) + '"'


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode())
