"""Targets that are no folder: whatever fsspec has a file system for (s3, smb, sftp, …), by URL.

Object stores have no half-written objects: a copy appears whole, under its name, and only where there is none yet (a
conditional write, where the store knows it). Elsewhere a copy is written under a name of its own and renamed, as in a folder;
one that was interrupted is written anew. What was written is read back from the server in any case.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .folders import BLOCK_BYTES, Source, new_hash, partial_name

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


@contextmanager
def _told() -> Iterator[None]:
    """Turn what drivers raise into ``OSError``, which is a file's or a target's problem, not the run's."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


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
        return f"{self.place}/{name}"

    def _copy_path(self, root: str, name: str) -> str:
        """Where a copy is while it is written: in an object store at its place, else under a name of its own."""
        return f"{root}/{name}" if self._is_store else f"{root}/{partial_name(name, '')}"

    @_told()
    def size_of(self, name: str) -> int | None:
        file_system, root = self._connect()
        try:
            return int(file_system.info(f"{root}/{name}")["size"] or 0)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_fresh(self, name: str) -> bool:
        return False

    @_told()
    def begin(self, name: str, source: Source, replace: bool) -> _Upload:
        file_system, root = self._connect()
        path = self._copy_path(root, name)
        if self._is_store:
            return _Upload(file_system.open(path, "wb" if replace else "xb", block_size=2 * BLOCK_BYTES))
        folder = path.rpartition("/")[0]
        with self._lock:
            if folder not in self._made:
                file_system.makedirs(folder, exist_ok=True)
                self._made.add(folder)
        return _Upload(file_system.open(path, "wb"))

    def settle(self, names: Sequence[str]) -> None:
        """Do nothing: a server that has confirmed a file has it."""

    @_told()
    def checksum_of(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        file_system, root = self._connect()
        return self._checksum(file_system, f"{root}/{name}", algo, stop)

    @_told()
    def checksum_of_copy(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        file_system, root = self._connect()
        return self._checksum(file_system, self._copy_path(root, name), algo, stop)

    def _checksum(self, file_system: Any, path: str, algo: str, stop: Callable[[], bool]) -> str:
        digest = new_hash(algo)
        options = {"cache_type": "none"} if self._is_store else {}
        with file_system.open(path, "rb", **options) as stream:
            if hasattr(stream, "prefetch"):
                stream.prefetch()  # SFTP: without it every block costs a round trip
            while data := stream.read(2 * BLOCK_BYTES):
                digest.update(data)
                if stop():
                    raise InterruptedError("stopped")
        return digest.hexdigest()

    @_told()
    def publish(self, name: str, replace: bool) -> None:
        if self._is_store:
            return  # an object has its name already
        file_system, root = self._connect()
        partial, final = self._copy_path(root, name), f"{root}/{name}"
        if file_system.exists(final):
            if not replace:
                raise FileExistsError(errno.EEXIST, "is there already", final)
            file_system.rm_file(final)
        rename = getattr(getattr(file_system, "ftp", None), "rename", None)
        if rename is not None:
            rename(partial, final)  # SFTP's own refuses a name that is taken; the driver's mv replaces
        else:
            file_system.mv(partial, final)

    @_told()
    def discard(self, name: str) -> None:
        file_system, root = self._connect()
        file_system.rm(self._copy_path(root, name))

    @_told()
    def probe(self) -> None:
        file_system, root = self._connect()
        file_system.exists(root)


class _Upload:
    """One copy on its way to a server."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        if hasattr(stream, "set_pipelined"):
            stream.set_pipelined(True)  # SFTP: without it every block waits for its confirmation

    @_told()
    def put(self, block: memoryview) -> None:
        self._stream.write(bytes(block))

    @_told()
    def finish(self, source: Source) -> None:
        self._stream.close()

    @_told()
    def abandon(self) -> None:
        """Give the upload up, so that a store makes no object of it."""
        if hasattr(self._stream, "discard"):
            self._stream.discard()
            self._stream.closed = True
        else:
            self._stream.close()


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
