"""What the terminal's area says, and the lines that stand for it elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.text import Text

from pytest_openscope.log import SessionLog
from pytest_openscope.views.terminal.content import Progress, Seen, clean, clock, plain_line
from pytest_openscope.views.terminal.picture import Picture
from pytest_openscope.views.values import size

FULL = Seen(
    title="mouse7_2026-01-01_00-00-00",
    step="acquisition step test_with_a_name_that_is_as_long_as_names_of_steps_are_in_some_laboratories",
    step_s=3723.4,
    session_s=8000,
    last_output=("camera.stdout", "frame " * 60),
    progress=Progress(512, 2048, "frames", 100.0, 160.0),
    waiting="Is the shutter closed, the lid on, the light off, and the animal awake? [y/n]",
    waiting_s=75,
    stopping="Ctrl-C: " + "stopping camera (at most 33 s); " * 40,
    stopping_s=4,
    errors=1,
    warnings=2,
    facts=["81 GB free", "mirror 1.2 MB behind"],
)


@pytest.mark.parametrize("width", [40, 59, 60, 80, 199, 200])
@pytest.mark.parametrize("colour", [True, False])
def test_no_line_is_wider_than_the_terminal_and_the_times_are_always_there(width: int, colour: bool) -> None:
    lines = Picture(colour).lines(FULL, width)
    plain = [Text.from_ansi(line).plain for line in lines]
    assert [line for line in plain if cell_len(line) > width] == []
    # Rule, step, bar, output, counts, three lines of what Ctrl-C does, question.
    assert len(plain) == 9
    assert plain[0].endswith("session 2:13:20 ──")
    assert "1:02:03" in plain[1]
    assert plain[4].strip().startswith("1 error · 2 warnings")
    assert plain[5].endswith(" 0:00:04 ago")
    assert plain[7].rstrip().endswith("…")
    assert plain[8].startswith(">> ANSWER NEEDED: Is th")
    assert "0:01:15" in plain[8]
    assert any("\x1b" in line for line in lines) == colour


def test_wide_characters_count_as_two() -> None:
    seen = Seen(title="マウス" * 30, step="acquisition step 撮影" + "撮" * 60, step_s=1, facts=["1 GB free"])
    for line in Picture(True).lines(seen, 60):
        assert cell_len(Text.from_ansi(line).plain) <= 60


def test_ascii_only() -> None:
    picture = Picture(False, ascii_only=True)
    assert "\n".join(picture.lines(FULL, 100)).isascii()
    assert picture.prompt_line("ANSWER NEEDED " * 20, 60).isascii()


def test_progress_says_how_much_and_how_long_still() -> None:
    assert str(Progress(12, 40, "frames", 0, 3)) == "30 % (12 of 40 frames)"
    assert Progress(12, 40, "frames", 0, 3).left_s == pytest.approx(7)
    assert str(Progress(1.5e9, 3e9, "bytes", 0, 1)) == "50 % (1.5 GB of 3 GB)"
    assert str(Progress(12345, None, "frames", 0, 1)) == "12,345 frames"
    # More than there is, nothing, and nonsense: said as it is, without a bar that bursts.
    for done, total in ((50, 40), (0, 40), (-1, 40)):
        one = Progress(done, total, "", 0, 1)
        assert one.share is not None
        assert 0 <= one.share <= 1
        assert Picture(False).lines(Seen(progress=one), 60)
    for total in (0, -3, None):
        assert Progress(1, total, "", 0, 1).share is None
        assert Progress(1, total, "", 0, 1).left_s is None
        assert Picture(False).lines(Seen(progress=Progress(1, total, "", 0, 1)), 60)


def test_markup_and_control_characters_are_text() -> None:
    assert clean("a\x1b[2Jb\tc\r\n") == "a [2Jb c"
    (line,) = [one for one in Picture(False).lines(Seen(last_output=("x", "[red]no[/red] :smile:")), 80) if "red" in one]
    assert line.strip() == "x: [red]no[/red] :smile:"


def test_durations_and_sizes() -> None:
    assert [clock(one) for one in (0, 59.9, 3600, 90061)] == ["0:00:00", "0:00:59", "1:00:00", "25:01:01"]
    assert [size(one) for one in (0, 999, 1500, 2e6, 3.2e9, 4e12)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "2 MB",
        "3.2 GB",
        "4 TB",
    ]


def test_the_sign_of_life_says_everything_in_one_line() -> None:
    line = plain_line(FULL)
    assert "\n" not in line
    for part in (
        "WAITING for an answer for 0:01:15",
        "1:02:03",
        "25 % (512 of 2,048 frames)",
        "1 error, 2 warnings",
        "81 GB free",
    ):
        assert part in line


def test_the_log_counts_warnings_and_errors_also_before_there_is_a_file(tmp_path: Path) -> None:
    log: Any = SessionLog(logging.DEBUG)
    for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        log.write(level, "a", "early")
    log.open(tmp_path / "log", lambda text: text.replace("secret", "***"))
    log.write("WARNING", "a", "late")
    assert (log.warnings, log.errors) == (2, 2)
    assert log.masked("a secret") == "a ***"
    log.close()
