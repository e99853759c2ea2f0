"""Commands as people type them, in the way of the platform."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence


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


def command_line(command: Sequence[str]) -> str:
    """Return the command as one would type it; on Windows in PowerShell 5 and 7, and in ``cmd`` where that is possible."""
    if sys.platform == "win32":
        return " ".join(map(typed_on_windows, command))
    return shlex.join(command)


def typed_on_windows(argument: str) -> str:
    """Return an argument as PowerShell and ``cmd`` take it.

    Double quotes mean the same to both, but PowerShell replaces ``$`` and backticks within: only its own quotes keep these.
    A double quote within is kept by neither for certain (PowerShell 5 drops it), so it is left as the C runtime wants it.
    """
    if re.fullmatch(r"[\w\-./\\:=+]+", argument):
        return argument
    if "$" in argument or "`" in argument:
        return "'" + argument.replace("'", "''") + "'"
    quoted = subprocess.list2cmdline([argument])
    return quoted if quoted.startswith('"') and quoted.endswith('"') and len(quoted) > 1 else f'"{quoted}"'
