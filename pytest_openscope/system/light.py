"""Starting helper processes that are ready within milliseconds: an isolated interpreter without ``site``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

#: Runs in the helper: argv[1] holds the import paths to add as JSON, argv[2] the module, whose ``main(args)`` gets the rest.
_BOOT = (
    "import sys,json;sys.path[:0]=json.loads(sys.argv[1]);from importlib import import_module;"
    "sys.exit(import_module(sys.argv[2]).main(sys.argv[3:]))"
)


def package_parent() -> str:
    """Return the folder to put on ``sys.path`` so that this package can be imported without ``site``."""
    return str(Path(__file__).resolve().parent.parent.parent)


def light_command(module: str, args: Sequence[str], extra_paths: Sequence[str] = ()) -> list[str]:
    """Return the command that runs ``module.main(args)`` with ``-I -S``: standard library and this package only.

    On Windows the base interpreter is used, since a virtual environment's ``python.exe`` only starts that one and waits: a
    kill would hit the wrong process.
    """
    executable = sys.executable
    if sys.platform == "win32":
        executable = getattr(sys, "_base_executable", None) or executable
    return [executable, "-I", "-S", "-c", _BOOT, json.dumps([package_parent(), *extra_paths]), module, *args]


def spawn_light(
    module: str,
    args: Sequence[str],
    *,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    extra_paths: Sequence[str] = (),
    cwd: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``module.main(args)`` in a helper that no Ctrl-C of the terminal reaches.

    Raises:
        OSError: the process cannot be created.
    """
    return spawn_detached(light_command(module, args, extra_paths), stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd)


def spawn_detached(
    command: Sequence[str],
    *,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    cwd: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session (Windows: process group, without console window) of its own.

    On Windows it leaves the job that it would be born into, where that job lets it: what ends a job ends all in it.
    """
    import subprocess

    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        streams: dict[str, Any] = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        try:
            return subprocess.Popen(command, **streams, cwd=cwd, creationflags=flags | subprocess.CREATE_BREAKAWAY_FROM_JOB)
        except PermissionError:
            return subprocess.Popen(command, **streams, cwd=cwd, creationflags=flags)
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, start_new_session=True)
