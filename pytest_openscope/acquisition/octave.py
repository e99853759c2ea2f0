"""GNU Octave as what runs MATLAB code: ``octave-cli --eval CODE``, a process like that of any other acquisition."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from .failures import describe_returncode

_OPTIONS = ("--quiet", "--no-history", "--eval")
#: The exit code that tells of an error of the function; every other one but 0 is Octave's own end.
FUNCTION_FAILED = 70
#: The frames first: the last line on stderr is what a failure is told by, so the message stands there, in one line.
_TELL_ERROR = (
    "for openscope_frame = openscope_error.stack(:)',"
    " fprintf (stderr, 'error:     %s at line %d column %d\\n',"
    " openscope_frame.name, openscope_frame.line, openscope_frame.column); end;"
    " fprintf (stderr, 'error: %s\\n', strrep (openscope_error.message, char (10), ' '));"
)


def octave_command(
    program: str, function: str, arguments: Sequence[Any], nargout: int, folders: Sequence[str]
) -> tuple[str, ...]:
    """Return the command that calls a function; its outputs are shown as Octave shows them, as ``output 1: ...``.

    Raises:
        TypeError: an argument has no equal in Octave.
    """
    names = [f"openscope_{number}" for number in range(1, nargout + 1)]
    path = f"addpath ({_list(folders)}); " if folders else ""
    outputs = f"[{', '.join(names)}] = " if names else ""
    show = "".join(f" printf ('output {number}: '); disp ({name});" for number, name in enumerate(names, 1))
    # No variable but the error's is used after the call: a script may clear them all.
    code = (
        f"page_screen_output (false); try, {path}{outputs}feval ({_list([function, *arguments])});{show} "
        f"catch openscope_error, {_TELL_ERROR} exit ({FUNCTION_FAILED}); end"
    )
    return (program, *_OPTIONS, code)


def why_unusable(program: str, timeout_s: float) -> str:
    """Start Octave and let it end again; return what is wrong with it, or ""."""
    quiet = subprocess.DEVNULL
    try:
        ended = subprocess.run([program, *_OPTIONS, ""], stdin=quiet, stdout=quiet, stderr=quiet, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return f"{program!r} cannot be used {timeout_s:g} s after its start"
    except OSError as error:
        return f"{program!r} cannot be started: {error.strerror or error}; install GNU Octave"
    if ended.returncode:
        return f"{program!r} is no Octave that can be used: it {describe_returncode(ended.returncode)}"
    return ""


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
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(char if char.isprintable() and char not in '"\\' else _octal(char) for char in text) + '"'


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode())
