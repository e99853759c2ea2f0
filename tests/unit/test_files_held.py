"""Files that somebody else holds: virus scanners and indexers open what is new, and Windows refuses others meanwhile."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_openscope.system import files, patiently, read_json, remove_file, remove_tree, replace_file, write_json
from pytest_openscope.system.locks import FileLock

PACKAGE = Path(files.__file__).parents[1]


class Holder:
    """Holds files against everybody for the next ``refusals`` calls, as Windows tells it."""

    def __init__(self, refusals: int, error: type[OSError] = PermissionError, number: int = errno.EACCES) -> None:
        self.refusals = refusals
        self.error = error(number, "the file is being used by another process")
        self.asked = 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def refused_at_first(*args: Any, **more: Any) -> Any:
            self.asked += 1
            if self.refusals:
                self.refusals -= 1
                raise self.error
            return call(*args, **more)

        return refused_at_first


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the module believe that it runs on Windows, with a clock that only its pauses move on; return these."""
    pauses: list[float] = []
    monkeypatch.setattr(files, "sys", SimpleNamespace(platform="win32", version_info=sys.version_info))
    clock = SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append)
    monkeypatch.setattr(files, "time", clock)
    return pauses


def test_what_is_held_is_waited_for(windows: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    holder = Holder(6)
    monkeypatch.setattr(os, "replace", holder.around(os.replace))
    write_json(tmp_path / "end_state.json", {"outcome": "passed"})
    assert (holder.asked, read_json(tmp_path / "end_state.json")) == (7, {"outcome": "passed"})
    assert pauses_grow(windows), "a holder of milliseconds costs milliseconds"

    holder = Holder(3)
    monkeypatch.setattr(Path, "unlink", holder.around(Path.unlink))
    remove_file(tmp_path / "end_state.json")
    assert (holder.asked, list(tmp_path.iterdir())) == (4, [])
    remove_file(tmp_path / "end_state.json")  # one that is gone is gone

    (tmp_path / "clone" / ".git").mkdir(parents=True)
    (tmp_path / "clone" / ".git" / "object").write_bytes(b"x")
    holder = Holder(2, OSError, errno.ENOTEMPTY)
    monkeypatch.setattr(shutil, "rmtree", holder.around(shutil.rmtree))
    remove_tree(tmp_path / "clone")
    assert (holder.asked, list(tmp_path.iterdir())) == (3, [])


def pauses_grow(pauses: list[float]) -> bool:
    return pauses == sorted(pauses) and pauses[0] <= 0.01


def test_a_file_that_is_read_at_a_bad_moment_is_not_taken_for_missing(
    windows: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_json(tmp_path / "ledger.json", {"version": 1})
    holder = Holder(4)
    monkeypatch.setattr(Path, "read_text", holder.around(Path.read_text))
    assert read_json(tmp_path / "ledger.json") == {"version": 1}


def test_a_lock_file_that_is_held_for_a_moment_is_not_refused(
    windows: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    holder = Holder(4)
    monkeypatch.setattr(os, "open", holder.around(os.open))
    with FileLock(tmp_path / "rig.lock") as lock:
        assert lock.acquire()


def test_patience_ends(windows: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    holder = Holder(10_000)
    monkeypatch.setattr(os, "replace", holder.around(os.replace))
    (tmp_path / "state.json").write_bytes(b"old")
    with pytest.raises(PermissionError, match="used by another process"):
        files.write_atomic(tmp_path / "state.json", b"new")
    assert files.SHARING_RETRY_S < sum(windows) < files.SHARING_RETRY_S + 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"], "the old content stays, and nothing beside it"


def test_what_is_no_question_of_time_is_not_waited_for(windows: list[float]) -> None:
    for error in (FileNotFoundError(errno.ENOENT, "gone"), OSError(errno.ENOSPC, "disk full"), FileExistsError(17, "taken")):
        with pytest.raises(type(error)):
            patiently(Holder(1, type(error), error.errno or 0).around(bool))
    assert windows == []


@pytest.mark.skipif(sys.platform == "win32", reason="elsewhere nothing is held against anybody")
def test_elsewhere_a_missing_right_is_told_at_once() -> None:
    holder = Holder(1)
    with pytest.raises(PermissionError):
        patiently(holder.around(bool))
    assert holder.asked == 1


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows holds files against others")
def test_windows_itself_refuses_and_then_allows(tmp_path: Path) -> None:
    if sys.platform == "win32":
        import _winapi
        import ctypes

        create = ctypes.WinDLL("kernel32").CreateFileW
        create.restype = ctypes.c_void_p
        for number, act in enumerate((replace_file, lambda source, target: remove_file(target))):
            source, target = tmp_path / f"new{number}", tmp_path / f"old{number}"
            source.write_bytes(b"new")
            target.write_bytes(b"old")
            generic_read, share_read_write, open_existing = 0x80000000, 1 | 2, 3
            held = create(str(target), generic_read, share_read_write, None, open_existing, 0, None)
            with pytest.raises(PermissionError):
                os.replace(source, target)
            timer = threading.Timer(0.3, _winapi.CloseHandle, [held])
            timer.start()
            act(source, target)
            timer.join()
            assert not target.exists() or target.read_bytes() == b"new"


def test_nothing_in_the_package_renames_or_removes_a_file_in_haste() -> None:
    hasty = re.compile(r"\bos\.(replace|rename|unlink|remove)\(|\.(unlink|rename)\(|shutil\.(move|rmtree)\(")
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if hasty.search(line) and "patiently(" not in line and "ignore_errors=True" not in line:
                found.append(f"{path.relative_to(PACKAGE).as_posix()}:{number}: {line.strip()}")
    # The archiver's helper is a script of its own: what it is refused, it leaves to the engine, which is patient.
    assert [line for line in found if not line.startswith("modules/archiving/folders.py")] == []
