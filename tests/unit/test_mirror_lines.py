"""The lines of the day's log, names in the central directory, and the audit's bookkeeping."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.mirror.audit import SessionAudit, log_lines
from pytest_openscope.mirror.day_file import (
    DayLine,
    blank,
    format_line,
    is_day_log,
    is_foreign_tail,
    looks_damaged,
    parse_line,
)
from pytest_openscope.mirror.files import MirrorJob, day_key, folder_name, numbered
from pytest_openscope.system import Retry


class Memory:
    """A session log in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]


@given(st.text(min_size=1), st.text(min_size=1), st.integers(0, 2**62), st.binary().filter(lambda text: b"\n" not in text))
def test_lines_come_back_whatever_they_hold(rig: str, session: str, offset: int, text: bytes) -> None:
    key = day_key(rig, session)
    line = format_line(key, offset, text)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert parse_line(line[:-1]) == DayLine(key, offset, text)


@given(st.binary(max_size=60).filter(lambda text: b"\n" not in text), st.integers(0, 200), st.integers(1, 255))
def test_a_changed_byte_is_noticed(text: bytes, place: int, flip: int) -> None:
    line = format_line(b"rig mouse", 12345, text)[:-1]
    place %= len(line)
    changed = bytes([*line[:place], line[place] ^ flip, *line[place + 1 :]])
    assert parse_line(changed) is None


def test_line_format_is_as_documented() -> None:
    assert format_line(b"rig-1 mouse_1", 17, b"hello") == b"rig-1 mouse_1 17 1ba0f07d hello\n"


def test_keys_hold_no_blanks_and_differ() -> None:
    assert day_key("rig 1", "a\tb") == b"rig%201 a%09b"
    assert day_key("#rig", "50%") == b"%23rig 50%25"
    assert day_key("rig\u00a0x", "m\u00e4use") == b"rig%C2%A0x m\xc3\xa4use"


def test_folder_names_fit_every_file_system() -> None:
    assert folder_name('a/b\\c:d*"?') == "a-b-c-d---"
    assert folder_name(" . ") == "unnamed"
    assert [numbered("launcher.log", number) for number in (1, 2)] == ["launcher.log", "launcher-2.log"]


def test_the_date_of_the_start_names_the_folders() -> None:
    job = MirrorJob("s/l", "/central", "rig 1", "mouse", "2026-03-04T23:59:58+01:00", "/state")
    assert job.own_folder.as_posix() == "/central/2026/03/04/rig 1/mouse"
    assert job.day_log.as_posix() == "/central/2026/03/04/launcher.log"
    assert MirrorJob.from_json(job.to_json()) == job


def test_blanks_have_equal_length_and_begin_with_a_hash() -> None:
    for length in (1, 5, 30, 5000):
        assert len(blank(length)) == length
        assert blank(length).startswith(b"#")
        assert b"\n" not in blank(length)


@pytest.mark.parametrize(
    ("line", "damaged"),
    [
        (b"2026-03-04 10:00:00,123 - INFO - Logging initialized", False),
        (b"Traceback (most recent call last):", False),
        (b"rig-9 other 12 0123abcd text", True),
        (b"abc\0\0\0\0\0\0", True),
        (b"x rig-1 mouse 7 zz", True),
        (b"rig-1 mou", True),
    ],
)
def test_lines_of_other_programs_are_told_from_damage(line: bytes, damaged: bool) -> None:
    assert looks_damaged(line, {b"rig-1 mouse"}) is damaged


def test_a_foreign_file_is_told_by_its_head() -> None:
    assert is_day_log(b"")
    assert is_day_log(b"# damaged line, blanked ...\n")
    assert is_day_log(b"# damaged line, blanked " + b"." * 4072)
    assert is_day_log(b"# dam\nrig mouse 0 ")
    assert is_day_log(bytes(100))
    assert is_day_log(bytes(2))
    assert not is_day_log(b"# what happened on this day\n")
    assert not is_day_log(b"#\x00\x01 some program's format")
    assert not is_day_log(b"\x00\x01 some program's format")
    assert is_day_log(format_line(b"rig mouse", 0, b"hello"))
    assert not is_day_log(b"2026-03-04 10:00:00,123 - INFO - Logging initialized\n")
    assert not is_day_log("\ufeffhello".encode("utf-16"))
    assert is_foreign_tail(b"2026-03-04 10:00:00,12")
    assert not is_foreign_tail(b"rig mouse 12")


def test_log_lines_give_offsets() -> None:
    source = Memory(b"a\n\nbc\r\nd")
    assert list(log_lines(source, 0, 8, rest=False)) == [(0, b"a"), (2, b""), (3, b"bc\r")]
    assert list(log_lines(source, 0, 8, rest=True))[-1] == (7, b"d")
    assert list(log_lines(source, 3, 7, rest=True)) == [(3, b"bc\r")]


def test_audit_finds_missing_doubled_and_wrong_lines() -> None:
    source = Memory(b"one\ntwo\nthree\nfour")
    audit = SessionAudit(b"r s", source)
    assert audit.feed(DayLine(b"r s", 4, b"two"))
    assert not audit.feed(DayLine(b"r s", 4, b"two"))
    assert not audit.feed(DayLine(b"r s", 8, b"thrice"))
    assert not audit.feed(DayLine(b"r s", 9, b"hree"))
    assert not audit.feed(DayLine(b"r s", 900, b"beyond"))
    assert not audit.feed(DayLine(b"r s", 8, b"thr"))
    assert audit.missing(source.size()) == [(0, 4), (8, 18)]
    assert audit.missing_lines(source.size(), 10**6) == [
        format_line(b"r s", 0, b"one"),
        format_line(b"r s", 8, b"three"),
        format_line(b"r s", 14, b"four"),
    ]
    assert audit.feed(DayLine(b"r s", 14, b"four"))
    assert audit.feed(DayLine(b"r s", 8, b"three"))
    assert audit.feed(DayLine(b"r s", 0, b"one"))
    assert audit.missing(source.size()) == []
    assert audit.furthest == 18


@given(st.lists(st.sampled_from([b"", b"a", b"bb", b"ccc"]), max_size=12), st.randoms())
def test_audit_takes_lines_in_any_order(texts: list[bytes], chooser: object) -> None:
    source = Memory(b"".join(text + b"\n" for text in texts))
    lines, place = [], 0
    for text in texts:
        lines.append(DayLine(b"r s", place, text))
        place += len(text) + 1
    chooser.shuffle(lines)  # type: ignore[attr-defined]
    audit = SessionAudit(b"r s", source)
    assert all(audit.feed(line) for line in lines)
    assert not any(audit.feed(line) for line in lines)
    assert audit.missing(source.size()) == []


def test_delays_grow_and_stay_short_at_the_end() -> None:
    retry = Retry()
    delays = []
    for _ in range(8):
        retry.failed()
        delays.append(retry.delay_s)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    retry.soon()
    retry.failed(urgent=True)
    assert retry.delay_s == 2
    for _ in range(3):
        retry.failed(urgent=True)
    assert retry.delay_s == 4


def test_paths_are_paths(tmp_path: Path) -> None:
    job = MirrorJob(str(tmp_path / "l"), "c", "r", "s", "2026-03-04", str(tmp_path))
    assert job.lock_path == tmp_path / "mirror" / "s.lock"


@pytest.mark.parametrize("turn", [1, 2, 3, 7, 100])
def test_lines_longer_than_a_read_come_whole(turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_openscope.mirror import audit

    monkeypatch.setattr(audit, "TURN_BYTES", turn)
    monkeypatch.setattr(audit, "BLOCK_BYTES", turn)
    data = b"one\n\n\nseventeen\nx\nthe rest"
    source = Memory(data)
    lines = [(0, b"one"), (4, b""), (5, b""), (6, b"seventeen"), (16, b"x")]
    assert list(log_lines(source, 0, len(data), rest=False)) == lines
    assert list(log_lines(source, 0, len(data), rest=True)) == [*lines, (18, b"the rest")]
    text = audit.whole_lines(source, 6, 18)
    assert text.endswith(b"\n")
    assert data[6:18].startswith(text)
    assert audit.whole_lines(source, 18, len(data)) == b""
