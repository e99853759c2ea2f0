"""The grammar of the session log: any record comes back exactly, and damage is told, not hidden."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openscope.log.lines import (
    Damage,
    LogEntry,
    encode_batch,
    encode_record,
    escape_field,
    head,
    last_lines,
    read_log,
    unescape,
)
from pytest_openscope.system.times import time_field

NASTY = "\n\r\t\x00\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ud800\udfff\x1b\\x{}|_- 2aé😀\u00a0\u3000\ufeff"
any_text = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.text(st.sampled_from(NASTY), max_size=60),
)
LINE = "2025-11-23T09:42:00.123456+01:00 INFO acquisition test_run my.camera exposure 10 ms\n"


@contextmanager
def log_file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "launcher.log"
        path.write_bytes(data)
        yield path


def read(data: bytes, start: int = 0) -> tuple[list[LogEntry], list[Damage]]:
    damage: list[Damage] = []
    with log_file(data) as path:
        return list(read_log(path, damage.append, start)), damage


record = st.fixed_dictionaries(
    {"level": any_text, "logger": any_text, "message": any_text, "phase": any_text, "step": any_text},
    optional={"at": st.floats(0, 4e9)},
)


@settings(max_examples=300, deadline=None)
@given(st.lists(record, max_size=5))
def test_every_record_comes_back_exactly(records: list[dict]) -> None:
    entries, damage = read(b"".join(encode_record(**record) for record in records))
    assert damage == []
    assert len(entries) == len(records)
    for entry, given_ in zip(entries, records, strict=True):
        assert entry[1:6] == tuple(given_[key] for key in ("level", "phase", "step", "logger", "message"))
        if "at" in given_:
            assert abs(entry.timestamp.timestamp() - given_["at"]) < 2e-6


@settings(max_examples=200, deadline=None)
@given(st.lists(record, min_size=1, max_size=3))
def test_the_file_is_utf8_in_lines_that_every_program_sees_alike(records: list[dict]) -> None:
    data = b"".join(encode_record(**record) for record in records)
    text = data.decode("utf-8")
    assert text.splitlines() == text.split("\n")[:-1]
    assert not set(text) & set("\r\0\x1b\x85\u2028")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.binary(), any_text.map(lambda text: text.encode("utf-8", "replace"))), max_size=6))
def test_raw_lines_of_a_child_come_back_exactly(lines: list[bytes]) -> None:
    entries, damage = read(encode_batch(time_field(1.5), head("INFO", "acquisition", "run", "child"), lines))
    assert damage == []
    assert [entry.message.encode("utf-8", "surrogateescape") for entry in entries] == lines
    assert {entry.logger for entry in entries} <= {"child"}


@settings(max_examples=200, deadline=None)
@given(any_text)
def test_a_record_inside_a_record_stays_inside(text: str) -> None:
    message = LINE + text + "\n" + LINE
    entries, damage = read(encode_record("INFO", "a", message) + encode_record("INFO", "b", "after"))
    assert [entry.message for entry in entries] == [message, "after"]
    assert damage == []


@settings(max_examples=200, deadline=None)
@given(record, record, st.integers(0, 10_000))
def test_a_log_cut_anywhere_gives_its_whole_records_and_tells_of_the_rest(first: dict, second: dict, cut: int) -> None:
    one, two = encode_record(**first), encode_record(**second)
    end = len(one) + cut % len(two)
    entries, damage = read((one + two)[:end])
    assert [entry.message for entry in entries] == [first["message"]]
    assert bool(damage) == (end > len(one))
    assert sum(part.length for part in damage) == end - len(one)


def test_a_plain_record_looks_plain() -> None:
    line = encode_record("INFO", "my.camera", r"saved C:\Users\x\new.tif, 5 µm, 100 %", "acquisition", "test_run", at=0.25)
    assert re.fullmatch(
        rb"\d{4}-\d\d-\d\dT\d\d:\d\d:00\.250000[+-]\d\d:\d\d INFO acquisition test_run my\.camera "
        + re.escape(r"saved C:\Users\x\new.tif, 5 µm, 100 %".encode())
        + b"\n",
        line,
    )


def test_further_lines_are_marked_and_the_last_one_too() -> None:
    text = encode_record("ERROR", "my", "one\ntwo\nthree", at=0).decode()
    assert [line.split(" - - ")[-1] for line in text.splitlines()] == ["my| one", "| two", "|_three"]


@pytest.mark.parametrize("message", ["", "\n", "\n\n", "a\n", "\na", " ", "|", "|_", "| x", "x" * 1_000_000, "é\n" * 300_000])
def test_messages_at_the_edges(message: str) -> None:
    entries, damage = read(encode_record("INFO", "a", message) * 2)
    assert [entry.message for entry in entries] == [message, message]
    assert damage == []


@pytest.mark.parametrize("text", ["", "-", "--", "|", "a|", "a b", r"\x{20}", "two words[a\nb]", "\\"])
def test_fields_hold_any_name(text: str) -> None:
    field = escape_field(text)
    assert " " not in field
    assert not field.endswith("|")
    assert ("" if field == "-" else unescape(field)) == text


def test_what_looks_like_an_escape_but_is_none_stays() -> None:
    assert unescape(r"\x{110000} \x{} \x{zz} \x41 \n") == r"\x{110000} \x{} \x{zz} \x41 \n"


def test_offsets_lead_back_to_the_record() -> None:
    data = b"".join(encode_record("INFO", "a", f"é{number}\nmore") for number in range(5))
    entries, _ = read(data)
    again, damage = read(data, entries[3].offset)
    assert again == entries[3:]
    assert damage == []


@pytest.mark.parametrize(
    ("data", "messages", "kinds"),
    [
        (LINE + "Segmentation fault\n" + LINE, 2, ["foreign line"]),
        (LINE + "\n\n" + LINE, 2, []),
        (LINE + "\0" * 4096 + LINE, 2, ["NUL bytes"]),
        (LINE + LINE[:40] + "\0" * 100 + "\n" + LINE, 2, ["NUL bytes"]),
        (LINE + "\0" * 4096, 1, ["NUL bytes"]),
        (LINE + LINE[:-1], 1, ["torn line"]),
        (LINE + "| a\n|_b\n", 1, ["stray continuation", "stray continuation"]),
        (LINE.replace("camera ", "camera| ") + "| a\n" + LINE, 1, ["unfinished record"]),
        (LINE.replace("camera ", "camera| ") + "Killed\n|_b\n" + LINE, 2, ["foreign line"]),
        (LINE.replace("camera ", "camera| ") + "| a\n", 0, ["unfinished record"]),
        (LINE.replace("\n", "\r\n") * 2, 2, []),
        (LINE.rstrip("\n").rsplit(" ", 3)[0] + "\n", 1, []),
        ("2025-11-23T99:42:00.123456+01:00 INFO - - a b\n", 0, ["foreign line"]),
        ("", 0, []),
    ],
)
def test_damage_is_told(data: str, messages: int, kinds: list[str]) -> None:
    entries, damage = read(data.encode())
    assert len(entries) == messages
    assert [part.kind for part in damage] == kinds


def test_a_line_that_is_not_utf8_is_damage_with_its_readable_text() -> None:
    entries, damage = read(LINE.encode() + b"2025 caf\xe9\n" + LINE.encode())
    assert len(entries) == 2
    assert [(part.kind, part.text, part.offset) for part in damage] == [("not UTF-8", "2025 caf\ufffd", len(LINE))]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_the_reader_survives_anything(junk: bytes) -> None:
    entries, damage = read(junk)
    assert all(isinstance(entry, LogEntry) for entry in entries)
    assert sum(part.length for part in damage) <= len(junk)


def test_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"")
    assert last_lines(path, 5) == []
    path.write_bytes(b"one\ntwo\nthree")
    assert last_lines(path, 2) == ["two", "three"]
    path.write_bytes(b"one\n\ntwo\n")
    assert last_lines(path, 2) == ["", "two"]
    assert last_lines(path, 9) == ["one", "", "two"]
    assert last_lines(path, 0) == []
    path.write_bytes(b"".join(b"%07d\n" % number for number in range(100_000)))
    assert last_lines(path, 20_000) == [f"{number:07d}" for number in range(80_000, 100_000)]
    path.write_bytes(b"x" * 3_000_000 + b"\nend\n")
    lines = last_lines(path, 5)
    assert lines[1] == "end"
    assert len(lines[0]) < 1024 * 1024


def test_the_examples_of_the_documentation_are_true() -> None:
    page = Path(__file__, "../../../docs/reference/session-log.md").resolve().read_text(encoding="utf-8")
    examples = re.findall(r"```log\n(.*?)```", page, re.DOTALL)
    assert len(examples) >= 3
    for example in examples:
        entries, damage = read(example.encode("utf-8"))
        assert entries
        assert damage == []
        lines = [
            encode_record(entry.level, entry.logger, entry.message, entry.phase, entry.step, entry.timestamp.timestamp())
            for entry in entries
        ]
        without_time = [re.sub(rb"(?m)^\d{4}-\S+", b"", data) for data in (b"".join(lines), example.encode("utf-8"))]
        assert without_time[0] == without_time[1]
