"""The lines of the day's log: ``<rig> <session> <offset> <crc32> <original line>``, each proving itself.

``offset`` is the line's byte position in its session log, ``crc32`` (eight hexadecimal digits) covers the other fields and
the line. Lines that begin with ``#`` are blanked damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

_HEADER = re.compile(rb"[^ #\n][^ \n]* [^ \n]+ \d+ [0-9a-f]{8} ")
_DATED = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:")
BLANKED = b"# damaged line, blanked "


class DayLine(NamedTuple):
    """One valid line: its session's key (``<rig> <session>``), its offset there, and its text without newline."""

    key: bytes
    offset: int
    text: bytes


def format_line(key: bytes, offset: int, text: bytes) -> bytes:
    """Return the line of the day's log, newline included, for ``text`` (without newline) at ``offset`` of its log."""
    head = b"%b %d " % (key, offset)
    return b"%b%08x %b\n" % (head, crc32(text, crc32(head)), text)


def parse_line(line: bytes) -> DayLine | None:
    """Return the parts of a line (without newline), or None when it does not prove itself."""
    fields = line.split(b" ", 4)
    if len(fields) != 5 or len(fields[3]) != 8 or not fields[2].isdigit() or len(fields[2]) > 19:
        return None
    head = b"%b %b %b " % (fields[0], fields[1], fields[2])
    if b"%08x" % crc32(fields[4], crc32(head)) != fields[3]:
        return None
    return DayLine(b"%b %b" % (fields[0], fields[1]), int(fields[2]), fields[4])


def looks_damaged(line: bytes, keys: Iterable[bytes]) -> bool:
    """Tell whether an invalid line was once written by this package; a line of some other program is left alone.

    The launcher that this package succeeds appends plain lines to a file of the same name. What cannot be theirs: zeroed
    bytes, the header of a line of ours at the start, or a known session's key (cut short, too) in it.
    """
    if b"\0\0\0\0" in line or _HEADER.match(line):
        return True
    return any(key + b" " in line or (len(line) > 2 and key.startswith(line)) for key in keys)


def blank(length: int) -> bytes:
    """Return the filling, of equal length, for a damaged line of ``length`` bytes (newline not counted)."""
    return (BLANKED + b"." * length)[:length]


def is_day_log(head: bytes) -> bool:
    """Tell from its first bytes whether a file is a day's log (also an empty or zeroed one) or somebody else's."""
    first = head.partition(b"\n")[0]
    blanked = first[:1] == b"#" and first == blank(len(first))
    zeroed = head[:4] == bytes(min(4, len(head)))
    return zeroed or blanked or _HEADER.match(head) is not None


def is_foreign_tail(tail: bytes) -> bool:
    """Tell whether an unfinished last line belongs to a program that writes plain lines beginning with a date."""
    return _DATED.match(tail) is not None
