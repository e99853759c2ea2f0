"""Records, steps and samples at a real OTLP/HTTP receiver: whole, in order, once, whatever dies or is away."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra 'otel' is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from otlp_kit import Receiver, plain
from sidecar_kit import Run, Start, eventually, kill

from pytest_openscope.log import read_next
from pytest_openscope.log.lines import read_log
from pytest_openscope.records.folder import METADATA
from pytest_openscope.sidecar.recovery import recover


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


def settings(receiver: Receiver, **more: Any) -> dict[str, Any]:
    return {
        "endpoint": receiver.url,
        "headers_env": "OTEL_TEST_HEADERS",
        "signals": ["logs", "traces", "metrics"],
        "include_subject_user": False,
        "timeout_s": 0.5,
        "finish_s": 60.0,
        **more,
    }


def owed(run: Run) -> list[str]:
    folder = run.folder.parent / "state" / "otel"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def sent(run: Run) -> None:
    """Wait until nothing is owed."""
    run.wait(60)
    assert eventually(lambda: run.view.finished and not owed(run), 90), run.sidecar_log()


def workers(run: Run) -> list[int]:
    """Pids of the processes that send this session."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        mine = "pytest_openscope.sidecar.otel_worker" in line and json.dumps(str(run.folder)) in line[-1]
        if mine and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def lab(receiver: Receiver) -> list[str]:
    return [record.body.string_value for _, scope, record in receiver.records if scope == "lab"]


def in_log(run: Run) -> list[str]:
    """What stands in the session log, but for what the sidecar wrote after everything was sent."""
    return [entry.message for entry in run.entries()]


def test_records_steps_and_samples_arrive(start: Start, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TEST_HEADERS", "authorization=Bearer%20abc123,x-lab=ours")
    run = start(
        ["collected"],
        ["ready"],
        ["step", "acquisition", "video"],
        ["record", "shutter open\nfor mouse1", "acquisition", "video", "lab", "WARNING"],
        ["step_done", "acquisition", "video", "failed"],
        ["record", "done"],
        ["end", "failed"],
        otel=settings(receiver),
        rig_id="rig7",
        host="scope-pc",
        session_uuid="mouse1_2026-05-01_09-30-00",
    )
    sent(run)
    assert [path for path, _, headers in receiver.requests if headers["x-lab"] != "ours"] == []
    assert {headers["authorization"] for _, _, headers in receiver.requests} == {"Bearer abc123"}
    (resource, _, record), (_, _, last) = [one for one in receiver.records if one[1] == "lab"]
    assert (resource["service.name"], resource["openscope.rig"], resource["host.name"]) == (
        "pytest-openscope",
        "rig7",
        "scope-pc",
    )
    assert resource["openscope.session"] == "<subject>_2026-05-01_09-30-00"
    assert record.body.string_value == "shutter open\nfor <subject>"
    assert (record.severity_text, record.severity_number) == ("WARNING", 13)
    attributes = plain(record.attributes)
    assert (attributes["openscope.phase"], attributes["openscope.step"]) == ("acquisition", "video")
    assert "openscope.step" not in plain(last.attributes)
    (entry,) = [one for one in run.entries() if one.step == "video"]
    assert record.time_unix_nano == round(entry.timestamp.timestamp() * 1e6) * 1000
    step, whole = sorted(receiver.spans, key=lambda span: span.name, reverse=True)
    assert (step.name, step.status.code, plain(step.attributes)["openscope.outcome"]) == ("video", 2, "failed")
    assert (whole.name, whole.status.message, whole.parent_span_id) == ("session", "failed", b"")
    assert step.parent_span_id == whole.span_id == last.span_id
    assert (record.trace_id, record.span_id) == (step.trace_id, step.span_id)
    assert whole.start_time_unix_nano <= step.start_time_unix_nano <= step.end_time_unix_nano <= whole.end_time_unix_nano
    samples = run.json("resource_usage.json")
    memory = [
        (at, value)
        for name, of, at, value in receiver.points
        if (name, of) == ("process.memory.usage", {"openscope.process": "experiment"})
    ]
    assert len(memory) == len({at for at, _ in memory}) == len([one for one in samples if one["launcher"]])
    assert b"mouse1" not in b"".join(request.SerializeToString() for _, request, _ in receiver.requests)


def test_subject_and_user_are_named_where_that_is_allowed(start: Start, receiver: Receiver) -> None:
    run = start(["collected"], ["record", "mouse1 is in"], ["end"], otel=settings(receiver, include_subject_user=True))
    sent(run)
    assert eventually(lambda: "mouse1 is in" in receiver.bodies)
    resource = receiver.records[0][0]
    assert (resource["openscope.subject"], resource["openscope.user"]) == ("mouse1", "tester")


def test_an_outage_loses_nothing_and_doubles_nothing(start: Start, receiver: Receiver, tmp_path: Path) -> None:
    answers = iter([503, 429, 500, 0, 401])
    receiver.answer = lambda path, request: next(answers, 200) if path == "/v1/logs" else 200
    run = start(["collected"], ["ready"], ["log", "early", 300], ["log", "late", 900], ["end"], otel=settings(receiver))
    sent(run)
    assert next(answers, None) is None, "the outage was there"
    assert lab(receiver) == [f"early {n}" for n in range(300)] + [f"late {n}" for n in range(900)]
    assert len(set(receiver.uids)) == len(receiver.uids)
    told = [record.body.string_value for _, scope, record in receiver.records if scope == "pytest_openscope.otel"]
    assert not told or "The experiment goes on" in told[0]


def test_what_is_owed_is_sent_by_the_next_session(start: Start, tmp_path: Path) -> None:
    away = Receiver()
    away.close()
    first = start(["collected"], ["ready"], ["log", "first", 50], ["end"], otel=settings(away, finish_s=0.5))
    first.wait()
    assert eventually(lambda: first.view.finished and not first.sidecars())
    assert "s1.json" in owed(first)
    there = Receiver()
    second = start(["collected"], ["ready"], ["log", "second", 50], ["end"], name="s2", otel=settings(there))
    sent(second)
    assert sorted(lab(there)) == sorted([f"first {n}" for n in range(50)] + [f"second {n}" for n in range(50)])
    sessions = {resource["openscope.session"] for resource, _, _ in there.records}
    assert sessions == {"s1", "s2"}
    assert sorted(span.name for span in there.spans) == ["session", "session"]
    assert len(set(there.uids)) == len(there.uids)
    there.close()


def test_killed_again_and_again_it_sends_everything_once(start: Start, receiver: Receiver, tmp_path: Path) -> None:
    """Each worker is killed while it waits for work, between two batches: what was accepted is on record by then."""
    gate = tmp_path / "go on"
    plan = [["collected"], ["ready"]]
    for number in range(3):
        plan += [["log", f"part {number}", 20], ["wait_for", f"{gate}{number}"]]
    # Without samples, which are sent every moment: a kill between an answer and the note is another test's.
    run = start(*plan, ["end"], otel=settings(receiver, signals=["logs", "traces"]))
    for number in range(3):
        assert eventually(lambda number=number: f"part {number} 19" in lab(receiver))
        note = run.folder.parent / "state" / "otel" / "s1.json"
        newest = max(plain(record.attributes)["openscope.log.offset"] for _, _, record in receiver.records)
        assert eventually(lambda note=note, newest=newest: json.loads(note.read_text())["log"] > newest)
        (pid,) = workers(run)
        kill(pid)
        Path(f"{gate}{number}").touch()
    sent(run)
    assert lab(receiver) == [f"part {part} {n}" for part in range(3) for n in range(20)]
    assert len(set(receiver.uids)) == len(receiver.uids)
    assert len({span.span_id for span in receiver.spans}) == len(receiver.spans)


def test_a_sidecar_that_was_killed_is_followed_by_one_that_goes_on(start: Start, receiver: Receiver, tmp_path: Path) -> None:
    gate = tmp_path / "go on"
    plan = [["collected"], ["ready"], ["log", "a", 20], ["wait_for", str(gate)], ["kill_sidecar"], ["log", "b", 20], ["end"]]
    run = start(*plan, otel=settings(receiver, signals=["logs", "traces"]))
    note = run.folder.parent / "state" / "otel" / "s1.json"
    assert eventually(lambda: "a 19" in lab(receiver))
    newest = max(plain(record.attributes)["openscope.log.offset"] for _, _, record in receiver.records)
    assert eventually(lambda: json.loads(note.read_text())["log"] > newest)
    gate.touch()
    sent(run)
    assert lab(receiver) == [f"{part} {n}" for part in "ab" for n in range(20)]
    assert len(set(receiver.uids)) == len(receiver.uids)


def test_what_a_power_cut_left_is_sent_by_the_next_session(start: Start, receiver: Receiver, tmp_path: Path) -> None:
    away = Receiver()
    away.close()
    gate = tmp_path / "never"
    run = start(["collected"], ["ready"], ["log", "x", 20], ["wait_for", str(gate)], otel=settings(away))
    note = run.folder.parent / "state" / "otel" / "s1.json"
    assert eventually(lambda: note.exists() and (run.metadata / "launcher.log").read_bytes().count(b"lab x") == 20)
    run.process.kill()
    run.kill_sidecars()
    # A sidecar that saw its end first has written the ending; a power cut leaves it to the next session.
    recover(run.folder.parent / "state")
    assert eventually(lambda: run.view.finished)
    following = start(["collected"], ["ready"], ["end"], name="s2", otel=settings(receiver))
    sent(following)
    assert lab(receiver) == [f"x {n}" for n in range(20)]
    assert len(set(receiver.uids)) == len(receiver.uids)
    outcomes = {plain(span.attributes)["openscope.outcome"] for span in receiver.spans}
    assert outcomes == {"crashed", "passed"}


def test_a_session_whose_folder_is_gone_is_owed_no_more(start: Start, receiver: Receiver, tmp_path: Path) -> None:
    state = tmp_path / "data" / "state"
    gone = {"session_folder": str(state.parent / "gone"), "log": 0, "samples": 0, "spans": []}
    (state / "otel").mkdir(parents=True, exist_ok=True)
    (state / "otel" / ".gone.json.123.tmp").touch()  # a worker was killed while it wrote
    (state / "otel" / "gone.json").write_text(json.dumps(gone))
    run = start(["collected"], ["ready"], ["hear", "gone is gone"], ["end"], otel=settings(receiver))
    sent(run)
    assert any("gone is gone" in entry.message for entry in run.entries() if entry.logger == "pytest_openscope.otel")


def test_what_the_collector_leaves_out_of_a_batch_is_told_and_not_sent_again(start: Start, receiver: Receiver) -> None:
    partial = ExportLogsServiceResponse()
    partial.partial_success.rejected_log_records = 2
    partial.partial_success.error_message = "too old"
    receiver.reply = partial.SerializeToString()
    run = start(
        ["collected"], ["ready"], ["log", "x", 20], ["hear", "left out"], ["end"], otel=settings(receiver, signals=["logs"])
    )
    sent(run)
    assert lab(receiver) == [f"x {n}" for n in range(20)]
    told = [entry.message for entry in run.entries() if entry.logger == "pytest_openscope.otel"]
    assert "OpenTelemetry: the collector left out 2 of the logs: too old" in told


def test_a_batch_whose_answer_never_came_is_the_same_batch_again(start: Start, receiver: Receiver) -> None:
    """The one case in which something is sent twice: killed while the answer is on its way."""
    killed: list[Any] = []

    def answer(path: str, request: Any) -> int:
        if path == "/v1/logs" and not killed and "x 99" in str(request):
            killed.append(request)
            for pid in workers(run):
                kill(pid)
            assert eventually(lambda: not workers(run))
        return 200

    receiver.answer = answer
    run = start(["collected"], ["ready"], ["log", "x", 100], ["sleep", 0.3], ["end"], otel=settings(receiver))
    sent(run)
    assert killed
    once = dict(zip(receiver.uids, receiver.bodies, strict=True))
    assert [text for text in once.values() if text.startswith("x ")] == [f"x {n}" for n in range(100)]
    doubled = {uid for uid in receiver.uids if receiver.uids.count(uid) > 1}
    batch = [record for one in killed[0].resource_logs for scope in one.scope_logs for record in scope.log_records]
    assert doubled == {plain(record.attributes)["log.record.uid"] for record in batch}
    assert max(receiver.uids.count(uid) for uid in doubled) == 2


def test_a_session_that_died_is_sent_with_its_ending(start: Start, receiver: Receiver) -> None:
    run = start(
        ["collected"],
        ["ready"],
        ["step", "acquisition", "video"],
        ["record", "the last word", "acquisition", "video"],
        ["die"],
        otel=settings(receiver),
    )
    sent(run)
    outcomes = {span.name: plain(span.attributes)["openscope.outcome"] for span in receiver.spans}
    assert outcomes == {"video": "crashed", "session": "crashed"}
    assert "the last word" in receiver.bodies
    assert any("outcome: crashed" in body for body in receiver.bodies)
    assert receiver.bodies == in_log(run)


def test_one_item_that_the_collector_refuses_keeps_no_other_back(start: Start, receiver: Receiver) -> None:
    receiver.answer = lambda path, request: 400 if "poison" in str(request) else 200
    run = start(
        ["collected"], ["ready"], ["log", "x", 30], ["record", "poison"], ["log", "y", 30], ["end"], otel=settings(receiver)
    )
    sent(run)
    assert lab(receiver) == [f"{name} {n}" for name in "xy" for n in range(30)]


def test_a_collector_that_refuses_everything_gets_everything_later(start: Start, receiver: Receiver) -> None:
    refuse = [True]
    receiver.answer = lambda path, request: 400 if refuse[0] else 200
    run = start(["collected"], ["ready"], ["log", "x", 30], ["end"], otel=settings(receiver))
    run.wait()
    assert eventually(lambda: len(receiver.requests) > 5)
    refuse[0] = False
    sent(run)
    assert lab(receiver) == [f"x {n}" for n in range(30)]


def test_a_collector_that_recovers_while_it_is_asked_gets_everything(start: Start, receiver: Receiver) -> None:
    """It refuses a single record, and takes what comes next: the empty batch that tells whether it takes anything."""
    taken = []

    def answer(path: str, request: Any) -> int:
        if not request.ListFields():
            taken.append(request)
        return 200 if taken else 400

    receiver.answer = answer
    run = start(["collected"], ["ready"], ["log", "x", 30], ["end"], otel=settings(receiver, signals=["logs"]))
    sent(run)
    assert taken
    assert lab(receiver) == [f"x {n}" for n in range(30)]


def test_a_collector_that_hangs_holds_up_nobody(start: Start, receiver: Receiver) -> None:
    receiver.answer = lambda path, request: time.sleep(30) or 200  # type: ignore[func-returns-value]
    began = time.monotonic()
    run = start(["collected"], ["ready"], ["log", "x", 30], ["end"], otel=settings(receiver, finish_s=0.3))
    assert run.wait() == 0
    assert run.told[-1]["done"] is True
    assert time.monotonic() - began < 10
    assert eventually(lambda: run.view.finished and not run.sidecars())
    assert "s1.json" in owed(run)


def test_reading_on_gives_every_record_once_wherever_the_writer_is(tmp_path: Path) -> None:
    """Cut anywhere, the file gives the same records as read at once when it is whole."""
    stamp = "2026-05-01T09:30:00.000000+00:00 INFO - -"
    text = f"{stamp} lab one\n{stamp} lab| two\n| more\n|_end\nforeign\n{stamp} lab ü three\n{stamp} lab| four\n|_x\n"
    data, path = text.encode(), tmp_path / "log"
    path.write_bytes(data)
    whole = [entry.offset for entry in read_log(path)]
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        found, end = read_next(path, 0, most=2)
        path.write_bytes(data)
        while True:
            more, next_end = read_next(path, end, most=2)
            if next_end == end:
                break
            found, end = found + more, next_end
        assert [one.offset for one in found if hasattr(one, "message")] == whole
        assert [one.text for one in found if not hasattr(one, "message")] == ["foreign"]
        assert end == len(data)


def test_a_torn_record_is_given_once_nobody_writes_any_more(tmp_path: Path) -> None:
    stamp = "2026-05-01T09:30:00.000000+00:00 INFO - -"
    path = tmp_path / "log"
    path.write_text(f"{stamp} lab one\n{stamp} lab| two\n| mo")
    found, end = read_next(path, 0)
    assert len(found) == 1
    rest, last = read_next(path, end, complete=True)
    assert [one.kind for one in rest if not hasattr(one, "message")] == ["unfinished record", "torn line"]
    assert last == path.stat().st_size
    assert read_next(path, last, complete=True) == ([], last)


def test_the_note_is_in_the_rigs_state_directory_only(start: Start, receiver: Receiver) -> None:
    run = start(["collected"], ["ready"], ["log", "x", 5], ["end"], otel=settings(receiver))
    sent(run)
    assert not list((run.folder / METADATA).glob("*otel*"))
