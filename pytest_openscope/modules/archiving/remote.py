"""Targets that are no folder: whatever fsspec has a file system for (s3, smb, sftp, …), by URL.

Object stores have no half-written objects: a copy appears whole, under its name, and only where there is none yet (a
conditional write, where the store knows it). Elsewhere a copy is written under a name of its own and renamed, as in a folder;
one that was interrupted is written anew. What was written is read back from the server in any case.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .small_files import new_hash
from .sources import Source
from .targets import BLOCK_BYTES, Copying, words_of

#: File systems whose files are objects: written in one go, without folders and renaming.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl"}
#: Packages of the extra, by the protocols that need them, for a message.
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "gs": "gcsfs",
    "gcs": "gcsfs",
}


class RemoteTarget:
    """A place on a server. Each thread has a connection of its own, where the driver is not made for several threads."""

    def __init__(self, name: str, place: str, options: Mapping[str, Any]) -> None:
        self.name, self.place = name, place.rstrip("/")
        self._protocol = place.partition("://")[0].lower()
        self._is_store = self._protocol in _OBJECT_STORES
        self._options = dict(options)
        self._local = threading.local()
        self._shared: tuple[Any, str] | None = None
        self._made: set[str] = set()
        self._lock = threading.Lock()

    def _connect(self) -> tuple[Any, str]:
        """Return the file system and the place's path there."""
        found: tuple[Any, str] | None = self._shared or getattr(self._local, "found", None)
        if found is None:
            with _told():
                try:
                    import fsspec

                    options = {"skip_instance_cache": True, **_resolved(self._options)}
                    if self._is_store:
                        options.setdefault("use_listings_cache", False)
                    file_system, root = fsspec.core.url_to_fs(self.place, **options)
                except ImportError as missing:
                    package = _PACKAGES.get(self._protocol, self._protocol)
                    remedy = f"install pytest-openscope[remote] (or {package}) for {self._protocol}:// targets"
                    raise OSError(errno.EINVAL, f"{remedy} ({missing})") from missing
            found = (file_system, str(root).rstrip("/"))
            if getattr(file_system, "async_impl", False):
                self._shared = found
            else:
                self._local.found = found
        return found

    def where(self, name: str) -> str:
        """Return the URL of a file's copy."""
        return f"{self.place}/{name}"

    def _final(self, root: str, name: str) -> str:
        return f"{root}/{name}"

    def _copy_path(self, root: str, name: str) -> str:
        """Where a copy is while it is written: in an object store at its place, else under a name of its own."""
        if self._is_store:
            return self._final(root, name)
        folder = name.rpartition("/")[0]
        tag = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        return f"{root}/{folder}/.openscope-{tag}.partial" if folder else f"{root}/.openscope-{tag}.partial"

    def size_of(self, name: str) -> int | None:
        """Return the size of what lies at a file's place."""
        file_system, root = self._connect()
        with _told():
            try:
                return int(file_system.info(self._final(root, name))["size"] or 0)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def is_fresh(self, name: str) -> bool:
        """Tell that somebody has to look what is there."""
        return False

    def begin(self, name: str, source: Source, replace: bool) -> Copying:
        """Begin a copy."""
        file_system, root = self._connect()
        with _told():
            if self._is_store:
                return _Upload(
                    file_system.open(self._copy_path(root, name), "wb" if replace else "xb", block_size=2 * BLOCK_BYTES)
                )
            with self._lock:
                folder = self._copy_path(root, name).rpartition("/")[0]
                if folder not in self._made:
                    file_system.makedirs(folder, exist_ok=True)
                    self._made.add(folder)
            return _Upload(file_system.open(self._copy_path(root, name), "wb"))

    def settle(self, names: Iterable[str]) -> None:
        """Do nothing: a server that has confirmed a file has it."""

    def checksum_of(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        """Read what lies at a file's place and return its checksum."""
        file_system, root = self._connect()
        return self._checksum(file_system, self._final(root, name), algo, stop)

    def checksum_of_copy(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        """Read a finished copy from the server and return its checksum."""
        file_system, root = self._connect()
        return self._checksum(file_system, self._copy_path(root, name), algo, stop)

    def _checksum(self, file_system: Any, path: str, algo: str, stop: Callable[[], bool]) -> str:
        digest = new_hash(algo)
        options = {"cache_type": "none"} if self._is_store else {}
        with _told(), file_system.open(path, "rb", **options) as stream:
            if hasattr(stream, "prefetch"):
                stream.prefetch()  # SFTP: without it every block costs a round trip
            while data := stream.read(2 * BLOCK_BYTES):
                digest.update(data)
                if stop():
                    raise InterruptedError("stopped")
        return digest.hexdigest()

    def publish(self, name: str, replace: bool) -> None:
        """Give a copy its name; an object has it already."""
        if self._is_store:
            return
        file_system, root = self._connect()
        partial, final = self._copy_path(root, name), self._final(root, name)
        with _told():
            if replace:
                if file_system.exists(final):
                    file_system.rm_file(final) if hasattr(file_system, "rm_file") else file_system.rm(final)
            elif file_system.exists(final):
                raise FileExistsError(errno.EEXIST, "is there already", final)
            rename = getattr(getattr(file_system, "ftp", None), "rename", None)
            if rename is not None:
                rename(partial, final)  # SFTP's own refuses a name that is taken; the driver's mv replaces
            else:
                file_system.mv(partial, final)

    def discard(self, name: str) -> None:
        """Remove a copy that turned out wrong."""
        file_system, root = self._connect()
        with _told():
            file_system.rm(self._copy_path(root, name))

    def probe(self) -> str:
        """Say why the server cannot be reached."""
        try:
            file_system, root = self._connect()
            with _told():
                file_system.exists(root)
        except OSError as error:
            return words_of(error)
        return ""


class _Upload:
    """One copy on its way to a server."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        if hasattr(stream, "set_pipelined"):
            stream.set_pipelined(True)  # SFTP: without it every block waits for its confirmation

    def put(self, block: memoryview) -> None:
        """Write the next block."""
        with _told():
            self._stream.write(bytes(block))

    def finish(self, source: Source) -> None:
        """Complete the copy."""
        with _told():
            self._stream.close()

    def abandon(self) -> None:
        """Give the upload up, so that a store makes no object of it."""
        with _told():
            discard = getattr(self._stream, "discard", None)
            if discard is not None:
                discard()
                self._stream.closed = True
            else:
                self._stream.close()


@contextmanager
def _told() -> Iterator[None]:
    """Turn what drivers raise into ``OSError``, which is a file's or a target's problem, not the run's."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


def _resolved(value: Any) -> Any:
    """Return options with every ``env:NAME`` replaced by the variable's value.

    Raises:
        OSError: there is no such variable.
    """
    if isinstance(value, Mapping):
        return {str(name): _resolved(one) for name, one in value.items()}
    if isinstance(value, str) and value.startswith("env:"):
        found = os.environ.get(value[4:])
        if found is None:
            raise OSError(errno.EINVAL, f"the environment variable {value[4:]} is not set")
        return found
    return value
