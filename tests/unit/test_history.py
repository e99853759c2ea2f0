"""The history of rigs, from made-up session folders: what is read, what is told, what is kept when something goes wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.cli import main
from pytest_openscope.issues import fingerprint_of
from pytest_openscope.records import Failure, Outcome, Phase, to_json
from pytest_openscope.views.history import (
    HistoryError,
    HistorySource,
    answer_history,
    answers,
    finding,
    write_history_page,
)
from pytest_openscope.views.history.answers import HistoryAnswer
from pytest_openscope.views.history.control import Verdict, judge
from pytest_openscope.views.history.reading import TABLES, partition_name

duckdb = pytest.importorskip("duckdb", reason="the extra 'history' is not installed")
HOSTILE = "</td><script>document.title='owned'</script>[red]{{ 7*7 }}'\"\x1b[2J\u202e☃\ud800"
NOW = datetime.now(timezone.utc).replace(microsecond=0)


def session(root: Path, number: int = 0, *, rig: str = "bench", days_ago: float = 1.0, **more: Any) -> Path:
    """Write a session folder; ``more`` replaces keys of its end state."""
    start = NOW - timedelta(days=days_ago) + timedelta(minutes=number)
    folder = root / f"mouse7_{start:%Y-%m-%d_%H-%M-%S}"
    metadata = folder / "launcher_metadata"
    metadata.mkdir(parents=True)
    end = {
        "session_uuid": folder.name,
        "subject_id": "mouse7",
        "user_id": "ada",
        "rig_id": rig,
        "start_time": start.isoformat(),
        "stop_time": (start + timedelta(minutes=30)).isoformat(),
        "outcome": "passed",
        "exit_code": 0,
        "provisional": False,
        "dry_run": False,
        "steps": [
            {
                "name": "test_weigh",
                "phase": "pre_acquisition",
                "kind": "test",
                "outcome": "passed",
                "duration_s": 2.0,
                "attempts": [],
            },
            {
                "name": "test_run",
                "phase": "acquisition",
                "kind": "test",
                "outcome": "passed",
                "duration_s": 60.0,
                "attempts": [{}],
            },
        ],
        "measurements": [{"name": "weight", "value": 25.0, "unit": "g", "minimum": 10, "maximum": 60, "passed": True}],
        "devices": {"laser": {"driver": "lab:Laser", "simulated": None}},
        "failures": [],
        **more,
    }
    write(metadata / "end_state.json", end)
    return folder


def failed(
    step: str = "test_run", message: str = "the laser is hot", phase: str = "acquisition", **more: Any
) -> dict[str, Any]:
    """Return the keys of a failed session's end state."""
    failure = {"kind": "exception", "outcome": "failed", "phase": phase, "step": step, "message": message}
    return {"outcome": "failed", "exit_code": 1, "failures": [{**failure, "exception_type": "lab.TooHot", **more}]}


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


class Lab:
    """A root, a central directory and a database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "sessions"
        self.central = folder / "central"
        self.root.mkdir()
        self.central.mkdir()

    def ask(self, *sources: HistorySource, **options: Any) -> HistoryAnswer:
        given = sources or (HistorySource(self.root),)
        return answer_history(given, self.folder / "history.duckdb", **options)

    def copy(self, folder: Path) -> Path:
        """Put a session's copy into the central directory, as the mirror does."""
        end = json.loads((folder / "launcher_metadata" / "end_state.json").read_text(encoding="utf-8"))
        day = end["start_time"][:10].replace("-", "/")
        target = self.central / day / end["rig_id"] / folder.name
        shutil.copytree(folder / "launcher_metadata", target)
        (target / "launcher.log").write_text("x\n")
        return target


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the session folders whose files were read."""
    found: list[str] = []
    read = finding.read_session

    def noting(place: Any, stamp: str) -> Any:
        found.append(place.path.name)
        return read(place, stamp)

    monkeypatch.setattr(finding, "read_session", noting)
    return found


def test_sessions_are_counted_by_outcome_rig_week_step_and_device(lab: Lab) -> None:
    for number in range(6):
        session(lab.root, number, days_ago=22)
    session(lab.root, 0, days_ago=8, **failed())
    session(lab.root, 0, days_ago=2, rig="other", outcome="crashed", failures=[])
    session(
        lab.root, 1, days_ago=2, rig="other", outcome="interrupted", failures=[{"kind": "interrupt", "outcome": "interrupted"}]
    )
    session(lab.root, 0, days_ago=0.5, dry_run=True, outcome="failed")
    session(lab.root / "dry_runs", 0, days_ago=0.4, dry_run=True)
    answer = lab.ask()
    assert answer.problems == []
    assert {one["outcome"]: one["sessions"] for one in answer.outcomes} == {
        "passed": 6,
        "failed": 1,
        "crashed": 1,
        "interrupted": 1,
    }
    assert (answer.totals["sessions"], answer.totals["failed"], answer.totals["dry_runs_left_out"]) == (9, 2, 1)
    rigs = {one["rig_id"]: one for one in answer.rigs}
    assert (rigs["bench"]["sessions"], rigs["bench"]["passed"], rigs["bench"]["hours"]) == (7, 6, 3.5)
    assert (rigs["other"]["crashed"], rigs["other"]["interrupted"]) == (1, 1)
    weeks = {(NOW - timedelta(days=days)).date() for days in (22, 8, 2)}
    assert {one["week"] for one in answer.weeks} == {(day - timedelta(days=day.weekday())).isoformat() for day in weeks}
    assert sum(one["sessions"] for one in answer.weeks) == 9
    (weigh,) = (one for one in answer.steps if one["step"] == "test_weigh")
    assert (weigh["runs"], weigh["passed"], weigh["median_s"], weigh["repeated"]) == (9, 9, 2.0, 0)
    (laser,) = (one for one in answer.devices if one["rig_id"] == "bench")
    assert (laser["device"], laser["sessions"], laser["failed"], laser["failures_that_name_it"]) == ("laser", 7, 1, 1)
    only = lab.ask(rigs=("other",), since=(NOW - timedelta(days=5)).date())
    assert [one["rig_id"] for one in only.rigs] == ["other"]
    assert lab.ask(since=NOW.date() + timedelta(days=1)).totals["sessions"] == 0


def test_failures_of_one_defect_are_one_row_whatever_differs_in_them(lab: Lab) -> None:
    session(lab.root, 0, days_ago=9, **failed(message="the laser is hot: 71 C"))
    session(lab.root, 0, days_ago=5, **failed(message="the laser is hot: 88 C"), rig="other")
    session(lab.root, 0, days_ago=3, **failed(message="the shutter is stuck"))
    hot, stuck = lab.ask().failures
    assert (hot["failures"], hot["sessions"], hot["rigs"], hot["devices"], hot["days_between"]) == (
        2,
        2,
        ["bench", "other"],
        ["laser"],
        4.0,
    )
    assert (hot["message"], hot["step"], hot["exception_type"]) == ("the laser is hot: 88 C", "test_run", "lab.TooHot")
    assert (stuck["failures"], stuck["days_between"]) == (1, None)
    first = Failure(
        "exception", Outcome.FAILED, "the laser is hot: 71 C", "lab.TooHot", phase=Phase.ACQUISITION, step="test_run"
    )
    assert hot["fingerprint"] == fingerprint_of(first)


def test_the_fingerprint_of_a_report_counts(lab: Lab) -> None:
    folder = session(lab.root, **failed())
    reported = {"fingerprint": "v1:0123456789ab", "status": "created", "issue_url": "https://github.com/lab/x/issues/3"}
    whole = to_json(Failure("exception", Outcome.FAILED, "hot", "lab.TooHot", phase=Phase.ACQUISITION, step="test_run"))
    debug = {"failure": whole, "other_failures": [], "github": {"reports": [reported]}}
    write(folder / "launcher_metadata" / "debug_state.json", debug)
    (one,) = lab.ask().failures
    assert (one["fingerprint"], one["issue_url"]) == ("v1:0123456789ab", "https://github.com/lab/x/issues/3")
    # Answered later: the issue is known with the next look.
    debug["github"] = {"reports": [{**reported, "issue_url": "https://github.com/lab/x/issues/44"}]}
    write(folder / "launcher_metadata" / "debug_state.json", debug)
    assert lab.ask().failures[0]["issue_url"] == "https://github.com/lab/x/issues/44"


def test_time_between_failures(lab: Lab) -> None:
    for number, days_ago in enumerate((20, 16, 14, 10, 9, 8, 4)):
        session(lab.root, number, days_ago=days_ago, **(failed() if days_ago in (16, 10, 4) else {}))
    session(lab.root, 30, days_ago=4)
    (rig,) = lab.ask().rigs
    assert (rig["hours"], rig["failed"]) == (4.0, 3)
    assert (rig["hours_between_failures"], rig["sessions_between_failures"]) == (1.333, 2.7)
    assert rig["days_between_failures"] == pytest.approx(6.0, abs=0.01)
    assert rig["sessions_since_failure"] == 1


def test_a_value_that_drifts_is_told_before_it_fails(lab: Lab) -> None:
    source = random.Random(7)
    for number in range(60):
        power = 50 + source.gauss(0, 0.2) - max(0, number - 45) * 0.3
        values = {"laser_mw": (power, 45, 60), "steady": (50 + source.gauss(0, 0.2), 45, 60)}
        measured = [
            {"name": name, "value": value, "unit": "mW", "minimum": low, "maximum": high, "passed": True}
            for name, (value, low, high) in values.items()
        ]
        assert power > 45
        steps = [{"name": "test_run", "phase": "acquisition", "outcome": "passed", "duration_s": 60.0 if number < 59 else 95.0}]
        session(lab.root, number, days_ago=61 - number, measurements=measured, steps=steps)
    told = "\n".join(lab.ask().told)
    assert "rig bench: laser_mw drifts down" in told
    assert "reaches its minimum 45 mW in about" in told
    assert "duration of test_run is outside its control limits: 95 s" in told
    assert "steady" not in told
    assert "(session)" not in told


def test_a_subject_has_a_past_of_its_own(lab: Lab) -> None:
    """On a rig with light and heavy animals the loss of one is within what the rig measures."""
    source = random.Random(3)
    for number in range(40):
        for place, (name, grams) in enumerate((("light", 20.0), ("heavy", 32.0))):
            loss = 0.3 * max(0, number - 31) if name == "heavy" else 0.0
            weight = [{"name": "weight", "value": grams + source.gauss(0, 0.1) - loss, "unit": "g", "minimum": 10}]
            session(lab.root, place, days_ago=41 - number, subject_id=name, measurements=weight)
    told = [line for line in lab.ask().told if "weight" in line]
    assert len(told) == 1
    assert told[0].startswith("subject heavy: weight drifts down")


def test_a_series_that_has_ended_is_told_no_more(lab: Lab) -> None:
    for number in range(12):
        value = {"name": "old_laser", "value": 50.0 + number % 3 if number < 11 else 90.0, "unit": "mW"}
        session(lab.root, number, days_ago=90, measurements=[value])
    assert any("old_laser" in line for line in lab.ask().told)
    session(lab.root, 0, days_ago=1, measurements=[])
    assert not any("old_laser" in line for line in lab.ask().told)


def test_the_judge() -> None:
    source = random.Random(11)
    quiet = 0
    for _ in range(300):
        quiet += not judge([source.gauss(10, 1) for _ in range(58)], 0, 20).told
    assert quiet >= 290
    assert judge([1.0] * 8) == Verdict()
    assert not judge([5.0] * 58).told
    assert judge([5.0] * 57 + [5.1]).outside
    assert judge([10.0, 10.2, 9.8] * 10 + [11.0, 10.9, 11.1, 11.0, 10.8, 11.0, 11.2, 10.9]).drift == "up"
    slow = judge([20 + 0.1 * number for number in range(58)], None, 27.0)
    assert (slow.drift, slow.reaches, slow.reaches_in) == ("up", "maximum", 13)
    # A wider step of a duration is no news while it is small.
    assert judge([2.0, 2.01] * 10 + [2.2], smallest_sigma=0.25).told is False


def test_only_what_is_new_or_has_changed_is_read(lab: Lab, reads: list[str]) -> None:
    old, young = session(lab.root, days_ago=90), session(lab.root, days_ago=2)
    running = session(lab.root, 1, days_ago=60, provisional=True, outcome=None, stop_time=None)
    lab.ask()
    assert sorted(reads) == sorted(path.name for path in (old, young, running))
    reads.clear()
    lab.ask()
    assert reads == []
    new = session(lab.root, days_ago=1)
    for folder in (old, young, running):
        end = json.loads((folder / "launcher_metadata" / "end_state.json").read_text())
        write(folder / "launcher_metadata" / "end_state.json", {**end, "outcome": "crashed", "provisional": False})
    answer = lab.ask()
    # What has ended long ago is taken as known, until somebody asks for all.
    assert sorted(reads) == sorted(path.name for path in (new, young, running))
    assert answer.totals["crashed"] == 2
    assert lab.ask(full=True).totals["crashed"] == 3
    # Archived away: what was known stays.
    shutil.rmtree(old)
    assert lab.ask(full=True).totals["sessions"] == 4


def test_a_session_and_its_central_copy_are_one(lab: Lab, reads: list[str]) -> None:
    one, other = session(lab.root, days_ago=50), session(lab.root, days_ago=1, **failed())
    copies = [lab.copy(one), lab.copy(other)]
    central = HistorySource(lab.central, central=True)
    assert lab.ask(central).totals["sessions"] == 2
    assert lab.ask(central, HistorySource(lab.root)).totals["sessions"] == 2
    assert len(lab.ask(central, HistorySource(lab.root)).failures) == 1
    reads.clear()
    # A PC of the same synchronised session, and a copy whose states have not come yet.
    shutil.copytree(copies[1], copies[1].parents[1] / "second" / copies[1].name)
    second = copies[1].parents[1] / "second" / copies[1].name
    end = json.loads((second / "end_state.json").read_text())
    (second / "debug_state.json").unlink(missing_ok=True)
    write(second / "end_state.json", {**end, "rig_id": "second"})
    third = copies[1].parents[1] / "third" / "mouse9_2026-01-01_00-00-00"
    third.mkdir(parents=True)
    (third / "launcher.log").write_text("x\n")
    answer = lab.ask(central)
    assert sorted(reads) == sorted([second.name, third.name])
    outcomes = {(row["rig_id"], row["sessions"], row["failed"], row["unknown"]) for row in answer.rigs}
    assert outcomes == {("bench", 2, 1, 0), ("second", 1, 1, 0), ("third", 1, 0, 1)}


def test_a_copy_whose_name_was_taken_counts(lab: Lab) -> None:
    """Where the name was somebody else's, the mirror puts a number behind the names of its files."""
    copy = lab.copy(session(lab.root, days_ago=2, **failed()))
    (copy / "end_state.json").rename(copy / "end_state-2.json")
    (copy / "launcher.log").rename(copy / "launcher-2.log")
    central = HistorySource(lab.central, central=True)
    assert (lab.ask(central).totals["failed"], lab.ask(central, HistorySource(lab.root)).totals["sessions"]) == (1, 1)


def test_a_day_that_was_read_is_listed_no_more_unless_a_session_of_it_may_still_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.copy(session(lab.root, days_ago=50))
    open_one = lab.copy(session(lab.root, days_ago=45, provisional=True, outcome=None))
    lab.copy(session(lab.root, days_ago=1))
    central = HistorySource(lab.central, central=True)
    lab.ask(central)
    listed: list[Path] = []
    below = finding._subfolders
    monkeypatch.setattr(finding, "_subfolders", lambda folder: [listed.append(folder), below(folder)][1])
    assert lab.ask(central).totals["unknown"] == 1
    days = {path.relative_to(lab.central).as_posix() for path in listed if len(path.relative_to(lab.central).parts) == 3}
    assert days == {(NOW - timedelta(days=days)).strftime("%Y/%m/%d") for days in (45, 1)}
    end = json.loads((open_one / "end_state.json").read_text())
    write(open_one / "end_state.json", {**end, "outcome": "passed", "provisional": False})
    assert lab.ask(central).totals["unknown"] == 0


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b'{"outcome": "pas', b"[1, 2]", b"null", b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}"]
)
def test_a_damaged_end_state_is_a_session_without_a_known_end(lab: Lab, content: bytes) -> None:
    folder = session(lab.root, days_ago=3)
    (folder / "launcher_metadata" / "end_state.json").write_bytes(content)
    session(lab.root, days_ago=2)
    answer = lab.ask()
    assert answer.problems == []
    assert {one["outcome"]: one["sessions"] for one in answer.outcomes} == {"damaged": 1, "passed": 1}


def test_values_of_other_kinds_than_their_names_say(lab: Lab) -> None:
    odd = [None, True, 3, 1e400, 10**40, "text", [], [None, 3, "x"], [{}], {}, {"a": {"b": 1}}, "\0", "\ud800", HOSTILE]
    keys = [
        "session_uuid",
        "subject_id",
        "user_id",
        "rig_id",
        "start_time",
        "stop_time",
        "outcome",
        "exit_code",
        "steps",
        "measurements",
        "devices",
        "failures",
        "mirror",
        "continues",
        "version",
        "lost_records",
        "rig_config",
        "process_returncode",
    ]
    for number, value in enumerate(odd):
        for place, key in enumerate(keys):
            session(lab.root, place, days_ago=40 + number, **{key: value})
        inner = dict.fromkeys(
            ("name", "value", "unit", "minimum", "duration_s", "attempts", "kind", "message", "step", "phase"), value
        )
        session(lab.root, 99, days_ago=40 + number, steps=[inner], measurements=[inner], failures=[inner], devices={"x": inner})
    for number, value in enumerate(odd):
        link = {"type": "x", "message": value, "frames": value}
        failure = {"kind": "crash", "outcome": "failed", "message": value, "chain": [link], "faulthandler": value}
        folder = session(lab.root, number, days_ago=1, **failed())
        write(folder / "launcher_metadata" / "debug_state.json", {"failure": failure, "github": value, "platform": value})
    folder = session(lab.root, days_ago=0.5, **failed())
    write(folder / "launcher_metadata" / "debug_state.json", {"failure": odd, "other_failures": 5, "exception": odd})
    answer = lab.ask()
    assert answer.totals["sessions"] >= len(odd) * len(keys)
    assert answer.problems == []
    json.dumps(vars(answer))


def test_what_the_launcher_left_before_counts_too(lab: Lab) -> None:
    old = {
        "session_uuid": "s1",
        "subject_id": "mouse7",
        "start_time": "2025-03-04T09:00:00",
        "stop_time": "2025-03-04T09:30:00",
    }
    for number, (code, debug) in enumerate(
        [(0, None), (1, None), (0, {"exception": "no camera", "crash_info": {"exception_type": "OSError"}}), (None, None)]
    ):
        folder = lab.root / f"old{number}" / "launcher_metadata"
        folder.mkdir(parents=True)
        write(
            folder / "end_state.json",
            {**old, "session_uuid": f"old{number}", "process_returncode": code, "rig_config": {"rig_id": "W10"}},
        )
        if debug:
            write(folder / "debug_state.json", debug)
    answer = lab.ask()
    assert {one["outcome"]: one["sessions"] for one in answer.outcomes} == {"passed": 1, "failed": 2, "unknown": 1}
    assert [(one["rig_id"], one["hours"]) for one in answer.rigs] == [("W10", 2.0)]
    assert [(one["exception_type"], one["message"]) for one in answer.failures] == [("OSError", "no camera")]


def test_running_sessions_foreign_folders_and_files(lab: Lab) -> None:
    running = lab.root / "mouse7_2026-03-04_09-00-00" / "launcher_metadata"
    running.mkdir(parents=True)
    begun = {
        "event": "session",
        "session_uuid": "mouse7_2026-03-04_09-00-00",
        "rig_id": "bench",
        "started": "2026-03-04T09:00:00+01:00",
    }
    (running / "journal.jsonl").write_bytes(b"\xff torn\n" + json.dumps(begun).encode() + b"\n{")
    for name in ("holiday pictures", "☃", "launcher_metadata", "a'b;--"):
        (lab.root / name).mkdir()
    (lab.root / "notes.txt").write_text("x")
    (lab.root / "launcher_metadata" / "end_state.json").write_text("{}")
    answer = lab.ask()
    assert [(one["outcome"], one["sessions"]) for one in answer.outcomes] == [("unfinished", 1)]
    assert answer.rigs[0]["rig_id"] == "bench"
    write(
        running / "end_state.json",
        {**begun, "start_time": begun["started"], "stop_time": "2026-03-04T10:00:00+01:00", "outcome": "crashed"},
    )
    answer = lab.ask()
    assert [(one["outcome"], one["sessions"]) for one in answer.outcomes] == [("crashed", 1)]


def test_a_share_that_goes_away_in_the_middle_loses_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        session(lab.root, number, days_ago=number % 5 + 1)
    monkeypatch.setattr(finding, "_BATCH", 10)
    read, count = finding.read_session, 0

    def failing(place: Any, stamp: str) -> Any:
        nonlocal count
        count += 1
        if count > 25:
            raise OSError(5, "Input/output error", str(place.path))
        return read(place, stamp)

    monkeypatch.setattr(finding, "read_session", failing)
    answer = lab.ask()
    assert answer.totals["sessions"] == 25
    assert "cannot be read now (Input/output error); the answer is from what is known of it" in answer.problems[0]
    monkeypatch.setattr(finding, "read_session", read)
    kept = lab.root.rename(lab.folder / "gone")
    answer = lab.ask()
    assert answer.totals["sessions"] == 25
    assert "the answer is from what is known of it" in answer.problems[0]
    kept.rename(lab.root)
    assert (lab.ask().totals["sessions"], lab.ask().problems) == (60, [])


def test_a_central_folder_that_cannot_be_read_is_told_and_read_next_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = [lab.copy(session(lab.root, number, days_ago=days)) for number, days in enumerate((60, 50, 40))]
    central = HistorySource(lab.central, central=True)
    below = finding._subfolders

    def failing(folder: Path) -> list[Path]:
        if folder == copies[1].parent:
            raise PermissionError(13, "Permission denied", str(folder))
        return below(folder)

    monkeypatch.setattr(finding, "_subfolders", failing)
    answer = lab.ask(central)
    assert answer.totals["sessions"] == 2
    assert "1 folder cannot be read now (Permission denied); tried again next time" in answer.problems[0]
    monkeypatch.setattr(finding, "_subfolders", below)
    assert (lab.ask(central).totals["sessions"], lab.ask(central).problems) == (3, [])


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe stands for a file on a share that does not answer")
def test_a_share_that_never_answers_does_not_hold_the_command(lab: Lab) -> None:
    for number in range(3):
        session(lab.root, number, days_ago=3)
    lab.ask()
    hangs = session(lab.root, days_ago=1) / "launcher_metadata" / "end_state.json"
    hangs.unlink()
    os.mkfifo(hangs)
    code = (
        "import sys; from pytest_openscope.cli import main; from pytest_openscope.views.history import finding; "
        "finding._SILENCE_S = 0.5; sys.exit(main(sys.argv[1:]))"
    )
    given = ["history", "--root", str(lab.root), "--database", str(lab.folder / "history.duckdb"), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, timeout=60)
    assert (done.returncode, json.loads(done.stdout)["totals"]["sessions"]) == (1, 3)
    assert b"cannot be read now (no answer within 0.5 s)" in done.stderr


def test_ctrl_c_within_a_query_is_no_error(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session(lab.root)
    monkeypatch.setattr("pytest_openscope.cli.history.step_back", lambda: None)

    def long(database: Any, *_: Any) -> None:
        threading.Timer(0.3, database.connection.interrupt).start()  # what DuckDB does at a Ctrl-C
        database.connection.execute("SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b")

    monkeypatch.setattr(answers, "_ask", long)
    assert main(command(lab, "--json")[3:]) in (2, 130)
    assert "rror" not in capsys.readouterr().err
    monkeypatch.undo()
    assert lab.ask().totals["sessions"] == 1


def command(lab: Lab, *more: str) -> list[str]:
    database = str(lab.folder / "history.duckdb")
    return [sys.executable, "-m", "pytest_openscope", "history", "--root", str(lab.root), "--database", database, *more]


def test_two_at_once_and_one_that_is_killed(lab: Lab) -> None:
    for number in range(300):
        session(lab.root, number, days_ago=number % 20 + 1)
    killed = subprocess.Popen(command(lab, "--json"), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (lab.folder / "history.duckdb").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    both = [subprocess.Popen(command(lab, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, b"Traceback" in errors) == (0, False), errors.decode()
        assert json.loads(output)["totals"]["sessions"] == 300


def test_a_database_in_use_and_a_damaged_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session(lab.root)
    database = lab.folder / "history.duckdb"
    arguments = ["history", "--root", str(lab.root), "--database", str(database), "--json"]
    monkeypatch.setattr("pytest_openscope.cli.history.step_back", lambda: None)
    assert main(arguments) == 0
    monkeypatch.setattr(answers, "_TELL_AFTER_S", 0.05)
    monkeypatch.setattr("pytest_openscope.views.history.answers.WAIT_S", 0.05)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); sys.stdin.read()",
            str(database),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    capsys.readouterr()
    assert main(arguments) == 1
    assert "close what has it open, look for room on the disk, or give another --database" in capsys.readouterr().err
    holder.communicate(b"")
    assert not list(lab.folder.glob("*.damaged*"))
    for content in (b"no database", b"", database.read_bytes()[:5000] + bytes(20_000)):
        database.write_bytes(content)
        code = main(arguments)
        output, errors = capsys.readouterr()
        assert json.loads(output)["totals"]["sessions"] == 1
        assert (code == 1) == ("was damaged" in errors)
        assert "Traceback" not in errors
    kept = lab.folder / "history.duckdb.damaged-1"
    assert kept.read_bytes() == b"no database"


def test_the_database_of_another_version_is_left_as_it_is(lab: Lab) -> None:
    session(lab.root)
    lab.ask()
    with duckdb.connect(str(lab.folder / "history.duckdb")) as connection:
        connection.execute("UPDATE facts SET value = '0' WHERE name = 'version'")
    for _ in range(2):
        with pytest.raises(
            HistoryError, match=r"made by another version of pytest-openscope -> give another one with --database"
        ):
            lab.ask()
    with duckdb.connect(str(lab.folder / "history.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM sessions").fetchall() == [(1,)]
    assert not list(lab.folder.glob("*.damaged*"))


def test_names_with_any_characters(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jinja2")
    monkeypatch.setattr("pytest_openscope.cli.history.step_back", lambda: None)
    root = (
        lab.folder / 'it\'s ☃ a "root"; DROP TABLE sessions'
        if os.name != "nt"
        else lab.folder / "it's ☃ a root; DROP TABLE sessions"
    )
    steps = [{"name": HOSTILE, "phase": HOSTILE, "outcome": "passed", "duration_s": 1.0}]
    measured = [{"name": HOSTILE, "value": 1.0, "unit": HOSTILE}]
    for number in range(12):
        texts = {"subject_id": HOSTILE, "steps": steps, "measurements": measured, "devices": {HOSTILE: {"driver": HOSTILE}}}
        session(root, number, rig=HOSTILE, days_ago=2, **{**failed(step=HOSTILE, message=HOSTILE), **texts})
    page = lab.folder / "it's.html"
    given = [
        "history",
        "--root",
        str(root),
        "--database",
        str(lab.folder / "it's.duckdb"),
        "--parquet",
        str(lab.folder / "it's pq"),
    ]
    assert main([*given, "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "{{ 7*7 }}" in text
    assert "script-src" not in text
    assert "default-src 'none'" in text
    capsys.readouterr()
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert "[red]" in "".join(shown.split())
    assert "\x1b[2J" not in shown
    assert "\u202e" not in shown


def test_the_page_in_a_browser(lab: Lab, browser: Any) -> None:
    source = random.Random(1)
    for number in range(40):
        power = {"name": "laser", "value": 50 + source.gauss(0, 0.2) - max(0, number - 31) * 0.4, "unit": "mW", "minimum": 45}
        more = failed(message=f"the laser is hot {HOSTILE}") if number % 10 == 4 else {}
        session(lab.root, number, days_ago=41 - number, measurements=[power], **more)
    path = lab.folder / "history.html"
    write_history_page(lab.ask(), path)
    complaints: list[str] = []
    requests: list[str] = []
    page = browser.new_context(color_scheme="light", viewport={"width": 1280, "height": 900}).new_page()
    page.on("console", lambda one: complaints.append(one.text))
    page.on("pageerror", lambda one: complaints.append(str(one)))
    page.on("request", lambda one: requests.append(one.url))
    page.goto(path.as_uri())
    text = page.inner_text("body")
    order = [
        "History of 40 sessions",
        "laser drifts down",
        "Fingerprint",
        "Hours between failures",
        "Sessions with a failure that names it",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    told = page.query_selector("figure.told")
    assert "laser" in told.inner_text()
    line = told.query_selector("polyline").bounding_box()
    assert (line["width"] > 200, line["height"] > 30) == (True, True)
    assert len(told.query_selector_all("circle")) == 40
    bars = [bar.bounding_box()["height"] for bar in page.query_selector_all(".weeks .part.passed")]
    assert max(bars) > 60
    # Nothing from a rig runs, nothing is loaded, and nothing sticks out of the page.
    assert page.title() == "History: 40 sessions"
    assert complaints == []
    assert requests == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.wait_for_timeout(200)
    assert page.title() == "History: 40 sessions"
    assert any("Content Security Policy" in one for one in complaints)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_folders_whose_names_are_no_text(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_openscope.cli.history.step_back", lambda: None)
    root = lab.folder / os.fsdecode(b"root\xff\n")
    session(root).rename(root / os.fsdecode(b"mouse\xe9 '\n\x1b[2J"))
    session(root, session_uuid=None, rig_id=None).rename(root / os.fsdecode(b"mouse\xe8_2026-03-04_25-61-00"))
    given = ["history", "--root", str(root), "--database", str(lab.folder / "x.duckdb"), "--rig", "bench", "--rig", "unknown"]
    for more in ([], ["--json"], ["--rig", os.fsdecode(b"\xff")], ["--parquet", str(lab.folder / "tables")]):
        assert main([*given, *more]) == 0
        shown = capsys.readouterr().out
        assert "2 sessions" in shown or '"sessions": 2' in shown
        assert "\x1b[2J" not in shown
    assert main([*given, "--parquet", os.fsdecode(b"\xff")]) == 4
    assert "DuckDB takes no name with such bytes" in capsys.readouterr().err


def test_eighty_columns_hold_every_number_and_day(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_openscope.cli.history.step_back", lambda: None)
    session(lab.root, rig="minimal", days_ago=3)
    session(lab.root, rig="minimal", days_ago=2, **failed())
    given = ["history", "--root", str(lab.root), "--database", str(lab.folder / "x.duckdb")]
    day = (NOW - timedelta(days=2)).astimezone().date().isoformat()
    monkeypatch.setenv("COLUMNS", "80")
    assert main(given) == 0
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 80
    monkeypatch.delenv("COLUMNS")
    assert main(given) == 0
    wide = capsys.readouterr().out
    for shown in (narrow, wide):
        (row,) = (line.split() for line in shown.splitlines() if line.split()[:2] == ["minimal", "2"])
        assert [row[place] for place in (1, 2, 3, 4, -1)] == ["2", "1", "1", "0", day]
        assert any(line.startswith("v1:") and day in line for line in shown.splitlines())
    assert any("test_weigh" in line and "pre_acquisition" in line for line in narrow.splitlines())


def test_rigs_are_folders_that_every_system_takes() -> None:
    assert partition_name("rig-1_b") == "rig-1_b"
    names = [
        partition_name(name) for name in ("Rig-1", "rig-1", "RIG-1", "rig 1", "rig/1", "", "☃", "x" * 300, "CON", "a=b", "..")
    ]
    assert len({name.lower() for name in names}) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") and len(name) < 80 for name in names)


def test_the_parquet_files_say_the_same_to_another_engine(lab: Lab) -> None:
    polars = pytest.importorskip("polars")
    for number in range(30):
        rig = ("bench", "Rig 2", "it's ☃")[number % 3]
        session(lab.root, number, rig=rig, days_ago=number % 4 + 1, **(failed() if number % 5 == 0 else {}))
    session(lab.root, 50, dry_run=True)
    target = lab.folder / "tables"
    answer = lab.ask(parquet=target)

    def table(name: str) -> Any:
        return polars.scan_parquet(target / name / "**/*.parquet", hive_partitioning=True)

    sessions = table("sessions").collect()
    assert sessions.height == answer.totals["sessions"] == 30
    by_rig = dict(sessions.group_by("rig_id").agg(polars.len()).iter_rows())
    assert by_rig == {one["rig_id"]: one["sessions"] for one in answer.rigs}
    assert round(sessions["duration_s"].sum() / 3600, 3) == answer.totals["hours"]
    assert sessions.schema["started"].is_temporal()
    assert sessions.schema["date"] == polars.Date
    failures = table("failures").group_by("fingerprint").agg(polars.len()).collect()
    assert dict(failures.iter_rows()) == {one["fingerprint"]: one["failures"] for one in answer.failures}
    joined = table("measurements").join(table("sessions"), on="session_id").select(polars.len()).collect().item()
    assert joined == 30
    assert table("steps").filter(polars.col("rig") == "bench").select(polars.len()).collect().item() == 20
    assert sorted(path.name.partition("=")[0] for path in (target / "devices").iterdir()) == ["date"] * 4
    # And to DuckDB without our database.
    files = (target / "steps" / "**" / "*.parquet").as_posix()
    read = f"SELECT count(*) FROM read_parquet('{files}', hive_partitioning = true)"
    assert duckdb.sql(read).fetchall() == [(60,)]


def test_only_partitions_that_changed_are_written_again(lab: Lab) -> None:
    polars = pytest.importorskip("polars")
    first = session(lab.root, days_ago=3)
    session(lab.root, days_ago=2, **failed())
    target = lab.folder / "tables"
    lab.ask(parquet=target)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*.parquet")}
    session(lab.root, 1, days_ago=2)
    lab.ask()
    lab.ask(parquet=target)
    changed = {path.parent.parent.name for path in target.rglob("*.parquet") if before.get(path) != path.stat().st_mtime_ns}
    assert changed == {f"date={(NOW - timedelta(days=2)).date()}"}
    assert polars.scan_parquet(target / "sessions" / "**/*.parquet").collect().height == 3
    # A failure that was taken back leaves its table.
    end = json.loads((first / "launcher_metadata" / "end_state.json").read_text())
    write(first / "launcher_metadata" / "end_state.json", {**end, "measurements": []})
    lab.ask(parquet=target)
    assert polars.scan_parquet(target / "measurements" / "**/*.parquet").collect().height == 2
    # One that was killed while it wrote leaves nothing behind for long.
    (left,) = target.glob("_history-*.json")
    (target / left.stem.replace("_history", "_writing") / "sessions").mkdir(parents=True)
    lab.ask(parquet=target)
    assert not list(target.glob("_writing*"))
    # What somebody removed is written again when all is asked for, or when the folder is new.
    shutil.rmtree(target)
    lab.ask(parquet=target)
    assert polars.scan_parquet(target / "sessions" / "**/*.parquet").collect().height == 3
    assert not list(target.glob("_writing*"))


def test_the_command(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_openscope.cli.history.step_back", lambda: None)
    monkeypatch.setenv("XDG_STATE_HOME" if sys.platform != "win32" else "LOCALAPPDATA", str(lab.folder / "state"))
    session(lab.root, days_ago=5, **failed())
    session(lab.root, days_ago=300)
    rig_file = lab.folder / "rig.yaml"
    rig_file.write_text(f"rig_id: bench\noutput_root_folder: '{lab.root}'\n", encoding="utf-8")
    assert main(["history", "--rig-config", str(rig_file)]) == 0
    shown = capsys.readouterr().out
    assert "2 sessions" in shown
    assert "TooHot" in shown
    assert (lab.folder / "state" / "pytest-openscope" / "history.duckdb").is_file()
    assert main(["history", "--root", str(lab.root), "--since", "30d", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["sessions"] == 1
    assert main(["history", "--root", str(lab.root), "--since", date.today().isoformat()]) == 0
    assert "0 sessions" in capsys.readouterr().out
    assert main(["history"]) == 4
    assert "add --root FOLDER, --central FOLDER or --rig-config FILE" in capsys.readouterr().err
    wrong = ["--since", "yesterday", "--html", str(lab.folder / "no" / "x.html"), "--database", str(lab.folder)]
    assert main(["history", "--root", str(lab.root), *wrong]) == 4
    errors = capsys.readouterr().err
    assert all(words in errors for words in ("--since 'yesterday'", "--html", "--database"))
    assert main(["history", "--root", str(lab.folder / "nowhere")]) == 1
    assert f"{lab.folder / 'nowhere'} cannot be read now (" in capsys.readouterr().err
    (folder, *_) = lab.root.iterdir()
    assert main(["history", "--root", str(folder)]) == 4
    assert "is a session folder -> give the folder above it" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["history", "--root", str(lab.root)]) == 4
    assert 'pip install "pytest-openscope[history]"' in capsys.readouterr().err


def test_the_page_on_the_history_names_every_column() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "look-at-the-history.md").read_text(encoding="utf-8")
    for name, columns in TABLES.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` | `session_id`"))
        assert [cell.strip(" `") for cell in row.split("|")[2].split(",")] == [
            one for column in columns.split(", ") if (one := column.split()[0]) not in ("date", "rig")
        ]
