"""Many small files, copied to folders by processes that do nothing else.

The system calls for a small file take microseconds each, and threads of one interpreter spend as long on handing it to each
other. So each worker thread of the engine has a :class:`Helper`: this file run as a script, without the package, ready at once.

It makes the plain copies only: nothing is at the place, nothing is left of an earlier run, the original is what it was.
Each is written under its partial name, brought to the disk, read back from there, and given its name. Everything else,
errors included, it leaves to the engine, which goes on with whatever it finds.
A helper ends at once when the process that started it has ended, however that came.
"""

from __future__ import annotations

import errno
import functools
import gc
import hashlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, cast

BINARY = getattr(os, "O_BINARY", 0)
#: Systems and shares without hard links, or without a rename that replaces nothing, answer like this.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EXDEV}
#: After so long the copies made so far are brought to the disk and reported.
_GROUP_S = 1.0
#: Copies whose reading back has begun while one is compared; each is an open file.
_AHEAD = 64
_PR_SET_PDEATHSIG = 1
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
#: After so many failures in a row a target is left to the engine.
_HOPELESS = 8

#: What a helper is asked for: name, size, time of the original in ns, numbers of the targets that lack it.
Wanted = tuple[str, int, int, list[int]]
#: What it made, for each target: numbers of the files in the request, and their checksums as read back.
Made = list[tuple[list[int], list[str]]]


class Hash(Protocol):
    """A checksum that grows."""

    def update(self, data: Any, /) -> object:
        """Take in a block."""

    def hexdigest(self) -> str:
        """Return the checksum so far."""


def new_hash(algo: str) -> Hash:
    """Return a new checksum of ``xxh3`` (128 bits) or of any algorithm of hashlib."""
    if algo == "xxh3":
        import xxhash

        return xxhash.xxh3_128()
    return hashlib.new(algo)


def partial_name(name: str, salt: str) -> str:
    """Return the name of a copy under way, of fixed length, since that of the file may be as long as names can be."""
    folder, slash, _ = name.rpartition("/")
    tag = hashlib.blake2b(f"{salt}\n{name}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{folder}{slash}.openscope-{tag}.partial"


def give_name(partial: str, final: str) -> None:
    """Rename without replacing.

    Raises:
        FileExistsError: the name is taken.
    """
    if sys.platform == "win32":
        os.rename(partial, final)  # noqa: PTH104 - fails there when the name is taken
        return
    if _rename_new(partial, final):
        return
    try:
        os.link(partial, final)  # fails when the name is taken, which ``rename`` of POSIX does not
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A share without hard links: take the name first, with an empty file of ours.
        os.close(os.open(final, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.replace(partial, final)
        return
    os.unlink(partial)  # noqa: PTH108


def _rename_new(partial: str, final: str) -> bool:
    """Rename in one step that fails when the name is taken; False where the system or the share has no such call."""
    call = _linux_call("renameat2")
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(partial), _AT_FDCWD, os.fsencode(final), _RENAME_NOREPLACE) == 0:
        return True
    error = _last_error(final)
    if error.errno in _NO_LINKS:
        return False
    raise error


def sync_file_system(folder: str) -> bool:
    """Bring a file system's writes to the disk in one call; False where there is no such call."""
    call = _linux_call("syncfs")
    if call is None:
        return False
    fd = os.open(folder, os.O_RDONLY)
    try:
        if call(fd) != 0:
            raise _last_error(folder)
    finally:
        os.close(fd)
    return True


@functools.cache
def _linux_call(name: str) -> Callable[..., int] | None:
    """Return a system call of Linux that Python has no function for; None where there is none."""
    if sys.platform != "linux":
        return None
    import ctypes

    return cast("Callable[..., int] | None", getattr(ctypes.CDLL(None, use_errno=True), name, None))


def _last_error(path: str) -> OSError:
    import ctypes

    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


class Helper:
    """The helper process of one thread.

    Args:
        root: the folder with the originals.
        places: the targets' folders, each with the salt of its partial names.

    Raises:
        OSError: the process cannot be created.
    """

    def __init__(self, root: str, algo: str, places: Sequence[tuple[str, str]]) -> None:
        import subprocess

        import psutil

        from ...system import isolated_python, lines_of, spawn_detached

        self._process = spawn_detached([*isolated_python(), __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        if sys.platform == "win32":  # elsewhere it is born with the priorities of this process
            try:
                psutil.Process(self._process.pid).ionice(cast("Any", psutil.Process().ionice()))
            except (psutil.Error, OSError):
                pass
        assert self._process.stdout is not None
        self._answers = lines_of(self._process.stdout.fileno())
        self._first: Any = {
            "pid": os.getpid(),
            "paths": [one for one in sys.path if one],
            "root": root,
            "algo": algo,
            "places": places,
        }

    def copy(self, files: Sequence[Wanted]) -> Iterator[Made]:
        """Copy files; yield what was made, as it is made. What is never named was not made.

        Raises:
            OSError: the process has ended.
        """
        if self._first is not None:
            self._send(self._first)
            self._first = None
        self._send(files)
        for line in self._answers:
            answer = json.loads(line)
            if answer is None:
                return
            yield [(numbers, checksums) for numbers, checksums in answer]
        raise OSError(errno.EPIPE, "the helper process has ended")

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        data = memoryview(json.dumps(message).encode("ascii") + b"\n")
        while data:
            data = data[self._process.stdin.write(data) or 0 :]

    def kill(self) -> None:
        """End it wherever it is; from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End it and let go of it."""
        import subprocess

        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:  # it hangs in a share that is away; the system ends it
            self._process.returncode = -9


# -- in the helper process ---------------------------------------------------------------------------------------------


class _Place:
    """A target's folder as the helper sees it."""

    def __init__(self, root: str, salt: str) -> None:
        self.root, self._salt = root, salt
        self._fresh: dict[str, bool] = {}
        self.failures = 0

    def _path(self, name: str) -> str:
        return self.root + os.sep + (name if os.sep == "/" else name.replace("/", os.sep))

    def final(self, name: str) -> str:
        return self._path(name)

    def _is_fresh(self, folder: str) -> bool:
        """Make a folder where there is none; tell whether it is new, so that nothing can be in the way there."""
        fresh = self._fresh.get(folder)
        if fresh is None:
            path = self._path(folder) if folder else self.root
            fresh = not os.path.isdir(path)  # noqa: PTH112
            os.makedirs(path, exist_ok=True)  # noqa: PTH103
            self._fresh[folder] = fresh
        return fresh

    def write(self, name: str, data: bytes, mtime_ns: int) -> str | None:
        """Write a copy under its partial name and return its path; None when something is in the way."""
        if not self._is_fresh(name.rpartition("/")[0]) and os.path.lexists(self.final(name)):
            return None
        partial = self._path(partial_name(name, self._salt))
        try:
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
        except FileExistsError:
            return None
        try:
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, "was not written as a whole")
            if os.utime in os.supports_fd:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            if sys.platform != "linux":
                os.fsync(fd)
        finally:
            os.close(fd)
        if os.utime not in os.supports_fd:
            os.utime(partial, ns=(mtime_ns, mtime_ns))
        return partial


class _Written(NamedTuple):
    """A file whose copies are written, and not yet known to be right."""

    number: int
    name: str
    size: int
    checksum: str
    partials: dict[int, str]


class _Copier:
    """Makes the copies."""

    def __init__(self, root: str, algo: str, places: Iterable[tuple[str, str]]) -> None:
        self._root, self._algo = root, algo
        self._places = [_Place(*place) for place in places]

    def copy(self, files: Sequence[Wanted]) -> Iterator[Made]:
        for place in self._places:
            place.failures = 0
        written: list[_Written] = []
        began_s = time.monotonic()
        for number, (name, size, mtime_ns, lacking) in enumerate(files):
            data = self._read(name, size, mtime_ns)
            if data is None:
                continue
            partials = {one: partial for one in lacking if (partial := self._write(self._places[one], name, data, mtime_ns))}
            if partials:
                written.append(_Written(number, name, size, self._checksum(data), partials))
            if time.monotonic() - began_s >= _GROUP_S:
                yield self._verify(written)
                written = []
                began_s = time.monotonic()
        yield self._verify(written)

    def _checksum(self, data: bytes) -> str:
        digest = new_hash(self._algo)
        digest.update(data)
        return digest.hexdigest()

    def _read(self, name: str, size: int, mtime_ns: int) -> bytes | None:
        """Return an original's content, if it still is what it was when the folder was looked through."""
        try:
            fd = os.open(self._root + os.sep + name.replace("/", os.sep), os.O_RDONLY | BINARY)
            try:
                data = os.read(fd, size + 1)
                facts = os.fstat(fd)
            finally:
                os.close(fd)
        except OSError:
            return None
        return data if len(data) == size and (facts.st_size, facts.st_mtime_ns) == (size, mtime_ns) else None

    def _write(self, place: _Place, name: str, data: bytes, mtime_ns: int) -> str | None:
        if place.failures >= _HOPELESS:
            return None
        try:
            partial = place.write(name, data, mtime_ns)
        except OSError:
            place.failures += 1
            return None
        place.failures = 0
        return partial

    def _verify(self, written: Sequence[_Written]) -> Made:
        """Bring copies to the disk, read them back, and give the right ones their names."""
        made: Made = []
        for which, place in enumerate(self._places):
            right = self._named(which, place, [one for one in written if which in one.partials])
            made.append(([one.number for one in right], [one.checksum for one in right]))
        return made

    def _named(self, which: int, place: _Place, written: Sequence[_Written]) -> list[_Written]:
        """Return those of one target's copies that turned out right and have their names now."""
        try:
            # Of other systems each file is on the disk already; a Linux without this call leaves all to the engine.
            if not written or (not sync_file_system(place.root) and sys.platform == "linux"):
                return []
        except OSError:
            return []
        back = _read_back((one.partials[which], one.size) for one in written)
        return [
            one
            for one, data in zip(written, back, strict=True)
            if data is not None
            and self._publish(one.partials[which], place.final(one.name), self._checksum(data) == one.checksum)
        ]

    def _publish(self, partial: str, final: str, is_right: bool) -> bool:
        try:
            if is_right:
                try:
                    give_name(partial, final)
                except FileExistsError:
                    is_right = False
            if not is_right:
                os.unlink(partial)  # noqa: PTH108
        except OSError:
            return False
        return is_right


def _read_back(copies: Iterable[tuple[str, int]]) -> Iterator[bytes | None]:
    """Yield what the disk holds of each copy; None for one that cannot be read. The disk is asked for many at a time."""
    asked: deque[tuple[int | None, int]] = deque()
    for path, size in copies:
        asked.append((_ask(path), size))
        if len(asked) > _AHEAD:
            yield _take(*asked.popleft())
    while asked:
        yield _take(*asked.popleft())


def _ask(path: str) -> int | None:
    """Open a copy, let the system forget what it remembers of it, and begin to read it."""
    try:
        fd = os.open(path, os.O_RDONLY | BINARY)
    except OSError:
        return None
    if sys.platform == "linux":
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
        except OSError:
            os.close(fd)
            return None
    return fd


def _take(fd: int | None, size: int) -> bytes | None:
    if fd is None:
        return None
    try:
        return os.read(fd, size + 1)
    except OSError:
        return None
    finally:
        os.close(fd)


def _listen(requests: queue.SimpleQueue[Any]) -> None:
    """Take in requests; end the process when nobody can send any more."""
    rest = b""
    while True:
        try:
            data = os.read(0, 1 << 16)
        except OSError:
            data = b""
        if not data:
            os._exit(0)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            requests.put(json.loads(line))


def _die_with(pid: int) -> None:
    """Let Linux kill this process in the moment in which its parent dies; elsewhere :func:`_listen` ends it a moment later."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != pid:
            os._exit(0)


def main() -> None:
    """Work until the process that asks has ended, or lets go."""
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    first = requests.get()
    sys.path += first["paths"]
    _die_with(first["pid"])
    gc.disable()  # nothing here refers to itself
    copier = _Copier(first["root"], first["algo"], first["places"])
    while True:
        for made in copier.copy(requests.get()):
            _answer(made)
        _answer(None)


def _answer(message: Any) -> None:
    data = memoryview(json.dumps(message).encode("ascii") + b"\n")
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main()
