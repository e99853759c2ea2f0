"""Files that a session holds open from its start to its end, against those who close or delete them meanwhile."""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: Above the numbers that a step's own files get: the system gives out the lowest one that is free.
_APART = 512
_BLOCK = 1 << 20


def keep_apart(fd: int) -> int:
    """Give an open descriptor a high number and return that.

    A step that closes descriptors which are not its own (``os.closerange``, C code that closes one twice) and then opens
    files would otherwise find our lines in one of them.
    """
    if sys.platform == "win32":
        return fd
    import fcntl

    try:
        apart = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _APART)
    except OSError:
        return fd  # The system allows fewer.
    os.close(fd)
    return apart


def is_deleted(fd: int) -> bool:
    """Tell whether the file has lost its name; never on Windows, which deletes no open file."""
    return sys.platform != "win32" and not os.fstat(fd).st_nlink


def put_back(fd: int, path: Path) -> None:
    """Write a deleted file's content once more under its name; readers see all of it or nothing.

    Args:
        fd: the deleted file, readable.

    Raises:
        FileExistsError: another file has the name.
        OSError: the file cannot be written; its folder was deleted too.
    """
    if path.exists():
        raise FileExistsError(17, "another file has taken its place", str(path))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            offset = 0
            while data := _read_at(fd, offset):
                stream.write(data)
                offset += len(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def count_lines(fd: int) -> int:
    """Return the number of lines in an open file."""
    offset = count = 0
    while data := _read_at(fd, offset):
        offset += len(data)
        count += data.count(b"\n")
    return count


def _read_at(fd: int, offset: int) -> bytes:
    if sys.platform == "win32":
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, _BLOCK)
    return os.pread(fd, _BLOCK, offset)
