"""Names that every system can have, and deaths told from what Windows leaves."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import pytest

from pytest_openscope.config.roots import default_state_directory
from pytest_openscope.mirror.files import folder_name
from pytest_openscope.records.folder import is_folder_name, is_reserved, safe_name, session_name
from pytest_openscope.sidecar.reconstruct import SessionView, failure_of_death
from pytest_openscope.system import make_private_folder, write_json

START = datetime(2026, 3, 4, 5, 6, 7)


@pytest.mark.parametrize("name", ["mouse_7", "..x", "con_2", "com0", "console", "a.b"])
def test_names_for_everywhere(name: str) -> None:
    assert is_folder_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a.", "a ", "CON", "nul.txt", "com3 ", "Lpt9.a.b", "a:b", "a\tb", "a\0"])
def test_names_that_windows_refuses_or_changes(name: str) -> None:
    assert not is_folder_name(name)


def test_devices_of_windows_are_got_round() -> None:
    assert session_name("con", START) == "con_2026-03-04_05-06-07"
    assert session_name("aux.1", START) == "_aux.1_2026-03-04_05-06-07"
    assert folder_name("COM3") == "_COM3"
    assert folder_name("rig-3") == "rig-3"
    assert safe_name("nul", "") == "_nul"
    assert [safe_name(name, "") for name in ("conin$", "CONOUT$.txt", "com\u00b9", "Lpt\u00b3")] == [
        "_conin$", "_CONOUT$.txt", "_com\u00b9", "_Lpt\u00b3",
    ]  # fmt: skip
    assert default_state_directory("prn", {"HOME": "/home/me", "USERPROFILE": "C:/me"}).name == "_prn"
    assert not is_reserved("rig")


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (1, "ended with exit code 1"),
        (0xC0000005, "died: access violation"),
        (None, "died: access violation"),
    ],
)
def test_a_fault_that_a_library_mended_ended_nothing(tmp_path: Path, exit_code: int | None, words: str) -> None:
    (tmp_path / "launcher_metadata").mkdir()
    text = "Windows fatal exception: access violation\n\nThread 0x00001a2c (most recent call first):\n"
    (tmp_path / "launcher_metadata" / "faulthandler.log").write_text(text, encoding="utf-8")
    assert words in failure_of_death(SessionView(tmp_path), exit_code).message


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_a_private_folder_is_closed_to_others_unless_they_may_write_to_it(tmp_path: Path) -> None:
    for mode, expected in ((0o755, 0o700), (0o700, 0o700), (0o775, 0o775), (0o1777, 0o1777)):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        make_private_folder(folder)
        assert folder.stat().st_mode & 0o7777 == expected
    make_private_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    path = tmp_path / "report.json"
    write_json(path, {}, private=True)
    write_json(path, {"again": 1})
    assert path.stat().st_mode & 0o777 == 0o600
