"""A mirror worker on a faulty share: ``os`` calls on files below the central directory fail as a control file says.

Run as ``python -I mirror_faults.py <package parent> <control file> <job>``. The control file holds JSON, read at every call:

* ``all``: what every call does now: ``hang``, ``missing``, ``erofs``, or a number of seconds to wait.
* ``faults``: a list of ``{"op", "file", "nth", "do"}``: what the ``nth`` call (from 0, counted per process) of ``op``
  (``write``, ``fsync``, ``lseek_end``, ``replace``) does to ``file`` (``day``, ``own`` or ``any``): ``eio``, ``part_eio``
  (half is written), ``all_eio``, ``short`` (half is written, no error), ``enospc``, ``short_enospc``, ``hang``, ``die``,
  ``stale`` (a length of 100 bytes ago). ``times``: for how many calls (1).
* ``interval_s``: how often the day's log is written, ``rest``: at least so many times the last turn (read at the start).
* ``split``: every write takes half of its data, and waits as ``all`` says.
* ``locks``: ``always`` makes every lock succeed.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path

PARENT, CONTROL, JOB = sys.argv[1:4]
sys.path.insert(0, PARENT)
ROOT = json.loads(JOB)["mirror_directory"]

real = {
    name: getattr(os, name)
    for name in ("open", "close", "write", "read", "fsync", "lseek", "stat", "mkdir", "replace", "ftruncate", "scandir")
}
watched: dict[int, str] = {}
counts: dict[tuple[str, str], int] = {}


def control() -> dict:
    fd = real["open"](CONTROL, os.O_RDONLY)
    try:
        return json.loads(real["read"](fd, 100_000) or b"{}")
    finally:
        real["close"](fd)


def general() -> None:
    while True:
        what = control().get("all")
        if what == "hang":
            time.sleep(0.02)
            continue
        if isinstance(what, (int, float)):
            time.sleep(what)
        if what == "missing":
            raise OSError(errno.EHOSTDOWN, "Host is down")
        if what == "erofs":
            raise OSError(errno.EROFS, "Read-only file system")
        return


def fault(op: str, fd: int) -> str:
    general()
    kind = watched.get(fd, "")
    for name in (kind, "any"):
        number = counts[op, name] = counts.get((op, name), -1) + 1
        for entry in control().get("faults", ()):
            first = entry.get("nth", 0)
            if entry["op"] == op and entry["file"] == name and first <= number < first + entry.get("times", 1):
                return entry["do"]
    return ""


def act(do: str) -> None:
    if do == "die":
        os.kill(os.getpid(), 9)
    if do == "hang":
        while True:
            time.sleep(1)
    if do.endswith("enospc"):
        raise OSError(errno.ENOSPC, "No space left on device")
    if do.endswith("eio"):
        raise OSError(errno.EIO, "Input/output error")


def below(path: object) -> bool:
    return str(path) == ROOT or str(path).startswith(ROOT + os.sep)


def open_(path, flags, mode=0o777, **more):
    if not below(path):
        return real["open"](path, flags, mode, **more)
    general()
    fd = real["open"](path, flags, mode, **more)
    name = Path(path).name
    depth = str(path)[len(ROOT) :].count(os.sep)
    watched[fd] = ("day" if depth == 4 else "own") if name.startswith("launcher") else "metadata"
    return fd


def close_(fd):
    watched.pop(fd, None)
    real["close"](fd)


def write_(fd, data):
    if fd not in watched:
        return real["write"](fd, data)
    do = fault("write", fd)
    data = bytes(data)
    if do in ("part_eio", "short_enospc", "short", "die"):
        count = real["write"](fd, data[: max(1, len(data) // 2)])
        if do == "short":
            return count
    if do == "all_eio":
        real["write"](fd, data)
    act(do)
    if len(data) > 1 and control().get("split"):
        count = real["write"](fd, data[: len(data) // 2])
        general()
        return count
    return real["write"](fd, data)


def fsync_(fd):
    if fd in watched:
        act(fault("fsync", fd))
    real["fsync"](fd)


def lseek_(fd, offset, whence):
    if fd in watched and whence == os.SEEK_END and fault("lseek_end", fd) == "stale":
        end = real["lseek"](fd, 0, whence)
        return real["lseek"](fd, max(0, end - 100), os.SEEK_SET)
    return real["lseek"](fd, offset, whence)


def guarded(name):
    def call(first, *args, **more):
        if first in watched if isinstance(first, int) else below(first):
            general()
        return real[name](first, *args, **more)

    return call


def replace_(source, target, **more):
    if below(target):
        act(fault("replace", -1))
    return real["replace"](source, target, **more)


os.open, os.close, os.write, os.fsync, os.lseek, os.replace = open_, close_, write_, fsync_, lseek_, replace_
for _name in ("read", "stat", "mkdir", "ftruncate", "scandir"):
    setattr(os, _name, guarded(_name))

if control().get("locks") == "always":
    import fcntl

    fcntl.lockf = lambda *_args: None

from pytest_openscope.mirror import day_log  # noqa: E402
from pytest_openscope.mirror import worker as mirror_worker  # noqa: E402
from pytest_openscope.mirror.worker import main  # noqa: E402
from pytest_openscope.system import Retry  # noqa: E402

mirror_worker.Retry = lambda: Retry(0.1, 0.5, 0.5)
day_log.INTERVAL_S = 0.3
if "interval_s" in control():
    day_log.INTERVAL_S, day_log.REST_FACTOR = control()["interval_s"], control().get("rest", 0.0)

sys.exit(main([JOB]))
