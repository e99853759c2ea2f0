"""Files that others may read while they are replaced, and files that are held open for a whole session."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

T = TypeVar("T")

#: Windows refuses to replace, rename, remove or open a file that somebody holds without sharing it: a virus scanner looks at
#: each new file, an indexer at each changed one, and most let go within this time.
SHARING_RETRY_S = 5.0
#: For a file that is read: it may be one of thousands in folders that are closed to us for good.
READ_RETRY_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25
#: Above the numbers that a step's own files get: the system gives out the lowest one that is free.
_APART = 512
_BLOCK = 1 << 20


def patiently(action: Callable[[], T], wait_s: float = SHARING_RETRY_S) -> T:
    """Call what opens, renames or removes a file; on Windows wait for up to ``wait_s`` until nobody holds it against us.

    Windows reports a file that is held, one about to vanish and a missing right alike, so the last of them is waited for too.

    Raises:
        OSError: what the last try raised.
    """
    deadline, pause_s = time.monotonic() + wait_s, _FIRST_PAUSE_S
    while True:
        try:
            return action()
        except OSError as error:
            # A folder is not empty as long as somebody holds a file of it that was removed.
            if sys.platform != "win32" or error.errno not in (errno.EACCES, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def replace_file(source: Path, target: Path) -> None:
    """``os.replace``, :func:`patiently`."""
    patiently(partial(os.replace, source, target))


def remove_file(path: Path) -> None:
    """Remove a file that may be missing, :func:`patiently`."""
    patiently(partial(path.unlink, missing_ok=True))


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, :func:`patiently`; what is read-only (git's objects) goes too.

    Raises:
        OSError: something of it stays.
    """

    def writable(function: Callable[[str], object], path: str, _: object) -> None:
        # Windows takes a read-only file for one that may not be removed.
        os.chmod(path, 0o700)  # noqa: PTH101 - rmtree gives texts
        function(path)

    if sys.version_info >= (3, 12):
        patiently(partial(shutil.rmtree, folder, onexc=writable))
    else:
        patiently(partial(shutil.rmtree, folder, onerror=writable))


def make_private_folder(path: Path) -> None:
    """Make a folder that belongs to this user alone, with its parents; one that others may write to is shared on purpose.

    On Windows a user's profile, where such folders are, is closed to others by itself.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform != "win32":
        facts = path.stat()
        if facts.st_uid == os.getuid() and facts.st_mode & 0o077 and not facts.st_mode & 0o022:
            path.chmod(0o700)


def write_atomic(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part; it is on the disk on return.

    Args:
        private: nobody but this user may read it (POSIX; on Windows the folder decides). A file that exists keeps its mode.

    Raises:
        OSError: the disk is full or the folder is not writable; the old content stays and no temporary file is left.
    """
    with _replacing(path, 0o600 if private else 0o666) as stream:
        stream.write(data)


@contextlib.contextmanager
def _replacing(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Lend a temporary file that takes the path's place, whole and on the disk; an existing one's mode stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode & 0o777
    try:
        with open(temporary, "wb", opener=partial(os.open, mode=mode)) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        replace_file(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove_file(temporary)
        raise


def json_bytes(value: Any, default: Callable[[Any], Any] = str, indent: int | None = 2) -> bytes:
    """Return UTF-8 JSON that any reader accepts, with a newline: lone surrogates escaped, NaN and infinities as null."""
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, default=default, allow_nan=False)
    except ValueError:  # NaN or infinity
        finite = json.loads(json.dumps(value, default=default), parse_constant=lambda _: None)
        text = json.dumps(finite, indent=indent, ensure_ascii=False)
    return f"{text}\n".encode("utf-8", "backslashreplace")


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write ``value`` as JSON with :func:`write_atomic`."""
    write_atomic(path, json_bytes(value), private=private)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None when it is missing, unreadable or something else."""
    try:
        value = json.loads(patiently(partial(path.read_text, encoding="utf-8"), READ_RETRY_S))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def update_json(path: Path, mutate: Callable[[dict[str, Any]], None]) -> bool:
    """Change a JSON file atomically; False (and untouched) when it cannot be read.

    Raises:
        OSError: the new content cannot be written; the old content stays.
    """
    value = read_json(path)
    if value is None:
        return False
    mutate(value)
    write_json(path, value)
    return True


def native_path(text: str) -> Path:
    """Return a path written with either slash; files of a Windows rig are tried out on other systems too."""
    return Path(text if sys.platform == "win32" else text.replace("\\", "/"))


def keep_apart(fd: int) -> int:
    """Give an open descriptor a high number and return that.

    A step that closes descriptors which are not its own and then opens files would otherwise find our lines in one of them.
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
    """Write the content of a deleted file that is still open once more under its name; readers see all of it or nothing.

    Raises:
        FileExistsError: another file has the name.
        OSError: the file cannot be written; its folder was deleted too.
    """
    if path.exists():
        raise FileExistsError(17, "another file has taken its place", str(path))
    with open(fd, "rb", closefd=False) as deleted, _replacing(path, 0o666) as stream:
        deleted.seek(0)
        shutil.copyfileobj(deleted, stream)


def count_lines(fd: int) -> int:
    """Return the number of lines in an open file."""
    with open(fd, "rb", closefd=False) as stream:
        stream.seek(0)
        return sum(block.count(b"\n") for block in iter(partial(stream.read, _BLOCK), b""))
