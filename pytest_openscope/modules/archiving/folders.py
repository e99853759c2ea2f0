"""Targets that are folders, and the helper processes that fill them with many small files.

A copy is written under a name of its own (``.openscope-….partial``) beside its place, brought to the disk, read back, and only
then given its name, in a step that never replaces what is there. A copy that was interrupted is gone on with: what is there is
compared with the original block by block, and writing begins where they differ.

The system calls for a small file take microseconds each, and threads of one interpreter spend as long on handing it to each
other. So each worker thread of the engine has a :class:`Helper`: this file run as a script, without the package, ready at once.
It makes the plain copies only: nothing is at the place, the original is what it was. Everything else, errors included, it
leaves to the engine, which goes on with whatever it finds. It ends when the process that started it ends, however that comes.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, cast

BLOCK_BYTES = 4 * 1024 * 1024
BINARY = getattr(os, "O_BINARY", 0)
_SEND_BYTES = 32 * 1024 * 1024
#: Systems and shares without hard links, or without a rename that replaces nothing, answer like this.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EXDEV}
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
#: After so long the copies that a helper has made so far are brought to the disk and reported.
_GROUP_S = 1.0

#: What a helper is asked for: name, size, time of the original in ns, numbers of the targets that lack it.
Wanted = tuple[str, int, int, list[int]]
#: What it made, for each target: numbers of the files in the request, with their checksums as read back.
Made = list[list[tuple[int, str]]]


class Source(NamedTuple):
    """A file: its path relative to the folder, with ``/``, and what it was when the folder was looked through."""

    name: str
    size: int
    mtime_ns: int


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


def os_path(path: str) -> str:
    """Return a path that Windows takes at any length."""
    if sys.platform != "win32" or path.startswith("\\\\?\\"):
        return path
    path = os.path.abspath(path)  # noqa: PTH100 - resolve() follows links
    return f"\\\\?\\UNC\\{path[2:]}" if path.startswith("\\\\") else f"\\\\?\\{path}"


def path_in(root: str, name: str) -> str:
    """Return the path of a file in a folder of the engine's."""
    return root + os.sep + (name if os.sep == "/" else name.replace("/", os.sep))


@functools.lru_cache(maxsize=8192)  # asked for at each step of a small file's copy
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
    try:
        places = (_AT_FDCWD, os.fsencode(partial), _AT_FDCWD, os.fsencode(final))
        if _linux_call("renameat2", final, *places, _RENAME_NOREPLACE):
            return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        os.link(partial, final)  # fails when the name is taken, which ``rename`` of POSIX does not
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A share without hard links: take the name first, with an empty file of ours.
        os.close(os.open(final, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.replace(partial, final)
        return
    os.unlink(partial)  # noqa: PTH108


@functools.cache
def _linux_function(name: str) -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    import ctypes

    return cast("Callable[..., int] | None", getattr(ctypes.CDLL(None, use_errno=True), name, None))


def _linux_call(name: str, path: str, *arguments: Any) -> bool:
    """Make a system call of Linux that Python has no function for; False where there is none.

    Raises:
        OSError: it failed; ``path`` is named.
    """
    function = _linux_function(name)
    if function is None:
        return False
    if function(*arguments) != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return True


def sync_file_system(folder: str) -> bool:
    """Bring a file system's writes to the disk in one call; False where there is no such call."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        return _linux_call("syncfs", folder, fd)
    finally:
        os.close(fd)


class FolderTarget:
    """A folder of this computer, or of a share that is mounted; a copy's partial name is the same in every run."""

    def __init__(self, name: str, place: str, salt: str) -> None:
        self.name, self.place, self.salt = name, place, salt
        self._root = os_path(place)
        self._made: dict[str, bool] = {}
        self._lock = threading.Lock()

    def where(self, name: str) -> str:
        return os.path.join(self.place, *name.split("/"))

    def _final(self, name: str) -> str:
        return path_in(self._root, name)

    def _partial(self, name: str) -> str:
        return self._final(partial_name(name, self.salt))

    def size_of(self, name: str) -> int | None:
        try:
            return os.lstat(self._final(name)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_fresh(self, name: str) -> bool:
        return self._made.get(name.rpartition("/")[0], False)

    def _make_folder(self, folder: str) -> None:
        if folder in self._made:
            return
        with self._lock:
            if folder in self._made:
                return
            path = self._final(folder) if folder else self._root
            try:
                os.makedirs(path)  # noqa: PTH103
                self._made[folder] = True
            except FileExistsError:
                os.makedirs(path, exist_ok=True)  # noqa: PTH103 - a file of that name is an error
                self._made[folder] = False

    def begin(self, name: str, source: Source, replace: bool) -> FileCopying:
        self._make_folder(name.rpartition("/")[0])
        return FileCopying(self._partial(name))

    def settle(self, names: Sequence[str]) -> None:
        """Bring copies to the disk, all at once where Linux can, and let the system forget what it remembers of them."""
        many = len(names) > 1
        is_synced = many and sys.platform == "linux" and sync_file_system(self._root)
        flags = BINARY | (os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)  # it flushes only what may be written there
        for name in names:
            fd = os.open(self._partial(name), flags)
            try:
                if not is_synced:
                    os.fsync(fd)
                if sys.platform == "linux":
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    if many:  # small ones: the disk is asked for all of them at a time
                        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(fd)

    def checksum_of(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        return _checksum(self._final(name), algo, stop, is_settled=False)

    def checksum_of_copy(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        return _checksum(self._partial(name), algo, stop, is_settled=True)

    def publish(self, name: str, replace: bool) -> None:
        if replace:
            os.replace(self._partial(name), self._final(name))
        else:
            give_name(self._partial(name), self._final(name))

    def discard(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._partial(name))  # noqa: PTH108

    def probe(self) -> None:
        import tempfile

        os.makedirs(self._root, exist_ok=True)  # noqa: PTH103
        with tempfile.TemporaryFile(dir=self._root, prefix=".openscope-", buffering=0) as stream:
            stream.write(bytes(4096))
            os.fsync(stream.fileno())


class FileCopying:
    """One copy into a file. ``put`` compares with what an earlier run left before it writes."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
        self._path = path
        self._position = self._sent = 0
        self._kept = os.fstat(self._fd).st_size

    def put(self, block: memoryview) -> None:
        """Write the next block, where it is not there already."""
        if self._kept > self._position:
            block = self._skip(block)
        while block:
            written = os.write(self._fd, block)
            self._position += written
            block = block[written:]
        if sys.platform == "linux" and self._position - self._sent >= _SEND_BYTES:
            # Lets the disk or the server begin with it; the whole is waited for at the end.
            os.posix_fadvise(self._fd, self._sent, self._position - self._sent, os.POSIX_FADV_DONTNEED)
            self._sent = self._position

    def _skip(self, block: memoryview) -> memoryview:
        """Return what of a block is still to be written; the file is cut where it stops being right."""
        os.lseek(self._fd, self._position, os.SEEK_SET)
        there = os.read(self._fd, min(len(block), self._kept - self._position))
        if there and there == block[: len(there)]:
            self._position += len(there)
            return block[len(there) :]
        os.ftruncate(self._fd, self._position)
        self._kept = self._position
        os.lseek(self._fd, self._position, os.SEEK_SET)
        return block

    def finish(self, source: Source) -> None:
        """Cut what is too much, and give the copy the original's time."""
        try:
            if self._kept > self._position:
                os.ftruncate(self._fd, self._position)
            if os.utime in os.supports_fd:
                os.utime(self._fd, ns=(source.mtime_ns, source.mtime_ns))
        finally:
            os.close(self._fd)
        if os.utime not in os.supports_fd:
            os.utime(self._path, ns=(source.mtime_ns, source.mtime_ns))

    def abandon(self) -> None:
        os.close(self._fd)


def _checksum(path: str, algo: str, stop: Callable[[], bool], *, is_settled: bool) -> str:
    """Read a file from the disk or the server, as far as the system lets go of what it remembers."""
    fd = os.open(path, os.O_RDONLY | BINARY)
    try:
        if sys.platform == "linux" and not is_settled:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        left = os.fstat(fd).st_size
        digest = new_hash(algo)
        while data := os.read(fd, min(left, BLOCK_BYTES) or 1):
            digest.update(data)
            left = max(left - len(data), 0)
            if stop():
                raise InterruptedError("stopped")
        return digest.hexdigest()
    finally:
        os.close(fd)


class Helper:
    """The helper process of one thread.

    Args:
        root: the folder with the originals.

    Raises:
        OSError: the process cannot be created.
    """

    def __init__(self, root: str, algo: str, targets: Sequence[FolderTarget]) -> None:
        import subprocess

        import psutil

        from ...system import isolated_python, lines_of, spawn_detached

        places = [(target.place, target.salt) for target in targets]
        facts = json.dumps({"paths": [one for one in sys.path if one], "root": root, "algo": algo, "places": places})
        pipe = subprocess.PIPE
        self._process = spawn_detached([*isolated_python(), __file__, facts], stdin=pipe, stdout=pipe, bufsize=0)
        if sys.platform == "win32":  # elsewhere it is born with the priorities of this process
            with contextlib.suppress(psutil.Error, OSError):
                psutil.Process(self._process.pid).ionice(cast("Any", psutil.Process().ionice()))
        assert self._process.stdout is not None
        self._answers = lines_of(self._process.stdout.fileno())

    def copy(self, files: Sequence[Wanted]) -> Iterator[Made]:
        """Copy files; yield what was made, as it is made. What is never named was not made.

        Raises:
            OSError: the process has ended.
        """
        assert self._process.stdin is not None
        data = memoryview(json.dumps(files).encode("ascii") + b"\n")
        while data:
            data = data[self._process.stdin.write(data) or 0 :]
        for line in self._answers:
            answer = json.loads(line)
            if answer is None:
                return
            yield answer
        raise OSError(errno.EPIPE, "the helper process has ended")

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


class _Written(NamedTuple):
    """A file whose copies are written, and not yet known to be right."""

    number: int
    name: str
    checksum: str
    targets: list[int]


def make_copies(files: Iterable[Wanted], root: str, algo: str, targets: Sequence[FolderTarget]) -> Iterator[Made]:
    """Copy what a helper is asked for; a target that fails is left to the engine for the rest of the request."""
    failed: set[int] = set()
    written: list[_Written] = []
    began_s = time.monotonic()
    for number, (name, size, mtime_ns, lacking) in enumerate(files):
        source = Source(name, size, mtime_ns)
        data = _read(root, source)
        if data is None:
            continue
        done = []
        for which in set(lacking) - failed:
            try:
                if _write(targets[which], source, data):
                    done.append(which)
            except OSError:
                failed.add(which)
        if done:
            digest = new_hash(algo)
            digest.update(data)
            written.append(_Written(number, name, digest.hexdigest(), done))
        if time.monotonic() - began_s >= _GROUP_S:
            yield _verified(written, algo, targets)
            written = []
            began_s = time.monotonic()
    yield _verified(written, algo, targets)


def _read(root: str, source: Source) -> bytes | None:
    """Return an original's content, if it still is what it was when the folder was looked through."""
    try:
        fd = os.open(path_in(root, source.name), os.O_RDONLY | BINARY)
        try:
            data = os.read(fd, source.size + 1)
            facts = os.fstat(fd)
        finally:
            os.close(fd)
    except OSError:
        return None
    return data if len(data) == source.size and (facts.st_size, facts.st_mtime_ns) == source[1:] else None


def _write(target: FolderTarget, source: Source, data: bytes) -> bool:
    """Write a copy under its partial name; False when something is at its place."""
    if not target.is_fresh(source.name) and target.size_of(source.name) is not None:
        return False
    copying = target.begin(source.name, source, False)
    try:
        copying.put(memoryview(data))
    except OSError:
        copying.abandon()
        raise
    copying.finish(source)
    return True


def _verified(written: Sequence[_Written], algo: str, targets: Sequence[FolderTarget]) -> Made:
    """Bring copies to the disk, read them back, and give the right ones their names."""
    made: Made = [[] for _ in targets]
    for which, target in enumerate(targets):
        mine = [one for one in written if which in one.targets]
        try:
            target.settle([one.name for one in mine])
        except OSError:
            continue
        for one in mine:
            with contextlib.suppress(OSError):
                if target.checksum_of_copy(one.name, algo, lambda: False) == one.checksum:
                    target.publish(one.name, False)
                    made[which].append((one.number, one.checksum))
                    continue
            with contextlib.suppress(OSError):
                target.discard(one.name)
    return made


def _listen(requests: queue.SimpleQueue[Any]) -> None:
    """Take in requests; end the process when nobody can send any more."""
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)


def main() -> None:
    """Work until the process that asks has ended, or lets go."""
    facts = json.loads(sys.argv[1])
    sys.path += facts["paths"]
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    targets = [FolderTarget("", *place) for place in facts["places"]]
    while True:
        for made in make_copies(requests.get(), facts["root"], facts["algo"], targets):
            print(json.dumps(made), flush=True)
        print("null", flush=True)


if __name__ == "__main__":
    main()
