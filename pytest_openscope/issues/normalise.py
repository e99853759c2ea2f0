"""Texts without what changes from one occurrence of a defect to the next: numbers, paths, names, times, addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_OS_ERROR = re.compile(r"\[(?:Errno|WinError) -?\d+\][^'\"]*")
_URL = re.compile(r"(?i)\b[a-z][a-z0-9+.\-]{1,20}://[^\s'\"<>]+")
#: Blanks within a path are recognised in quotes, and before a further backslash of a Windows path.
_QUOTED_PATH = re.compile(r"""(['"])(?=[^'"\n]*[\\/])[^'"\n]{1,1000}\1""")
_BLANK_IN_PATH = r"\x20(?=(?:[\w.\-]+\x20){0,2}[\w.\-]*(?:\(x86\))?\\)|(?<=\x20)\(x86\)(?=\\)"
_PATH = re.compile(
    rf"""(?<![\w])[A-Za-z]:\\(?:[^\s'"<>|:*?,;()\[\]{{}}]|{_BLANK_IN_PATH})+"""
    r"""|(?:\\\\|(?<![\w])[A-Za-z]:[\\/]|~?/|\.{1,2}[\\/])[^\s'"<>|:*?,;()\[\]{}]+|(?<![\w.\-\\/])[\w.\-]+(?:[\\/][\w.\-]+)+"""
)
_STAMP = re.compile(
    r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T _]\d{1,2}[-:]\d{2}(?:[-:]\d{2}(?:[.,]\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?"
)
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_WEEKDAY = r"(?:mon|tue(?:s)?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
#: ``Mon Jan  5``, ``Mon, 05 Jan 2026``, ``January 5, 2026``.
_DATE_IN_WORDS = re.compile(
    rf"(?i)\b(?:{_WEEKDAY},?\s+)?(?:{_MONTH}\.?\s+\d{{1,2}}|\d{{1,2}}\.?\s+{_MONTH})\b(?:,?\s+\d{{4}}\b)?"
)
_NOON = re.compile(r"(?i)(?<=#)\s?[ap]\.?m\b\.?")
#: Bars of progress.
_BLOCKS = re.compile("[\u2580-\u259f]+")
_WORD_WITH_DIGIT = re.compile(r"(?<![\w.+\-])[\w.+\-]*\d[\w.+\-:]*")
_HEX_WORD = re.compile(r"\b[0-9a-fA-F]{8,}\b")
_SIGNS = re.compile(r"#(?:[\s,:;xX*/|+-]*#)+")


def basename(path: str) -> str:
    """Return the last part of a path of either system."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def normalised(text: str, private: Iterable[str] = ()) -> str:
    """Return one lower-case line: every word with a digit as ``#``, every path as its normalised last part.

    ``private`` are names to take out besides (subject, user, rig, host), since one without digits cannot be told from a word.
    """
    line = _ANSI.sub("", text)
    for name in sorted({name for name in private if len(name) > 1}, key=len, reverse=True):
        line = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", "#", line, flags=re.IGNORECASE)
    line = _OS_ERROR.sub("", line)
    line = _URL.sub("#", line)
    line = _STAMP.sub("#", line)
    line = _DATE_IN_WORDS.sub("#", _BLOCKS.sub(" ", line))
    line = _QUOTED_PATH.sub(lambda match: " " + basename(match[0][1:-1]) + " ", line)
    line = _PATH.sub(lambda match: basename(match[0]), line)
    line = _HEX_WORD.sub("#", line)
    line = _WORD_WITH_DIGIT.sub("#", line)
    line = _SIGNS.sub("#", _NOON.sub("", line))
    return " ".join(line.split()).lower()[:300]
