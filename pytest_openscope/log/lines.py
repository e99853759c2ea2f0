r"""The grammar of the session log: one record as text, and back, exactly (``docs/reference/session-log.md``).

A record is one line, ``<time> <level> <phase> <step> <logger> <message>``; an absent field is ``-``. The further lines of a
message begin with ``| ``, its last one with ``|_``, and a ``|`` after the logger's name tells that they follow, so that a
record which a crash cut short is known as such. What would break a line (control characters, Unicode line separators, lone
surrogates; in the fields before the message also blanks) stands as ``\x{hex}``, and so does a backslash before ``x{``: every
other backslash, and with them Windows paths, stays as it is.

Imports neither :mod:`logging` nor anything else that costs start-up time: the sidecar reads and writes these lines too.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ..system import time_field

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\\\\(?=x\\{)")
_UNSAFE_FIELD = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]|\\\\(?=x\\{)")
_ESCAPE = re.compile(r"\\x\{(10[0-9a-f]{4}|[0-9a-f]{1,5})\}")
#: Every byte that stands for itself in a batch of child output.
_PLAIN_BYTES = bytes([9, 10, *range(0x20, 0x7F)])
#: Shorter than this no record's first field can be: ``YYYY-MM-DDTHH:MM:SS.ffffff+HH:MM``.
_TIME_LENGTH = 32


class LogEntry(NamedTuple):
    """One record as it was logged.

    ``phase``, ``step`` and ``logger`` are empty where the line has ``-``. ``message`` holds the text with its traceback.
    Undecodable bytes of a child are lone surrogates in it, so that ``message.encode("utf-8", "surrogateescape")`` gives the
    raw bytes back. ``offset`` is the record's first byte in the file.
    """

    timestamp: datetime
    level: str
    phase: str
    step: str
    logger: str
    message: str
    offset: int = 0


class Damage(NamedTuple):
    """A part of the file that holds no whole record: ``kind`` says why, ``text`` what can still be read there.

    Kinds: ``torn line`` (no newline at the end of the file), ``unfinished record`` (its last lines are missing), ``stray
    continuation``, ``foreign line``, ``NUL bytes`` (a power cut), ``not UTF-8``.
    """

    offset: int
    length: int
    kind: str
    text: str


def _escape(match: re.Match[str]) -> str:
    return f"\\x{{{ord(match[0]):x}}}"


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


def escape_field(text: str) -> str:
    """Return a level, phase, step or logger name as it stands in a line."""
    if text.isidentifier():
        return text
    if not text:
        return "-"
    if text == "-":
        return r"\x{2d}"
    safe = _UNSAFE_FIELD.sub(_escape, text)
    return safe[:-1] + r"\x{7c}" if safe.endswith("|") else safe


def unescape(text: str) -> str:
    r"""Replace every ``\x{hex}`` by its character."""
    return _ESCAPE.sub(_unescape, text) if "\\x{" in text else text


def head(level: str, phase: str, step: str, logger: str) -> str:
    """Return what stands between the time and the message, blanks at both ends included."""
    return f" {escape_field(level)} {escape_field(phase)} {escape_field(step)} {escape_field(logger)} "


def record_text(stamp: str, head_: str, message: str) -> str:
    """Join a time, a :func:`head` and any message to the lines of one record."""
    if message.isprintable() and "\\x{" not in message:
        return f"{stamp}{head_}{message}\n"
    safe = _UNSAFE.sub(_escape, message)
    if "\n" not in safe:
        return f"{stamp}{head_}{safe}\n"
    first, *middle, last = safe.split("\n")
    return "\n| ".join([f"{stamp}{head_[:-1]}| {first}", *middle]) + f"\n|_{last}\n"


def encode_record(level: str, logger: str, message: str, phase: str = "", step: str = "", at: float | None = None) -> bytes:
    """Return one record as the bytes of the file; ``at`` is in seconds since the epoch, now if it is not given."""
    stamp = time_field(time.time() if at is None else at)
    return record_text(stamp, head(level, phase, step, logger), message).encode("utf-8")


def encode_batch(stamp: str, head_: str, lines: Sequence[bytes], mask: Callable[[str], str] | None = None) -> bytes:
    """Return raw lines of a child (without their newlines) as one record each, all with the same time and head.

    A batch of plain text costs about 0.2 µs a line; any other is taken line by line, invalid UTF-8 by ``surrogateescape``.
    """
    joined = b"\n".join(lines)
    if lines and joined.count(b"\n") == len(lines) - 1 and _is_plain(joined, mask):
        prefix = (stamp + head_).encode("utf-8")
        return prefix + joined.replace(b"\n", b"\n" + prefix) + b"\n"
    parts = []
    for line in lines:
        text = line.decode("utf-8", "surrogateescape")
        parts.append(record_text(stamp, head_, text if mask is None else mask(text)))
    return "".join(parts).encode("utf-8")


def _is_plain(joined: bytes, mask: Callable[[str], str] | None) -> bool:
    """Tell whether a batch can stand in the file as it is: nothing to escape and nothing to mask."""
    if b"\\" in joined and b"\\x{" in joined:  # one byte is looked for much faster than three
        return False
    is_ascii = joined.isascii()
    if is_ascii and joined.translate(None, _PLAIN_BYTES):
        return False
    if is_ascii and mask is None:
        return True
    try:
        text = joined.decode("utf-8")
    except UnicodeDecodeError:
        return False
    if not is_ascii and not text.replace("\n", " ").isprintable() and _UNSAFE.search(text):
        return False
    return mask is None or mask(text) == text


class _Reader:
    """Puts lines together to records; one per pass over a file."""

    def __init__(self, on_damage: Callable[[Damage], None] | None) -> None:
        self._tell = on_damage or (lambda damage: None)
        self._open: LogEntry | None = None
        self._parts: list[str] = []

    @property
    def is_open(self) -> bool:
        """True within a record of several lines."""
        return self._open is not None

    def damaged(self, offset: int, raw: bytes, kind: str) -> None:
        self._tell(Damage(offset, len(raw), kind, raw.rstrip(b"\r\n").decode("utf-8", "replace")))

    def abandon(self, end: int) -> None:
        """Report the open record, whose last lines never came, if there is one."""
        entry, self._open = self._open, None
        if entry is not None:
            text = unescape("\n".join(self._parts))
            self._tell(Damage(entry.offset, end - entry.offset, "unfinished record", text))

    def feed(self, offset: int, raw: bytes) -> LogEntry | None:
        """Take one line with its newline; return the record that it completes."""
        if b"\0" in raw:
            start = raw.rindex(b"\0") + 1
            self.abandon(offset)
            self._tell(Damage(offset, start, "NUL bytes", raw[:start].replace(b"\0", b"").decode("utf-8", "replace")))
            offset, raw = offset + start, raw[start:]
        if not raw.endswith(b"\n"):
            self.abandon(offset)
            if raw:
                self.damaged(offset, raw, "torn line")
            return None
        line = raw[:-2] if raw.endswith(b"\r\n") else raw[:-1]
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            self.damaged(offset, raw, "not UTF-8")
            return None
        if text[:2] in ("| ", "|_", "|"):
            return self._continue(offset, raw, text)
        entry = _first_line(offset, text)
        if entry is None:
            if text:
                self.damaged(offset, raw, "foreign line")
            return None
        self.abandon(offset)
        if not entry.logger.endswith("|"):
            return entry._replace(logger=_field(entry.logger), message=unescape(entry.message))
        self._open = entry._replace(logger=_field(entry.logger[:-1]))
        self._parts = [entry.message]
        return None

    def _continue(self, offset: int, raw: bytes, text: str) -> LogEntry | None:
        entry = self._open
        if entry is None:
            self.damaged(offset, raw, "stray continuation")
            return None
        self._parts.append(text[2:])
        if text[1:2] != "_":
            return None
        self._open = None
        return entry._replace(message=unescape("\n".join(self._parts)))


def _field(text: str) -> str:
    return "" if text == "-" else unescape(text)


def _first_line(offset: int, text: str) -> LogEntry | None:
    """Split a record's first line; its logger and message stay escaped. None when it is no such line."""
    fields = text.split(" ", 5)
    stamp = fields[0]
    if len(fields) < 5 or len(stamp) < _TIME_LENGTH or stamp[10] != "T":
        return None
    try:
        timestamp = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    message = fields[5] if len(fields) == 6 else ""
    return LogEntry(timestamp, _field(fields[1]), _field(fields[2]), _field(fields[3]), fields[4], message, offset)


def read_log(
    path: str | os.PathLike[str], on_damage: Callable[[Damage], None] | None = None, start: int = 0
) -> Iterator[LogEntry]:
    """Yield every whole record from byte ``start`` (the beginning of a line) on; what is none goes to ``on_damage``.

    Raises:
        OSError: the file cannot be read.
    """
    reader = _Reader(on_damage)
    with open(path, "rb") as stream:
        offset = stream.seek(start)
        for raw in stream:
            entry = reader.feed(offset, raw)
            offset += len(raw)
            if entry is not None:
                yield entry
        reader.abandon(offset)


class LogFollower:
    """Follows a session log while it grows; a record that is not whole yet waits, a damaged one is passed over.

    Attributes:
        left_out: bytes that were passed over because more had come than the reader wanted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_out = 0
        self._offset = 0

    def read(self, limit_bytes: int) -> list[LogEntry]:
        """Return the records that came since the last call, of more than ``limit_bytes`` the last ones; none without a file."""
        try:
            size = self.path.stat().st_size
            if (surplus := size - self._offset - limit_bytes) > 0 or size < self._offset:
                # Somebody emptied it, or the reader cannot keep up: a part of a line is dropped as damaged.
                self.left_out += max(0, surplus)
                self._offset = max(0, size - limit_bytes)
            found, self._offset = read_next(self.path, self._offset, most_bytes=limit_bytes)
        except OSError:
            return []
        return [one for one in found if isinstance(one, LogEntry)]


def read_next(
    path: str | os.PathLike[str], start: int, *, most: float = math.inf, most_bytes: int = 256 * 1024, complete: bool = False
) -> tuple[list[LogEntry | Damage], int]:
    """Return some records from byte ``start`` on, with what is none in between, and the byte at which the next ones begin.

    A record that is still being written is left for the next call. Calls that each begin where the last one ended give every
    byte of the file once, whatever was written between them.

    Args:
        most: no more records.
        most_bytes: no record that begins farther on.
        complete: nobody writes any more, so that a torn record at the end is none that will come.

    Raises:
        OSError: the file cannot be read.
    """
    found: list[LogEntry | Damage] = []
    reader = _Reader(found.append)
    with open(path, "rb") as stream:
        offset = taken = stream.seek(start)
        while len(found) < most and taken - start < most_bytes:
            raw = stream.readline()
            if raw.endswith(b"\n") or (raw and complete):
                entry = reader.feed(offset, raw)
                offset += len(raw)
                if entry is not None:
                    found.append(entry)
            elif complete:
                reader.abandon(offset)
            else:
                break
            if not reader.is_open:
                taken = offset
            if not raw:
                break
    return [one for one in found if one.offset < taken], taken


def last_lines(path: str | os.PathLike[str], count: int, limit_bytes: int = 1024 * 1024) -> list[str]:
    """Return the last ``count`` lines as they stand in the file, a torn one included.

    No more than ``limit_bytes`` are read from the end, so that the first line returned may lack its beginning.

    Raises:
        OSError: the file cannot be read.
    """
    if count <= 0:
        return []
    with open(path, "rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - limit_bytes))
        text = stream.read().decode("utf-8", "replace")
    return text.removesuffix("\n").split("\n")[-count:] if text else []
