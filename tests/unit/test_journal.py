"""The journal when others lay hands on its file."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from pytest_openscope.records import journal as module
from pytest_openscope.records.journal import Journal, JournalReader
from pytest_openscope.system import files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no open file")


def test_threads_that_find_it_deleted_put_it_back_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("first")
    original, both, busy = files.put_back, threading.Event(), threading.Lock()

    def put_back(fd: int, path: Path) -> None:
        if not busy.acquire(blocking=False):
            both.set()
            return
        # Time enough for another thread to come in as well.
        both.wait(0.3)
        original(fd, path)
        busy.release()

    monkeypatch.setattr(module, "put_back", put_back)
    journal.path.unlink()
    threads = [threading.Thread(target=journal.write, args=(f"event {number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.is_set()
    assert sorted(event["event"] for event in JournalReader(journal.path).read()) == ["event 0", "event 1", "first"]
    journal.close()


def test_a_descriptor_that_somebody_closed_is_opened_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal._fd is not None
    os.close(journal._fd)
    journal.write("first")
    assert [event["event"] for event in JournalReader(journal.path).read()] == ["first"]
    journal.close()


def test_a_close_in_the_middle_of_an_event_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")

    def is_deleted(fd: int) -> bool:
        journal.close()
        return bool(os.fstat(fd).st_nlink)

    monkeypatch.setattr(module, "is_deleted", is_deleted)
    journal.write("last")
    assert JournalReader(journal.path).read() == []
    assert journal.lost == 0
    assert journal._fd is None


@pytest.mark.parametrize("events", [1, 50])
def test_a_reader_sees_what_comes_after_the_file_was_emptied(tmp_path: Path, events: int) -> None:
    """Also where it has grown beyond what was read before the reader looks again."""
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(10):
        journal.write("before", number=number)
    reader = JournalReader(journal.path)
    assert len(reader.read()) == 10
    os.truncate(journal.path, 0)
    for number in range(events):
        journal.write("after", number=number)
    assert [(event["event"], event["number"]) for event in reader.read()] == [("after", number) for number in range(events)]
    journal.write("last")
    assert [event["event"] for event in reader.read()] == ["last"]
    journal.close()


def test_an_event_may_hold_what_no_json_has(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("odd", name="rig\udc80", path=tmp_path, value=float("nan"), keys={"\udc80": 1}, sign="µ\u2028")
    (event,) = JournalReader(journal.path).read()
    odd = {key: event[key] for key in ("name", "path", "value", "keys", "sign")}
    assert odd == {"name": "rig\udc80", "path": str(tmp_path), "value": None, "keys": {"\udc80": 1}, "sign": "µ\u2028"}
    journal.close()
