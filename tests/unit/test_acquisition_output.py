"""Lines out of raw output: the bytes alone decide, and a journal's mark gives back what the log lacks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.acquisition import output
from pytest_openscope.acquisition.output import CONTINUES, LineSplitter, StreamFollower, replay

PIECES = st.sampled_from([b"a", b"b", b" ", b"\r", b"\n", b"\r\n", b"\xc3\xa9", b"\xff", b"xyzxyzxyzxyz"])
OUTPUT = st.lists(PIECES, max_size=30).map(b"".join)


def short_lines(test: Callable[..., None]) -> Callable[..., None]:
    """Make lines of 9 bytes overlong within a test, so that small examples meet every limit."""

    @functools.wraps(test)
    def wrapper(*arguments: object, **named: object) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(output, "MAX_LINE_BYTES", 8)
            patch.setattr(output, "BLOCK_BYTES", 5)
            test(*arguments, **named)

    return wrapper


def lines_of(data: bytes) -> list[bytes]:
    splitter = LineSplitter()
    return splitter.feed(data) + splitter.finish()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"one\r\ntwo\r\r\nend", [b"one", b"two", b"end"]),
        (b"\n\n", [b"", b""]),
        (b"10%\r20%\r100%\n", [b"100%"]),
        (b"\r10%\r20%\nnext\n", [b"20%", b"next"]),
        (b"10%\r     \r\n", [b"10%"]),
        (b"10%\r20%\r", [b"20%"]),
        (b"  indented\n   \n", [b"  indented", b"   "]),
        (b"\xff\xfe\n", [b"\xff\xfe"]),
        (b"a\rb\r\nc\nd\r\n", [b"b", b"c", b"d"]),
    ],
)
def test_lines(data: bytes, expected: list[bytes]) -> None:
    assert lines_of(data) == expected


def test_an_overlong_line_comes_in_pieces_that_give_it_back() -> None:
    text = ("é" * 1_500_001).encode()
    pieces = lines_of(text + b"\n")
    assert all(piece.endswith(CONTINUES) for piece in pieces[:-1])
    assert b"".join(piece.removesuffix(CONTINUES) for piece in pieces) == text
    assert all(piece.removesuffix(CONTINUES).decode() for piece in pieces)
    assert max(map(len, pieces)) <= output.MAX_LINE_BYTES + len(CONTINUES)


@given(data=OUTPUT, cuts=st.lists(st.integers(0, 200), max_size=12))
@short_lines
def test_blocks_do_not_matter(data: bytes, cuts: list[int]) -> None:
    splitter = LineSplitter()
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    lines = [line for start, end in itertools.pairwise(places) for line in splitter.feed(data[start:end])]
    assert lines + splitter.finish() == lines_of(data)


@given(data=OUTPUT, steps=st.lists(st.tuples(st.integers(1, 7), st.booleans()), min_size=1, max_size=40), at=st.data())
@short_lines
def test_replay_from_the_last_mark_gives_exactly_what_is_missing(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, steps: list[tuple[int, bool]], at: st.DataObject
) -> None:
    """Dies at any moment: the lines before it, and the replay, are what a splitter makes of the rest."""
    splitter = LineSplitter()
    written: list[bytes] = []
    mark, since_mark, position = 0, 0, 0
    for size, show_progress in steps:
        lines = splitter.feed(data[position : position + size])
        position = min(len(data), position + size)
        written += lines
        since_mark += len(lines)
        progress = splitter.progress() if show_progress else None
        if progress is not None:
            written.append(progress[0])
            mark, since_mark = progress[1], 1
    rest = splitter.feed(data[position:]) + splitter.finish()
    lost = at.draw(st.integers(0, since_mark))
    path = tmp_path_factory.mktemp("raw") / "raw"
    path.write_bytes(data)
    again = [line for lines in replay(path, mark, since_mark - lost) for line in lines]
    assert again == written[len(written) - lost :] + rest


def test_replay_of_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        list(replay(tmp_path / "none"))


def test_a_follower_marks_before_it_hands_on_and_again_after_a_loss(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"")
    log: list[tuple[str, object]] = []
    answers = iter([None, 0, 5, 7])

    def sink(logger: str, lines: list[bytes], raw_from: int, raw_to: int) -> object:
        log.append((logger, (lines, raw_from, raw_to)))
        return next(answers)

    follower = StreamFollower("stdout", "acquisition.x.stdout", raw, lambda stream, at: log.append(("mark", at)), sink)
    with raw.open("ab", buffering=0) as stream:
        for text in (b"one\n", b"two\nth", b"ree\n", b"four\n"):
            stream.write(text)
            follower.poll()
    follower.finish()
    name = "acquisition.x.stdout"
    assert log == [
        ("mark", 0),
        (name, ([b"one"], 0, 4)),
        (name, ([b"two"], 4, 8)),
        ("mark", 8),
        (name, ([b"three"], 8, 14)),
        (name, ([b"four"], 14, 19)),
    ]
    assert follower.tail_text() == ["one", "two", "three", "four"]
