"""Finds session folders below output roots and in central log directories, and reads those that are new or have changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import islice
from multiprocessing import TimeoutError
from multiprocessing.pool import ThreadPool
from pathlib import Path

from .reading import Place, Rows, read_session

#: What began longer ago than this and has ended is taken as it is known: only ``full`` looks at it again.
SETTLED_DAYS = 30
#: Waiting for a share, not computing, is what takes time.
_READERS = 8
_BATCH = 500
#: So many folders in a row that cannot be read mean that the share has gone.
_GONE_AFTER = 20
#: A share that says nothing for so long has gone too.
_SILENCE_S = 120.0


@dataclass(frozen=True)
class Source:
    """Where sessions lie: an output root, or a central log directory."""

    path: Path
    central: bool = False

    @property
    def name(self) -> str:
        """What the database calls it."""
        return f"{'central' if self.central else 'root'}:{text_of(self.path)}"


@dataclass
class Known:
    """What the database knows of a source.

    Attributes:
        settled: paths of the folders that are not to be looked at again.
        stamps: path of each other folder with its stamp when it was read.
        days: days of a central directory that are not to be listed again.
    """

    settled: Set[str] = frozenset()
    stamps: Mapping[str, str] = field(default_factory=dict)
    days: frozenset[date] = frozenset()


@dataclass
class Search:
    """One pass over a source.

    Attributes:
        listed: days of a central directory whose sessions were all read.
        problems: what could not be read, for people.
    """

    source: Source
    known: Known
    today: date
    listed: list[date] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _unread: int = 0
    _first: str = ""
    _missed: set[date] = field(default_factory=set)

    def changed(self) -> Iterator[list[Rows]]:
        """Give what is new or has changed since it was known, some hundred sessions at a time."""
        places = self._places()
        found: list[Rows] = []
        in_a_row, gone = 0, False
        # Its threads do not keep the process from ending when the share never answers them.
        readers = ThreadPool(_READERS)
        try:
            while not gone and (batch := readers.apply_async(lambda: list(islice(places, _BATCH))).get(_SILENCE_S)):
                answers = readers.imap(self._read, batch)
                for place in batch:
                    answer = answers.next(_SILENCE_S)
                    if isinstance(answer, Rows):
                        found.append(answer)
                    if isinstance(answer, OSError):
                        self._cannot(answer, place.day)
                        in_a_row += 1
                    else:
                        in_a_row = 0
                gone = in_a_row >= _GONE_AFTER
                if found:
                    yield found
                    found = []
        except TimeoutError:
            gone, self._first = True, f"no answer within {_SILENCE_S:g} s"
            if found:
                yield found
        finally:
            readers.terminate()
        self.listed = [day for day in self.listed if day not in self._missed and not gone]
        if gone:
            self.problems.append(f"{self.source.path} went away while it was read ({self._first}); the rest is read next time")
        elif self._unread:
            folders = "1 folder" if self._unread == 1 else f"{self._unread} folders"
            self.problems.append(f"{self.source.path}: {folders} cannot be read now ({self._first}); tried again next time")

    def _read(self, place: Place) -> Rows | OSError | None:
        try:
            stamp = place.stamp()
            if stamp is None or self.known.stamps.get(text_of(place.path)) == stamp:
                return None
            return read_session(place, stamp)
        except (FileNotFoundError, NotADirectoryError):
            return None  # It was removed in this moment.
        except OSError as error:
            return error

    def _places(self) -> Iterator[Place]:
        try:
            yield from self._copies() if self.source.central else self._folders()
        except OSError as error:
            self.problems.append(
                f"{self.source.path} cannot be read ({_reason(error)}); the answer is from what is known of it"
            )

    def _folders(self) -> Iterator[Place]:
        with os.scandir(self.source.path) as entries:
            for entry in entries:
                # Of a hundred thousand nearly all are settled, and their names are text.
                settled = entry.path in self.known.settled or whole_text(entry.path) in self.known.settled
                if not settled and entry.is_dir():
                    yield Place(Path(entry.path))

    def _copies(self) -> Iterator[Place]:
        for year in _numbered(_subfolders(self.source.path), 4):
            for month in _numbered(self._below(year), 2):
                for folder in _numbered(self._below(month), 2):
                    try:
                        day = date(int(year.name), int(month.name), int(folder.name))
                    except ValueError:
                        continue
                    if day in self.known.days:
                        continue
                    for rig in self._below(folder, day):
                        for session in self._below(rig, day):
                            if text_of(session) not in self.known.settled:
                                yield Place(session, rig.name, day)
                    if self.today - day > timedelta(SETTLED_DAYS):
                        self.listed.append(day)

    def _below(self, folder: Path, day: date | None = None) -> list[Path]:
        """Return the folders in one; one that cannot be listed is told and passed over, unless the whole source is gone."""
        try:
            return _subfolders(folder)
        except OSError as error:
            self._cannot(error, day)
            _subfolders(self.source.path)
            return []

    def _cannot(self, error: OSError, day: date | None) -> None:
        self._unread += 1
        self._first = self._first or _reason(error)
        if day is not None:
            self._missed.add(day)


def text_of(path: Path) -> str:
    """Return a path as text that every database takes."""
    return whole_text(str(path))


def whole_text(text: str) -> str:
    """Return text without the lone surrogates that stand for the odd bytes of a name."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _numbered(folders: list[Path], digits: int) -> list[Path]:
    return sorted(path for path in folders if re.fullmatch(rf"[0-9]{{{digits}}}", path.name))


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
