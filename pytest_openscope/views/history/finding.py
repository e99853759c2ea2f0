"""Finds session folders below output roots and in central log directories, and reads those that are new or have changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import islice
from multiprocessing import TimeoutError
from multiprocessing.pool import ThreadPool
from pathlib import Path

from ..values import whole_text
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
        return f"{'central' if self.central else 'root'}:{whole_text(str(self.path))}"


@dataclass
class Search:
    """One pass over a source.

    Attributes:
        known: path of each folder that was read with its stamp at that time; None for one that is not to be looked at again.
        read_days: days of a central directory that are not to be listed again.
        listed: days of a central directory whose sessions were all read.
        problems: what could not be read, for people.
    """

    source: Source
    known: Mapping[str, str | None]
    read_days: Set[date]
    listed: list[date] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _errors: list[str] = field(default_factory=list)
    _missed: set[date] = field(default_factory=set)

    def changed(self) -> Iterator[list[Rows]]:
        """Give what is new or has changed since it was known, some hundred sessions at a time."""
        places = self._copies() if self.source.central else self._folders()
        found: list[Rows] = []
        in_a_row, lost = 0, ""
        # Its threads do not keep the process from ending when the share never answers them.
        readers = ThreadPool(_READERS)
        try:
            while not lost and (batch := readers.apply_async(lambda: list(islice(places, _BATCH))).get(_SILENCE_S)):
                answers = readers.imap(self._read, batch)
                for place in batch:
                    answer = answers.next(_SILENCE_S)
                    if isinstance(answer, Rows):
                        found.append(answer)
                    elif answer is not None:
                        self._cannot(answer, place.day)
                    in_a_row = in_a_row + 1 if isinstance(answer, OSError) else 0
                if in_a_row >= _GONE_AFTER:
                    lost = self._errors[-1]
                yield found
                found = []
        except TimeoutError:
            lost = f"no answer within {_SILENCE_S:g} s"
            yield found
        except OSError as error:
            lost = _reason(error)
        finally:
            readers.terminate()
        self.listed = [] if lost else [day for day in self.listed if day not in self._missed]
        if lost:
            known = "the answer is from what is known of it, the rest is read next time"
            self.problems.append(f"{self.source.path} cannot be read now ({lost}); {known}")
        elif self._errors:
            folders = f"{len(self._errors)} folder{'s' * (len(self._errors) > 1)}"
            self.problems.append(f"{self.source.path}: {folders} cannot be read now ({self._errors[0]}); tried again next time")

    def _read(self, place: Place) -> Rows | OSError | None:
        try:
            stamp = place.stamp()
            if stamp is None or self.known.get(whole_text(str(place.path))) == stamp:
                return None
            return read_session(place, stamp)
        except (FileNotFoundError, NotADirectoryError):
            return None  # It was removed in this moment.
        except OSError as error:
            return error

    def _folders(self) -> Iterator[Place]:
        with os.scandir(self.source.path) as entries:
            for entry in entries:
                if not self._is_settled(entry.path) and entry.is_dir():
                    yield Place(Path(entry.path))

    def _copies(self) -> Iterator[Place]:
        for year in _numbered(_subfolders(self.source.path)):
            for month in _numbered(self._below(year)):
                for folder in _numbered(self._below(month)):
                    try:
                        day = date(int(year.name), int(month.name), int(folder.name))
                    except ValueError:
                        continue
                    if day not in self.read_days:
                        yield from self._copies_of(day, folder)
                        if date.today() - day > timedelta(SETTLED_DAYS):
                            self.listed.append(day)

    def _copies_of(self, day: date, folder: Path) -> Iterator[Place]:
        for rig in self._below(folder, day):
            for session in self._below(rig, day):
                if not self._is_settled(str(session)):
                    yield Place(session, rig.name, day)

    def _is_settled(self, path: str) -> bool:
        return self.known.get(whole_text(path), "") is None

    def _below(self, folder: Path, day: date | None = None) -> list[Path]:
        """Return the folders in one; one that cannot be listed is told and passed over, unless the whole source is gone."""
        try:
            return _subfolders(folder)
        except OSError as error:
            self._cannot(error, day)
            _subfolders(self.source.path)
            return []

    def _cannot(self, error: OSError, day: date | None) -> None:
        self._errors.append(_reason(error))
        if day is not None:
            self._missed.add(day)


def _numbered(folders: list[Path]) -> list[Path]:
    return sorted(path for path in folders if path.name.isdecimal())


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
