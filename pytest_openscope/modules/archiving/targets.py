"""Where copies go: what every target can do."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Protocol

from .folders import Source


class Conflict(Exception):  # noqa: N818 - named for what happened
    """At a file's place in the target lies another file; it stays as it is."""


class Copying(Protocol):
    """One copy under way."""

    def put(self, block: memoryview) -> None:
        """Write the next block."""

    def finish(self, source: Source) -> None:
        """Complete the copy under its own name; it need not be on the disk yet."""

    def abandon(self) -> None:
        """Let go; what was written stays for a later run, where the target can go on with it."""


class Target(Protocol):
    """A place for copies; methods raise ``OSError`` for what does not work, and may be called from several threads."""

    name: str
    place: str

    def where(self, name: str) -> str:
        """Return the path or URL of a file's copy."""

    def size_of(self, name: str) -> int | None:
        """Return the size of what lies at a file's place; None when nothing does."""

    def is_fresh(self, name: str) -> bool:
        """Tell whether this run made the folder of a file's place, so that nobody need look what is there."""

    def checksum_of(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        """Read what lies at a file's place and return its checksum."""

    def begin(self, name: str, source: Source, replace: bool) -> Copying:
        """Begin a copy, or go on with one; ``replace`` for one that is to take the place of an older copy of ours."""

    def settle(self, names: Sequence[str]) -> None:
        """Bring finished copies to the disk."""

    def checksum_of_copy(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        """Read a finished copy, not what is left of it in memory, and return its checksum."""

    def publish(self, name: str, replace: bool) -> None:
        """Give a copy its name.

        Raises:
            FileExistsError: something is there, and is not to be replaced.
        """

    def discard(self, name: str) -> None:
        """Remove a copy that turned out wrong."""

    def probe(self) -> None:
        """Raise when the target cannot be written to at all."""


def words_of(error: BaseException) -> str:
    """Say what an error means for a file."""
    if isinstance(error, OSError):
        if getattr(error, "winerror", None) in (32, 33):
            return "is locked by another program"
        if error.errno == errno.ENAMETOOLONG or getattr(error, "winerror", None) == 206:
            return "has a name or path that is too long there"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "does not fit: no space is left there"
        return error.strerror or str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"
