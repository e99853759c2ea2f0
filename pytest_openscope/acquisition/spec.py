"""What an acquisition process is, and the ways in which one fails."""

from __future__ import annotations

import os
import re
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..records import AcquisitionFacts
from ..system import StopPolicy

if TYPE_CHECKING:
    from typing_extensions import Self

LOGGER = "pytest_openscope.acquisition"
#: What the launcher's acquisition scripts read.
OUTPUT_FOLDER = "OUTPUT_FOLDER"

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


@dataclass(frozen=True)
class AcquisitionSpec:
    """One acquisition process to run.

    Attributes:
        command: program and arguments.
        name: what it is called in logs and file names.
        cwd: working directory; None for the one of the session.
        env: changes of the environment; a value of None removes the variable.
        timeout_s: stop it after this time.
        process_start_timeout_s: stop it when nothing came on stdout or stderr by then.
        stderr_fails: output on stderr is a failure: it is stopped ``stderr_grace_s`` after the first byte.
        stop: how it is stopped.
        echo: show its output on the terminal too.
    """

    command: tuple[str, ...] = ()
    name: str = "acquisition"
    cwd: Path | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    timeout_s: float | None = None
    process_start_timeout_s: float | None = None
    stderr_fails: bool = False
    stderr_grace_s: float = 0.0
    stop: StopPolicy = field(default_factory=StopPolicy)
    echo: bool = False


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


class Block(ABC):
    """A running program as a context manager: leaving the block stops it."""

    @abstractmethod
    def stop(self, reason: str = "asked to stop", wait: bool = True) -> None:
        """Stop the program and everything that it started."""

    @abstractmethod
    def check(self, *, stopped_is_failure: bool = True) -> None:
        """Raise AcquisitionFailed if it failed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        if error is not None:
            self.stop(reason_of(error))
            return
        self.stop("the step no longer needs it")
        self.check(stopped_is_failure=False)


def output_logger(name: str, stream: str) -> str:
    """Return the logger that the lines of a stream have in the session log; a recovery counts them by it."""
    return f"acquisition.{name}.{stream}"


def split_command(command: str | os.PathLike[str] | Sequence[object]) -> tuple[str, ...]:
    """Return program and arguments; no shell is involved.

    A text is split as the platform's shell would split it (quotes group; on Windows a backslash is just a character).

    Raises:
        ValueError: the text has an open quote.
    """
    if isinstance(command, os.PathLike):
        return (os.fspath(command),)
    if not isinstance(command, str):
        return tuple(os.fspath(part) if isinstance(part, os.PathLike) else str(part) for part in command)
    if sys.platform != "win32":
        import shlex

        return tuple(shlex.split(command))
    return tuple(split_windows(command))


def split_windows(text: str) -> list[str]:
    r"""Split a text at blanks; double quotes group, also within a word (``--out="D:\my data"``), single ones a whole word.

    A backslash is just a character, so that a quoted folder may end in one.

    Raises:
        ValueError: a double quote is not closed.
    """
    parts = re.findall(r"""\s+|'[^']*'(?!\S)|(?:[^\s"]|"[^"]*")+|".*""", text, re.DOTALL)
    words = []
    for part in parts:
        if part.count('"') % 2:
            raise ValueError("No closing quotation")
        if not part.isspace():
            whole = len(part) > 1 and part[0] == part[-1] == "'"
            words.append(part[1:-1] if whole else part.replace('"', ""))
    return words


#: Programs that run what an argument names.
_INTERPRETER = re.compile(r"(?i)(?:python|pythonw|py|pypy)[\d.]*t?|bonsai")
#: Options of Python that take the next argument as their value.
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def name_of_command(command: Sequence[str]) -> str:
    """Return what a command runs, as a name: the stem of a script or workflow, a module's name, else the program's stem.

    How the interpreter is called says nothing about an acquisition (``python``, ``python3.11``, ``py -3``): ``-c`` and an
    interpreter alone are ``python``. "" for no command.
    """
    if not command:
        return ""
    program = _stem(command[0])
    if not _INTERPRETER.fullmatch(program):
        return program
    arguments = iter(command[1:])
    for argument in arguments:
        if argument == "-m":
            return next(arguments, "python")
        if argument in ("-c", "-"):
            break
        if argument in _WITH_VALUE:
            next(arguments, None)
        elif not argument.startswith("-"):
            return _stem(argument)
    return "bonsai" if program.lower() == "bonsai" else "python"


def _stem(path: str) -> str:
    name = re.split(r"[\\/]", path)[-1]
    return re.sub(r"(?i)\.(?:exe|com|bat|cmd|pyw?|bonsai|sh)$", "", name)


def command_line(command: Sequence[str]) -> str:
    """Return the command as one would type it."""
    if sys.platform == "win32":
        import subprocess

        return subprocess.list2cmdline(command)
    import shlex

    return shlex.join(command)


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
