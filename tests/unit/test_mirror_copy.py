"""The session's own copy: continued from its own length, mended, verified, and never over a foreign file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, cast

import pytest
from mirror_tools import Bench, check_day, sha

from pytest_openscope.mirror.copy import METADATA_MAX_BYTES, Hint, OwnCopy, SourceLog
from pytest_openscope.mirror.day_log import DayLog
from pytest_openscope.mirror.worker import Worker, check_root

BLOCK = 64 * 1024


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "central").mkdir()
    return Bench(tmp_path, tmp_path / "central")


def own_copy(bench: Bench, warnings: list[str] | None = None) -> OwnCopy:
    noted = [] if warnings is None else warnings
    return OwnCopy(bench.job, SourceLog(bench.log), Hint(bench.job.hint_path), lambda: None, noted.append)


def follow(copy: OwnCopy) -> None:
    while copy.follow():
        pass


def test_grows_with_the_log_in_mid_line_too(bench: Bench) -> None:
    copy = own_copy(bench)
    for part in (b"a li", b"ne\nanother\r\n", b"\0\xff\xfe no newline", os.urandom(3 * BLOCK + 17)):
        bench.write(part)
        follow(copy)
        assert bench.copy.read_bytes() == bench.log.read_bytes()
    assert copy.verify() == sha(bench.log)


def test_a_restart_continues_without_rewriting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write(os.urandom(5 * BLOCK + 100))
    first = own_copy(bench)
    follow(first)
    first.drop()
    bench.write(b"more\n")
    written: list[int] = []
    write = os.write
    second = own_copy(bench)
    second.source.size()
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(len(data)) or write(fd, data))
    follow(second)
    assert sum(written) < BLOCK
    assert bench.same()


@pytest.mark.parametrize("damage", ["zeroed tail", "zeroed middle", "short", "long", "late block"])
def test_damage_is_mended_at_the_end(bench: Bench, damage: str) -> None:
    bench.write(os.urandom(6 * BLOCK + 1000))
    copy = own_copy(bench)
    follow(copy)
    data = bytearray(bench.copy.read_bytes())
    if damage == "zeroed tail":
        data[-5000:] = bytes(5000)
    elif damage == "zeroed middle":
        data[BLOCK + 10 : 2 * BLOCK] = bytes(BLOCK - 10)
    elif damage == "short":
        del data[-3 * BLOCK :]
    elif damage == "long":
        data += b"somebody's late write"
    else:
        data[2 * BLOCK : 2 * BLOCK + 100] = data[:100]
    bench.copy.write_bytes(data)
    assert copy.verify() == sha(bench.log)
    assert bench.same()


def test_a_restart_mends_a_bad_tail_at_once(bench: Bench) -> None:
    bench.write(os.urandom(4 * BLOCK))
    copy = own_copy(bench)
    follow(copy)
    copy.drop()
    with bench.copy.open("r+b") as stream:
        stream.seek(-100, 2)
        stream.write(bytes(100))
    follow(own_copy(bench))
    assert bench.same()


def test_a_log_that_was_taken_back_is_followed(bench: Bench) -> None:
    bench.write(b"whole line\npart of a li")
    copy = own_copy(bench)
    follow(copy)
    with bench.log.open("r+b") as stream:
        stream.truncate(11)
    follow(copy)
    bench.write(b"another line, longer than what was there\n")
    follow(copy)
    assert bench.same()
    with bench.log.open("r+b") as stream:
        stream.truncate(20)
        stream.seek(0, 2)
        stream.write(b"rewritten between two looks, longer again\n" * 2)
    follow(copy)
    assert bench.same()


def test_a_foreign_file_is_left_alone(bench: Bench) -> None:
    bench.copy.parent.mkdir(parents=True)
    bench.copy.write_bytes(b"somebody else's log\n")
    (bench.copy.parent / "end_state.json").write_text("theirs", encoding="utf-8")
    (bench.log.parent / "end_state.json").write_text("ours", encoding="utf-8")
    bench.chat(10)
    warnings: list[str] = []
    copy = own_copy(bench, warnings)
    follow(copy)
    copy.verify()
    copy.copy_metadata()
    follow(own_copy(bench, []))
    assert bench.copy.read_bytes() == b"somebody else's log\n"
    assert (bench.copy.parent / "end_state.json").read_text(encoding="utf-8") == "theirs"
    assert (bench.copy.parent / "end_state-2.json").read_text(encoding="utf-8") == "ours"
    assert (bench.copy.parent / "launcher-2.log").read_bytes() == bench.log.read_bytes()
    assert len(warnings) == 1
    assert "launcher-2.log" in warnings[0]


def test_a_longer_foreign_file_with_the_same_beginning_is_left_alone(bench: Bench) -> None:
    bench.copy.parent.mkdir(parents=True)
    bench.copy.write_bytes(b"2026-03-04 and then something else\n")
    bench.write(b"2026-03-0")
    copy = own_copy(bench)
    assert not copy.follow()
    assert copy.number is None
    bench.write(b"4 of ours\n")
    follow(copy)
    assert copy.number == 2
    assert bench.copy.read_bytes() == b"2026-03-04 and then something else\n"


def test_foreign_metadata_without_a_log_is_left_alone(bench: Bench) -> None:
    bench.copy.parent.mkdir(parents=True)
    (bench.copy.parent / "debug_state.json").write_text("theirs", encoding="utf-8")
    bench.chat(3)
    copy = own_copy(bench)
    follow(copy)
    assert copy.number == 2


def test_metadata_files_are_replaced_whole(bench: Bench) -> None:
    local = bench.log.parent
    (local / "end_state.json").write_text('{"a": 1}', encoding="utf-8")
    (local / "resource_usage.json").write_bytes(b" " * (METADATA_MAX_BYTES + 1))
    bench.chat(3)
    warnings: list[str] = []
    copy = own_copy(bench, warnings)
    follow(copy)
    copy.copy_metadata()
    (local / "end_state.json").write_text('{"a": 2}', encoding="utf-8")
    copy.copy_metadata()
    names = sorted(path.name for path in bench.copy.parent.iterdir())
    assert names == ["end_state.json", "launcher.log"]
    assert json.loads((bench.copy.parent / "end_state.json").read_text(encoding="utf-8")) == {"a": 2}
    assert "resource_usage.json" in warnings[0]


def test_a_replaced_folder_is_noticed(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_openscope.mirror.copy._LOOK_S", 0.0)
    bench.chat(5)
    copy = own_copy(bench)
    follow(copy)
    (tmp_path / "central").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        copy.follow()


def test_an_old_session_may_be_mirrored_again(bench: Bench) -> None:
    bench.chat(200)
    bench.write(b"no newline at the end")
    bench.mirror()
    bench.mirror()
    assert bench.same()
    check_day(bench.job.day_log, bench)


def test_a_vanished_directory_is_not_made_anew(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "central").rmdir()
    bench.chat(5)
    with pytest.raises(FileNotFoundError, match="gone"):
        own_copy(bench).follow()
    assert not (tmp_path / "central").exists()


class TestRoot:
    """Which central directory may be created, and which is missing."""

    def test_one_level_is_created(self, tmp_path: Path) -> None:
        check_root(tmp_path / "central", tmp_path / "notes.json")
        assert (tmp_path / "central").is_dir()

    def test_two_levels_are_a_missing_share(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            check_root(tmp_path / "share" / "central", tmp_path / "notes.json")
        assert not (tmp_path / "share").exists()

    def test_what_was_seen_is_not_created_again(self, tmp_path: Path) -> None:
        root = tmp_path / "central", tmp_path / "notes.json"
        check_root(*root)
        (tmp_path / "central").rmdir()
        with pytest.raises(FileNotFoundError, match="gone"):
            check_root(*root)
        (tmp_path / "central").mkdir()
        check_root(*root)

    def test_an_unmounted_share_is_missing(self, tmp_path: Path) -> None:
        (tmp_path / "central").mkdir()
        mount = str(tmp_path / "central")
        (tmp_path / "notes.json").write_text(json.dumps({mount: mount}), encoding="utf-8")
        with pytest.raises(FileNotFoundError, match="nothing is mounted"):
            check_root(tmp_path / "central", tmp_path / "notes.json")

    @pytest.mark.skipif(os.name == "nt", reason="POSIX mount folders")
    def test_nothing_is_created_where_shares_are_mounted(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="does not exist"):
            check_root(Path("/mnt/pytest-openscope-no-such-share"), tmp_path / "notes.json")


def test_the_end_of_a_session_does_not_wait_for_the_next_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a session a turn of the day's log comes once a second; at its end the rest is written at once."""
    monkeypatch.setattr("pytest_openscope.mirror.day_log.INTERVAL_S", 60.0)
    source, hint = SourceLog(bench.log), Hint(bench.job.hint_path)
    day = DayLog(bench.job, source, hint, lambda: None, lambda text: None)
    day.fresh = True
    bench.chat(3)
    day.turn()
    bench.chat(3, seed=1)
    assert day.turn() is False
    assert day.done != bench.log.stat().st_size
    started = time.monotonic()
    while day.settled != bench.log.stat().st_size:
        day.turn(finishing=True)
    assert time.monotonic() - started < 30
    check_day(bench.job.day_log, bench)


class Said:
    """In the place of a worker's reporter: keeps each report, and a beat is always due."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    def due(self) -> bool:
        return True

    def send(self, **report: Any) -> None:
        self.reports.append(report)


def test_a_beat_on_the_way_does_not_tell_of_an_order_that_is_not_done(bench: Bench) -> None:
    """The sidecar takes an order for done by its number, and ends the worker."""
    said = Said()
    worker = Worker(bench.job, cast(Any, said))
    bench.write(b"a line\n")
    state = bench.log.with_name("end_state.json")
    for order, text in ((1, "pending"), (2, "verified")):
        state.write_text(text, encoding="utf-8")
        worker.commands.put(order)
        worker._obey(0.0)
        worker.beat()
        assert said.reports[-1]["order"] == 0, "taken, and not done"
        until = time.monotonic() + 30
        while worker.state != "verified" and time.monotonic() < until:
            worker._round()
        worker.beat()
        assert said.reports[-1]["order"] == order
    worker.copy.drop()
    worker.day.drop()
    assert (bench.copy.parent / "end_state.json").read_text(encoding="utf-8") == "verified"
