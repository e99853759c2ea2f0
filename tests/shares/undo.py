"""Undoes what a test has set up on the machine, also when the test dies: a process of its own that outlives it.

Run as ``python undo.py`` with a pipe as stdin. Each line names one thing to undo: ``group <process group>``, ``mount <path>``
or ``folder <path>``; ``gone <process group>`` takes one back. When the pipe ends, however that came about, everything is
undone, the latest first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO


def end_group(group: int) -> None:
    """Kill the processes of a group, stopped ones too, and wait until the last one has gone."""
    deadline = time.monotonic() + 20
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, signal.SIGKILL)
            os.killpg(group, signal.SIGCONT)
            # A zombie still counts until its parent, the test, has waited for it or died.
            if all(line.split()[-1].startswith("Z") for line in members(group)):
                return
            time.sleep(0.02)


def members(group: int) -> list[str]:
    """Return ``pid state`` of the processes of a group."""
    listed = subprocess.run(["ps", "-eo", "pgid=,pid=,stat="], capture_output=True, text=True, check=True).stdout
    return [line.split(None, 1)[1] for line in listed.splitlines() if int(line.split()[0]) == group]


def unmount(path: str) -> None:
    """Take a mount away at once, whoever still uses it."""
    if os.path.ismount(path) or path in Path("/proc/mounts").read_text(encoding="utf-8"):
        subprocess.run(["umount", "-l", path], check=False, capture_output=True)


class Undo:
    """What is to be undone; the process that does it is started with the first thing."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, start_new_session=True, cwd="/", stdout=subprocess.DEVNULL
        )
        assert self.process.stdin is not None
        self._pipe: IO[bytes] = self.process.stdin

    def later(self, what: str, which: object) -> None:
        """Note one thing."""
        self._pipe.write(f"{what} {which}\n".encode())
        self._pipe.flush()

    def now(self) -> None:
        """Undo everything."""
        self._pipe.close()
        assert self.process.wait(60) == 0


def main() -> None:
    """Collect until the pipe ends, then undo."""
    things: list[tuple[str, str]] = []
    for line in sys.stdin:
        what, which = line.rstrip("\n").split(" ", 1)
        if what == "gone":
            things.remove(("group", which))
        else:
            things.append((what, which))
    for what, which in reversed(things):
        if what == "group":
            end_group(int(which))
        elif what == "mount":
            unmount(which)
        else:
            shutil.rmtree(which, ignore_errors=True)


if __name__ == "__main__":
    # The test's own Ctrl-C is not ours: the pipe's end comes a little later.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
