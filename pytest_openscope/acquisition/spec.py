"""What an acquisition process is, and its command as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..system import StopPolicy
from .calls import Call

LOGGER = "pytest_openscope.acquisition"
#: What the launcher's acquisition scripts read.
OUTPUT_FOLDER = "OUTPUT_FOLDER"


@dataclass(frozen=True)
class AcquisitionSpec:
    """One acquisition to run: a process, or a call within this process.

    Attributes:
        command: program and arguments; of a call, the words that say what is called.
        call: what is called instead of starting the command.
        name: what it is called in logs and file names.
        cwd: working directory; None for the one of the session.
        env: changes of the environment; a value of None removes the variable.
        timeout_s: stop it after this time.
        process_start_timeout_s: stop it when nothing came on stdout or stderr by then.
        stderr_fails: output on stderr is a failure.
        stderr_stops: ... for which it is stopped, ``stderr_grace_s`` after the first byte.
        stop: how it is stopped.
        echo: show its output on the terminal too.
        good_exit_codes: those that tell of no failure.
        fatal: watches the output: gets ``stdout`` or ``stderr`` and lines of it as they come, and returns the one that tells
            of a fatal error, or "". The run has then failed, whatever its exit code, and is stopped after ``fatal_grace_s``.
        fatal_is_final: tells whether such a line is the end of the run; without it each one is. For others it is not stopped.
        explain_silence: gets the process's number (None for a call), and returns what is known of a run that prints nothing
            within ``process_start_timeout_s``.
    """

    command: tuple[str, ...] = ()
    call: Call | None = None
    name: str = "acquisition"
    cwd: Path | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    timeout_s: float | None = None
    process_start_timeout_s: float | None = None
    stderr_fails: bool = False
    stderr_stops: bool = True
    stderr_grace_s: float = 0.0
    stop: StopPolicy = field(default_factory=StopPolicy)
    echo: bool = False
    good_exit_codes: tuple[int, ...] = (0,)
    fatal: Callable[[str, list[bytes]], str] | None = None
    fatal_is_final: Callable[[str], bool] | None = None
    fatal_grace_s: float = 5.0
    explain_silence: Callable[[int | None], str] | None = None


def output_logger(name: str, stream: str) -> str:
    """Return the logger that the lines of a stream have in the session log; a recovery counts them by it."""
    return f"acquisition.{name}.{stream}"


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
