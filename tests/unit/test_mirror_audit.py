"""The audit by hand: a day's log mended from the sessions' own copies."""

from __future__ import annotations

from pathlib import Path

import pytest
from mirror_tools import Bench, check_day, day_lines

from pytest_openscope.cli import main
from pytest_openscope.mirror.audit import audit_day_log as audit


@pytest.fixture
def benches(tmp_path: Path) -> list[Bench]:
    (tmp_path / "central").mkdir()
    made = [Bench(tmp_path / f"pc{i}", tmp_path / "central", rig=f"rig {i}") for i in range(3)]
    for i, bench in enumerate(made):
        (bench.log.parent / "end_state.json").write_text("{}", encoding="utf-8")
        bench.chat(60, seed=i)
        bench.mirror()
    return made


def damage(day: Path, change) -> None:
    data = bytearray(day.read_bytes())
    change(data)
    day.write_bytes(data)


def test_a_whole_log_is_clean(benches: list[Bench]) -> None:
    before = benches[0].job.day_log.read_bytes()
    report = audit(benches[0].job.day_log)
    assert report.clean
    assert report.lines == 180
    assert (report.blanked, report.appended) == (0, 0)
    assert report.sessions == ["rig 0/mouse_1", "rig 1/mouse_1", "rig 2/mouse_1"]
    assert benches[0].job.day_log.read_bytes() == before


def test_all_kinds_of_damage_at_once(benches: list[Bench]) -> None:
    day = benches[0].job.day_log
    doubled = day.read_bytes().split(b"\n")[70] + b"\n"

    def change(data: bytearray) -> None:
        data += doubled * 2
        data[2000:2600] = bytes(600)
        del data[4000:4100]
        data[7000:7040] = doubled[:40]
        data += b"rig%201 mouse_1 77 00"

    damage(day, change)
    report = audit(day)
    assert report.clean
    assert report.blanked >= 5
    assert report.appended >= 5
    check_day(day, *benches)
    assert "clean" in str(report)


def test_everything_lost(benches: list[Bench]) -> None:
    day = benches[0].job.day_log
    day.write_bytes(b"")
    assert audit(day).appended == 180
    check_day(day, *benches)


def test_a_running_session_appends_by_itself(benches: list[Bench]) -> None:
    running = benches[1]
    (running.job.own_folder / "end_state.json").unlink()
    day = running.job.day_log
    lines = [raw for raw in day.read_bytes().split(b"\n") if not raw.startswith(running.job.key)]
    day.write_bytes(b"\n".join(lines))
    report = audit(day)
    assert report.running == ["rig 1/mouse_1"]
    assert running.job.key not in day_lines(day)
    running.mirror()
    check_day(day, *benches)


def test_other_programs_lines_stay(benches: list[Bench]) -> None:
    day = benches[0].job.day_log
    with day.open("ab") as stream:
        stream.write(b"2026-03-04 10:00:00,1 - INFO - the launcher\n  File x, line 1\n")
    report = audit(day)
    assert report.clean
    assert report.other_lines == 2
    assert "the launcher" in day.read_text(encoding="utf-8")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "launcher.log").write_text("hello\n", encoding="utf-8")
    with pytest.raises(OSError):
        audit(tmp_path / "launcher.log")
    assert (tmp_path / "launcher.log").read_text(encoding="utf-8") == "hello\n"


def test_two_logs_in_a_folder_are_not_judged(benches: list[Bench]) -> None:
    (benches[2].job.own_folder / "launcher-2.log").write_text("x", encoding="utf-8")
    report = audit(benches[0].job.day_log)
    assert report.clean
    assert "rig 2/mouse_1" in report.unclear[0]


def test_the_command(benches: list[Bench], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day = benches[0].job.day_log
    day.write_bytes(day.read_bytes()[:5000])
    assert main(["audit", str(day.parent)]) == 1
    assert "appended: clean" in capsys.readouterr().out
    check_day(day, *benches)
    assert main(["audit", str(day.parent)]) == 0
    assert main(["audit", str(tmp_path / "none.log"), str(day)]) == 4
    said = capsys.readouterr()
    assert said.err.startswith(f"ERROR: {tmp_path / 'none.log'}: there is no such day's log -> ")
    assert "0 appended: clean" in said.out
    (tmp_path / "launcher.log").write_text("hello\n", encoding="utf-8")
    assert main(["audit", str(tmp_path)]) == 4
    assert "is no day's log of this package -> " in capsys.readouterr().err
    assert main(["audit"]) == 4
    assert "ERROR: " in capsys.readouterr().err
