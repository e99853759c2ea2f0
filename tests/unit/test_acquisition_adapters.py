"""The interface of acquisition adapters: what an adapter of a lab can do, and calls within this process."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest

from pytest_openscope import (
    Acquisition,
    AcquisitionFacts,
    AcquisitionFailed,
    AcquisitionSpec,
    AcquisitionTimeout,
    Adapter,
    Finding,
    Task,
)
from pytest_openscope.acquisition import check_parameters, describe_command, kinds
from pytest_openscope.config import Settings
from pytest_openscope.records import ConfigurationError
from pytest_openscope.system import StopPolicy

STOP = StopPolicy(0.5, 0.2, 0.2)


class Host:
    """A session's part: an acquisition whose lines, events and facts are kept."""

    def __init__(self, folder: Path, answers: Sequence[str | None] = (), **changes: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.lines: list[tuple[str, bytes]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.questions: list[tuple[str, tuple[str, ...], str]] = []
        self._answers = list(answers)
        self.saved: dict[str, Any] = {}
        self.notices: list[str] = []
        self.acquisition = Acquisition(
            folder,
            lambda source, lines, *_: self.lines.extend((source, line) for line in lines),
            lambda event, **fields: self.events.append((event, fields)),
            defaults=AcquisitionSpec(stop=STOP),
            services={"ask": self._ask, "save": self.saved.__setitem__, "notice": self.notices.append},
            **changes,
        )

    def _ask(self, question: str, choices: Sequence[str], default: str) -> str | None:
        self.questions.append((question, tuple(choices), default))
        return self._answers.pop(0)


class Speaker:
    """A call that speaks until it is done or cancelled."""

    def __init__(
        self, lines: Sequence[str] = (), hold: bool = False, deaf: bool = False, error: Exception | None = None
    ) -> None:
        self._lines, self._hold, self._deaf, self._error = lines, hold, deaf, error
        self.cancelled = threading.Event()

    def run(self, stdout: TextIO, stderr: TextIO) -> int | None:
        for line in self._lines:
            print(line, file=stderr if line.startswith("!") else stdout)
        if self._error is not None:
            raise self._error
        if self._hold:
            (threading.Event() if self._deaf else self.cancelled).wait(20)
        return None

    def cancel(self) -> None:
        self.cancelled.set()


def calling(call: Speaker, **fields: Any) -> AcquisitionSpec:
    return AcquisitionSpec(command=("speak",), name="engine", call=call, stop=STOP, **fields)


def test_a_call_streams_its_output_and_returns(tmp_path: Path) -> None:
    host = Host(tmp_path / "s")
    facts = host.acquisition.execute(calling(Speaker(["one", "!two", "drei äöü"])))
    assert (facts.returncode, facts.pid) == (0, None)
    assert sorted(host.lines) == [
        ("engine.stderr", b"!two"), ("engine.stdout", "drei äöü".encode()), ("engine.stdout", b"one")
    ]  # fmt: skip
    assert (tmp_path / "s/launcher_metadata/acquisition/engine.stdout.log").read_bytes() == "one\ndrei äöü\n".encode()
    assert [event for event, _ in host.events if event != "acquisition_batch"] == [
        "acquisition_starting", "acquisition_started", "acquisition_finished"
    ]  # fmt: skip


def test_the_output_of_a_call_is_in_the_log_while_it_runs(tmp_path: Path) -> None:
    host, call = Host(tmp_path / "s"), Speaker(["first"], hold=True)
    with host.acquisition._start(calling(call)) as run:
        deadline_s = time.monotonic() + 5
        while not host.lines and time.monotonic() < deadline_s:
            time.sleep(0.005)
        assert host.lines == [("engine.stdout", b"first")]
        assert not run.done
    assert call.cancelled.is_set()


def test_what_a_call_raises_is_the_cause_of_the_failure(tmp_path: Path) -> None:
    with pytest.raises(AcquisitionFailed, match="'engine' failed: ValueError: no laser") as caught:
        Host(tmp_path / "s").acquisition.execute(calling(Speaker(["a"], error=ValueError("no laser"))))
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.facts.stdout_tail == ["a"]


def test_a_call_is_cancelled_at_its_limit(tmp_path: Path) -> None:
    call = Speaker(hold=True)
    with pytest.raises(AcquisitionTimeout, match="timeout_s"):
        Host(tmp_path / "s").acquisition.execute(calling(call, timeout_s=0.1))
    assert call.cancelled.is_set()


def test_a_call_that_does_not_end_is_named_and_left(tmp_path: Path) -> None:
    begun_s = time.monotonic()
    with pytest.raises(AcquisitionTimeout) as caught:
        Host(tmp_path / "s").acquisition.execute(calling(Speaker(hold=True, deaf=True), timeout_s=0.1))
    assert time.monotonic() - begun_s < 20
    assert caught.value.facts.survivors == ["the call of engine, which does not end"]


def test_silence_is_told_with_what_is_known(tmp_path: Path) -> None:
    spec = calling(Speaker(hold=True), process_start_timeout_s=0.1, explain_silence=lambda pid: "a window waits")
    with pytest.raises(AcquisitionFailed, match=r"printed nothing within 0\.1 s of its start: a window waits"):
        Host(tmp_path / "s").acquisition.execute(spec)


def _fatal(stream: str, lines: list[bytes]) -> str:
    return next((line.decode() for line in lines if b"FATAL" in line), "")


@pytest.mark.parametrize("code", ["print('FATAL: no camera')", "import sys; print('FATAL: no camera', file=sys.stderr)"])
def test_a_fatal_line_fails_a_process_that_ends_well(tmp_path: Path, code: str) -> None:
    spec = AcquisitionSpec(command=(sys.executable, "-u", "-c", code), name="flow", fatal=_fatal, stop=STOP)
    with pytest.raises(AcquisitionFailed, match="had a fatal error, and ended with exit code 0: FATAL: no camera"):
        Host(tmp_path / "s").acquisition.execute(spec)


def test_a_process_that_does_not_end_after_a_fatal_line_is_stopped(tmp_path: Path) -> None:
    code = "import time; print('FATAL: no camera'); time.sleep(60)"
    command = (sys.executable, "-u", "-c", code)
    spec = AcquisitionSpec(command=command, name="flow", fatal=_fatal, fatal_grace_s=0.1, stop=STOP)
    with pytest.raises(AcquisitionFailed, match="was stopped: it did not end after a fatal error: FATAL"):
        Host(tmp_path / "s").acquisition.execute(spec)


def test_after_a_fatal_line_that_is_not_final_it_runs_on(tmp_path: Path) -> None:
    code = "import time; print('FATAL: handled', flush=True); time.sleep(0.5); print('done')"
    command = (sys.executable, "-u", "-c", code)
    final = AcquisitionSpec(
        command=command, name="flow", fatal=_fatal, fatal_is_final=lambda line: False, fatal_grace_s=0.0, stop=STOP
    )
    host = Host(tmp_path / "s")
    with pytest.raises(AcquisitionFailed, match="had a fatal error, and ended with exit code 0: FATAL: handled"):
        host.acquisition.execute(final)
    assert ("flow.stdout", b"done") in host.lines


def test_exit_codes_that_count_as_good(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "raise SystemExit(3)")
    host = Host(tmp_path / "s")
    assert host.acquisition.execute(AcquisitionSpec(command=command, good_exit_codes=(0, 3))).returncode == 3
    with pytest.raises(AcquisitionFailed):
        host.acquisition.execute(AcquisitionSpec(command=command))


class Lab(Adapter):
    """An adapter as a lab writes one; the history tells what was called, in order."""

    kind = "lab"
    history: list[str]
    fails = 0

    def spec(self) -> AcquisitionSpec:
        self.history.append("spec")
        code = f"print('run'); raise SystemExit({1 if self.history.count('spec') <= self.fails else 0})"
        command = (sys.executable, "-c", code)
        return replace(self.task.defaults, command=command, name="lab")

    def check(self, dry_run: bool) -> Iterator[Finding]:
        yield Finding("no shutter", "open it", "shutter")
        yield Finding("old shutter", "buy one", "shutter", "warning")
        yield Finding("far shutter", "", "shutter", "unknown")

    def rehearse(self) -> None:
        self.history.append("rehearse")

    def prepare(self) -> None:
        self.history.append("prepare")

    def verdict(self, facts: AcquisitionFacts) -> str:
        self.history.append(f"verdict {facts.returncode}")
        return str(self.parameters.get("wanting") or "")

    def after_failure(self, error: AcquisitionFailed, attempt: int) -> Any:
        self.history.append(f"failed {attempt}")
        return self.task.ask("Again?", ("retry", "proceed", "fail"), "retry") or "fail"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> type[Lab]:
    Lab.history, Lab.fails = [], 0
    install(monkeypatch, "Lab", lambda: Lab)
    return Lab


def install(monkeypatch: pytest.MonkeyPatch, name: str, load: Callable[[], Any]) -> None:
    class Point:
        value = "lab_package:Lab"

        def __init__(self) -> None:
            self.name = name

        def load(self) -> Any:
            return load()

    def points(*, group: str) -> list[Point]:
        assert group == "pytest_openscope.acquisition"
        return [Point()]

    monkeypatch.setattr(kinds, "entry_points", points)
    monkeypatch.setattr("pytest_openscope.config.models.entry_points", points)


def test_the_order_of_a_real_run_with_retries(tmp_path: Path, lab: type[Lab]) -> None:
    lab.fails = 2
    host = Host(tmp_path / "s", answers=["retry", "retry"])
    facts = host.acquisition.run_launcher({"launcher": "LAB"})
    assert facts is not None
    assert facts.returncode == 0
    once = ["prepare", "spec"]
    assert lab.history == [*once, "failed 1", *once, "failed 2", *once, "verdict 0"]
    assert [one.name for one in host.acquisition.finished] == ["lab", "lab[2]", "lab[3]"]
    assert host.questions[0] == ("Again?", ("retry", "proceed", "fail"), "retry")


def test_a_failure_that_the_operator_lets_pass(tmp_path: Path, lab: type[Lab]) -> None:
    lab.fails = 1
    facts = Host(tmp_path / "s", answers=["proceed"]).acquisition.run_launcher({"launcher": "lab"})
    assert facts is not None
    assert facts.returncode == 1


def test_a_run_that_ended_well_may_be_found_wanting(tmp_path: Path, lab: type[Lab]) -> None:
    host = Host(tmp_path / "s", answers=[None])
    with pytest.raises(AcquisitionFailed, match="acquisition 'lab' failed: no frames"):
        host.acquisition.run_launcher({"launcher": "lab", "wanting": "no frames"})


def test_nobody_is_asked_after_a_stop(tmp_path: Path, lab: type[Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    command = (sys.executable, "-u", "-c", "import time; print('up'); time.sleep(60)")
    monkeypatch.setattr(lab, "spec", lambda self: replace(self.task.defaults, command=command, name="lab"))
    host = Host(tmp_path / "s")
    stopper = threading.Thread(
        target=lambda: (_until(lambda: bool(host.lines)), host.acquisition.stop_all("Ctrl-C", wait=False))
    )
    stopper.start()
    with pytest.raises(AcquisitionFailed, match="was stopped: Ctrl-C"):
        host.acquisition.run_launcher({"launcher": "lab"})
    stopper.join()
    assert not host.questions


def _until(ready: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not ready() and time.monotonic() < deadline_s:
        time.sleep(0.005)


def test_a_dry_run_rehearses(tmp_path: Path, lab: type[Lab], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    host = Host(tmp_path / "s", dry_run=True)
    host.acquisition.run_launcher({"launcher": "lab"})
    assert lab.history == ["rehearse", "spec"]
    assert "would have run" in caplog.text
    assert not host.lines


def test_findings_are_sorted(lab: type[Lab]) -> None:
    unknown: list[Any] = []
    warnings: list[Any] = []
    (error,) = check_parameters({"launcher": "lab"}, True, "day1.json", unknown, warnings)
    assert str(error) == "day1.json: shutter: no shutter -> open it"
    assert [one.problem for one in unknown] == ["far shutter"]
    assert [one.problem for one in warnings] == ["old shutter"]
    assert "SystemExit" in describe_command({"launcher": "lab"}, Path())


def test_the_kind_is_known_to_the_configuration(lab: type[Lab]) -> None:
    assert Settings.model_validate({"launcher": " Lab "}).launcher == "lab"
    with pytest.raises(ValueError, match="none of base, python, command, bonsai, matlab, Lab"):
        Settings.model_validate({"launcher": "labb"})


def test_an_adapter_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise ImportError("No module named 'shutter'")

    install(monkeypatch, "lab", fail)
    (error,) = check_parameters({"launcher": "lab"}, False)
    assert "lab_package:Lab, cannot be loaded: ImportError: No module named 'shutter'" in str(error)
    install(monkeypatch, "lab", lambda: Task)
    with pytest.raises(ConfigurationError, match="is no Adapter"):
        describe_command({"launcher": "lab"}, Path())
