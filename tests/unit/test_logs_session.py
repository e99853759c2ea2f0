"""Collecting the records of all loggers, whatever others do to the logging package."""

from __future__ import annotations

import gc
import io
import logging
import logging.config
import logging.handlers
import queue
import signal
import sys
import threading
import time
import timeit
import unittest
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.log.lines import LogEntry, read_log
from pytest_openscope.log.masking import ExactMasker
from pytest_openscope.log.session_log import SessionLog

log = logging.getLogger("my.camera")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, root.handlers[:], logging.Logger.callHandlers, logging.root.manager.disable)
    yield
    for name in ("my", "my.camera", "quiet", "noisy"):
        logger = logging.getLogger(name)
        logger.setLevel(0)
        logger.propagate, logger.disabled, logger.handlers[:] = True, False, []
    assert logging.Logger.callHandlers is before[2]
    assert not hasattr(logging.Logger.getEffectiveLevel, "__wrapped__")
    root.handlers[:] = before[1]
    root.setLevel(before[0])
    logging.disable(before[3])


class Fixture:
    """A session log that is installed and open, and what its file holds."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.log = SessionLog(**settings)
        self.log.install()
        self.log.open(path)

    def entries(self) -> list[LogEntry]:
        return list(read_log(self.path))

    def messages(self) -> list[str]:
        return [entry.message for entry in self.entries()]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Fixture]:
    this = Fixture(tmp_path / "launcher.log")
    yield this
    this.log.uninstall()
    this.log.close()


def foreign(level: int = 0) -> tuple[logging.Handler, io.StringIO]:
    """Put somebody else's handler on the root logger."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setLevel(level)
    logging.getLogger().addHandler(handler)
    return handler, stream


def test_records_from_before_the_file_come_first_in_order(tmp_path: Path) -> None:
    session = SessionLog()
    session.install()
    try:
        log.info("first %d", 1)
        session.set_place("pre_acquisition", "test_a")
        session.write("INFO", "direct", "second")
        session.write_output("child", [b"third", b"caf\xe9"])
        session.set_place("acquisition", "test_b")
        assert session.size == 0
        session.open(tmp_path / "a.log")
        log.info("last")
    finally:
        session.uninstall()
        session.close()
    entries = list(read_log(tmp_path / "a.log"))
    assert [entry[2:6] for entry in entries] == [
        ("", "", "my.camera", "first 1"),
        ("pre_acquisition", "test_a", "direct", "second"),
        ("pre_acquisition", "test_a", "child", "third"),
        ("pre_acquisition", "test_a", "child", "caf\udce9"),
        ("acquisition", "test_b", "my.camera", "last"),
    ]
    assert session.size == (tmp_path / "a.log").stat().st_size


def test_a_file_that_cannot_be_opened_keeps_the_records(tmp_path: Path) -> None:
    session = SessionLog()
    session.write("INFO", "a", "kept")
    with pytest.raises(OSError):
        session.open(tmp_path / "no" / "a.log")
    session.open(tmp_path / "a.log")
    session.close()
    assert [entry.message for entry in read_log(tmp_path / "a.log")] == ["kept"]


def test_levels(tmp_path: Path) -> None:
    logging.getLogger("quiet").setLevel(logging.ERROR)
    session = Fixture(tmp_path / "a.log", level="INFO", levels={"my.camera": "DEBUG", "noisy": "ERROR", "quiet.but": 10})
    try:
        for name in ("my", "my.camera", "my.camera.driver", "noisy", "noisy.child", "quiet", "quiet.but", "other"):
            for level in (10, 20, 40):
                logging.getLogger(name).log(level, "x")
    finally:
        session.log.uninstall()
        session.log.close()
    seen: dict[str, str] = {}
    for entry in session.entries():
        seen[entry.logger] = seen.get(entry.logger, "") + entry.level[0]
    assert seen == {
        "my": "IE",
        "my.camera": "DIE",
        "my.camera.driver": "DIE",
        "noisy": "E",
        "noisy.child": "E",
        "quiet": "E",
        "quiet.but": "DIE",
        "other": "IE",
    }


def test_thresholds_may_change_while_records_wait(tmp_path: Path) -> None:
    session = SessionLog(logging.DEBUG)
    session.install()
    try:
        log.debug("too fine")
        log.info("kept")
        session.set_levels("INFO")
        log.debug("too fine")
        session.open(tmp_path / "a.log")
    finally:
        session.uninstall()
        session.close()
    assert [entry.message for entry in read_log(tmp_path / "a.log")] == ["kept"]


def test_an_unknown_level_is_an_error() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        SessionLog("LOUD")


@pytest.mark.parametrize("root_level", [logging.WARNING, logging.DEBUG, logging.ERROR, 0])
def test_levels_are_left_alone(tmp_path: Path, root_level: int) -> None:
    logging.getLogger().setLevel(root_level)
    session = Fixture(tmp_path / "a.log", levels={"my.camera": "DEBUG"})
    log.debug("x")
    session.log.uninstall()
    session.log.uninstall()
    assert logging.getLogger().level == logging.getLogger().getEffectiveLevel() == root_level
    assert log.level == 0
    log.error("not logged any more")
    session.log.close()
    assert session.messages() == ["x"]


def test_a_level_that_somebody_set_meanwhile_stays(session: Fixture) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    session.log.uninstall()
    assert logging.getLogger().level == logging.ERROR


def test_whoever_makes_the_root_logger_quieter_does_so_for_others_only(session: Fixture) -> None:
    _, stream = foreign()
    logging.getLogger().setLevel("ERROR")
    log.warning("warning")
    log.error("error")
    logging.getLogger().setLevel(logging.INFO)
    log.info("info")
    assert stream.getvalue() == "error\ninfo\n"
    assert session.messages() == ["warning", "error", "info"]


def test_other_handlers_see_what_they_would_see_without(session: Fixture) -> None:
    _, stream = foreign()
    logging.getLogger().setLevel(logging.WARNING)
    log.info("for the session log alone")
    log.warning("for all")
    log.setLevel(logging.DEBUG)
    log.debug("the logger's own wish")
    assert stream.getvalue() == "for all\nthe logger's own wish\n"
    assert session.messages() == ["for the session log alone", "for all"]


def test_the_last_resort_still_speaks(session: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    logging.getLogger().handlers.clear()
    log.info("info")
    log.warning("warning")
    assert stream.getvalue() == "warning\n"
    assert session.messages() == ["info", "warning"]


def test_basic_config_of_an_experiment_still_works(session: Fixture) -> None:
    logging.getLogger().handlers.clear()
    stream = io.StringIO()
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(message)s")
    log.info("x")
    assert stream.getvalue() == "x\n"
    assert session.messages() == ["x"]


def test_loggers_that_do_not_propagate(session: Fixture) -> None:
    log.propagate = False
    log.warning("warning")
    log.info("info")
    logging.getLogger("my.camera.child").info("child")
    with unittest.TestCase().assertLogs("my.camera", "INFO"):
        log.info("seen by assertLogs")
    assert session.messages() == ["warning", "info", "child", "seen by assertLogs"]


def test_what_logging_suppresses_is_not_there(session: Fixture) -> None:
    logging.disable(logging.INFO)
    log.info("disabled")
    logging.disable(logging.NOTSET)
    log.setLevel(logging.ERROR)
    log.warning("below the logger's own level")
    log.setLevel(0)

    def drop(record: logging.LogRecord) -> bool:
        return "secret" not in record.getMessage()

    log.addFilter(drop)
    log.info("a secret")
    log.removeFilter(drop)
    log.info("kept")
    assert session.messages() == ["kept"]


def test_basic_config_force_and_cleared_handlers(session: Fixture) -> None:
    logging.basicConfig(force=True, level=logging.WARNING, stream=io.StringIO())
    session.log.ensure_attached()
    log.info("one")
    logging.getLogger().handlers.clear()
    logging.shutdown()
    log.info("two")
    assert session.messages() == ["one", "two"]


def test_dict_config_that_disables_everybody(session: Fixture) -> None:
    asleep = logging.getLogger("asleep")
    asleep.disabled = True
    session.log.set_levels("INFO")
    logging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})
    log.info("lost: it never came to logging")
    session.log.ensure_attached()
    log.info("back")
    asleep.error("stays asleep")
    logging.config.dictConfig({"version": 1})
    session.log.ensure_attached()
    log.info("again")
    assert session.messages() == ["back", "again"]
    asleep.disabled = False


def test_somebody_who_wraps_the_same_method(session: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    below = logging.Logger.callHandlers
    seen: list[str] = []

    def wrapped(logger: logging.Logger, record: logging.LogRecord) -> None:
        seen.append(record.getMessage())
        below(logger, record)

    with monkeypatch.context() as patch:
        patch.setattr(logging.Logger, "callHandlers", wrapped)
        session.log.ensure_attached()
        log.info("one")
        session.log.ensure_attached()
        assert logging.Logger.callHandlers is wrapped
    session.log.ensure_attached()
    log.info("two")
    assert "one" in seen
    assert session.messages() == ["one", "two"]


def test_somebody_who_replaces_the_method_is_wrapped_in_turn(session: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    before = logging.Logger.callHandlers
    original = before.__wrapped__  # type: ignore[attr-defined]
    logging.Logger.callHandlers = lambda self, record: original(self, record)  # type: ignore[method-assign]
    session.log.ensure_attached()
    log.info("x")
    assert session.messages() == ["x"]
    session.log.uninstall()
    logging.Logger.callHandlers = original  # type: ignore[method-assign]


@pytest.mark.parametrize("inner_first", [True, False])
def test_sessions_within_sessions(tmp_path: Path, inner_first: bool) -> None:
    outer = Fixture(tmp_path / "outer.log", level="INFO")
    log.info("outer only")
    inner = Fixture(tmp_path / "inner.log", level="DEBUG")
    log.debug("fine")
    log.info("both")
    (inner if inner_first else outer).log.uninstall()
    log.info("one of them")
    (outer if inner_first else inner).log.uninstall()
    log.info("none")
    if not inner_first:  # a tap below another one's cannot be taken out, but it takes nothing any more
        while hasattr(logging.Logger.callHandlers, "__openscope__"):
            logging.Logger.callHandlers = logging.Logger.callHandlers.__wrapped__  # type: ignore[method-assign, attr-defined]
            logging.Logger.getEffectiveLevel = logging.Logger.getEffectiveLevel.__wrapped__  # type: ignore[method-assign, attr-defined]
    assert logging.getLogger().getEffectiveLevel() == logging.WARNING
    first, second = outer.messages(), inner.messages()
    assert first == ["outer only", "both", *(["one of them"] if inner_first else [])]
    assert second == ["fine", "both", *([] if inner_first else ["one of them"])]
    outer.log.close()
    inner.log.close()


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("value %d %d", 1), ["not enough arguments", "'value %d %d'", "argument types (int)", "test_logs_session.py:"]),
        (("value %d", "x"), ["argument types (str)", "TypeError"]),
        (("value", 1, 2.0), ["argument types (int, float)"]),
        (("%s", Broken()), ["RuntimeError: no text", "argument types (Broken)", "Traceback"]),
        ((Broken(),), ["message '<Broken>'", "RuntimeError: no text"]),
        (("%(a)s", {"b": 1}), ["KeyError", "argument types (dict)"]),
    ],
)
def test_a_record_that_cannot_be_formatted_is_logged_as_such(session: Fixture, arguments: Any, parts: list[str]) -> None:
    logging.getLogger().handlers.clear()
    log.propagate = False
    log.addHandler(logging.NullHandler())
    log.error(*arguments)
    (entry,) = session.entries()
    assert entry.level == "ERROR"
    assert entry.logger == "my.camera"
    assert entry.message.startswith("this record could not be formatted (")
    for part in parts:
        assert part in entry.message
    assert session.log.lost_records == 0


def test_tracebacks_are_whole_and_leave_the_record_as_it_was(session: Fixture) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger().handlers[:] = [handler]
    try:
        try:
            raise KeyError("inner\nline")
        except KeyError as error:
            raise BrokenError from error
    except BrokenError:
        log.exception("it %s", "broke", stack_info=True)
    log.exception("without one")
    first, second = session.messages()
    assert first.startswith("it broke\nTraceback (most recent call last):")
    assert "KeyError: 'inner\\nline'" in first
    assert "BrokenError: <exception str() failed>" in first
    assert "Stack (most recent call last):" in first
    assert second == "without one\nNoneType: None"
    assert records[0].exc_text is None


def test_records_that_came_through_a_queue(session: Fixture) -> None:
    received: queue.Queue[Any] = queue.Queue()
    handler = logging.handlers.QueueHandler(received)
    logging.getLogger().addHandler(handler)
    try:
        raise ValueError("remote")
    except ValueError:
        log.exception("through the queue")
    logging.getLogger().removeHandler(handler)
    record = received.get_nowait()
    logging.getLogger("listener").handle(record)
    first, second = session.messages()
    assert first.endswith("ValueError: remote")
    assert "through the queue\nTraceback" in second
    assert second.endswith("ValueError: remote")


def test_extra_and_own_levels_do_no_harm(session: Fixture) -> None:
    logging.addLevelName(25, "MY NOTE")
    try:
        log.log(25, "x", extra={"mask": 1, "step": "a"})
        log.log(33, "y")
    finally:
        del logging._levelToName[25], logging._nameToLevel["MY NOTE"]  # type: ignore[attr-defined]
    assert [entry.level for entry in session.entries()] == ["MY NOTE", "Level 33"]


def test_a_strange_record_never_reaches_the_caller(session: Fixture) -> None:
    record = logging.makeLogRecord({"name": "strange", "msg": "x", "created": "yesterday", "levelno": 40, "levelname": "ERROR"})
    log.handle(record)
    assert "could not be formatted" in session.messages()[0]


def test_a_record_logged_while_another_is_formatted(session: Fixture) -> None:
    class Chatty:
        def __str__(self) -> str:
            log.info("inner")
            return "outer"

    log.info("%s", Chatty())
    assert session.messages() == ["inner", "outer"]


def test_an_object_that_logs_itself_forever(session: Fixture) -> None:
    class Endless:
        def __str__(self) -> str:
            log.info("%s", self)
            return "end"

    log.propagate = False
    log.info("%s", Endless())
    assert "end" in session.messages()
    assert any("RecursionError" in text for text in session.messages())


def test_logging_from_del_and_from_signals(session: Fixture) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            log.info("del")

    ticks = 0
    if sys.platform != "win32":
        before = signal.signal(signal.SIGALRM, lambda *_: log.info("tick"))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        threshold = gc.get_threshold()
        gc.set_threshold(5, 2, 2)
        for number in range(3000):
            Cycle()
            log.info("%d", number)
    finally:
        gc.set_threshold(*threshold)
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    gc.collect()
    found = session.messages()
    ticks = found.count("tick")
    assert found.count("del") == 3000
    assert [text for text in found if text.isdigit()] == [str(number) for number in range(3000)]
    assert ticks or sys.platform == "win32"


def test_threads_while_the_file_is_opened(tmp_path: Path) -> None:
    session = SessionLog()
    session.install()
    stop = threading.Event()

    def work(name: int) -> None:
        number = 0
        while not stop.is_set() or number < 50:
            logging.getLogger(f"t{name}").info("%d", number)
            number += 1

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    session.open(tmp_path / "a.log")
    time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    session.uninstall()
    session.close()
    seen: dict[str, list[int]] = {}
    for entry in read_log(tmp_path / "a.log"):
        seen.setdefault(entry.logger, []).append(int(entry.message))
    assert len(seen) == 4
    for numbers in seen.values():
        assert numbers == list(range(len(numbers)))


def test_secrets_are_masked_everywhere(tmp_path: Path) -> None:
    session = SessionLog()
    session.install()
    session.write("INFO", "early", "token hunter2secret")
    session.set_place("acquisition", "test_login[hunter2secret]")
    session.open(tmp_path / "a.log", ExactMasker(["hunter2secret"]))
    log.info("the token is %s!", "hunter2secret")
    session.write_output("child", [b"clean", b"caf\xc3\xa9", b"hunter2secret \r"])
    try:
        raise ValueError("hunter2secret")
    except ValueError:
        log.exception("failed")
    session.uninstall()
    session.close()
    assert b"hunter2secret" not in (tmp_path / "a.log").read_bytes()
    entries = list(read_log(tmp_path / "a.log"))
    assert entries[1].step == "test_login[***]"
    assert [entry.message for entry in entries][1:5] == ["the token is ***!", "clean", "café", "*** \r"]


def test_a_masker_that_fails_lets_nothing_out(tmp_path: Path) -> None:
    def fail(text: str) -> str:
        raise RuntimeError("no masking")

    session = SessionLog()
    session.install()
    session.open(tmp_path / "a.log", fail)
    log.info("hunter2secret")
    session.uninstall()
    session.close()
    assert b"hunter2secret" not in (tmp_path / "a.log").read_bytes()
    assert session.lost_records == 1


def test_output_of_a_child(session: Fixture) -> None:
    session.log.set_place("acquisition", "test_run")
    before = session.log.size
    lines = [b"plain", b"", b"caf\xc3\xa9", b"\xff\xfe", b"50 %\r100 %\r", b"\x1b[31mred", b"a\nb", rb"\x{41}", b"x" * 100_000]
    written = session.log.write_output("acquisition.stdout", lines, level="WARNING")
    assert written == session.log.size - before
    entries = session.entries()
    assert [entry.message.encode("utf-8", "surrogateescape") for entry in entries] == lines
    assert {entry[1:5] for entry in entries} == {("WARNING", "acquisition", "test_run", "acquisition.stdout")}
    assert session.log.write_output("child", []) == 0
    session.log.write_output("child", [b"x"], phase="post_acquisition", step="late")
    assert session.entries()[-1][2:4] == ("post_acquisition", "late")


def test_closed_means_closed(session: Fixture) -> None:
    log.info("x")
    session.log.close()
    log.error("late")
    session.log.write("INFO", "a", "late")
    assert session.log.write_output("a", [b"late"]) == 0
    assert session.messages() == ["x"]
    assert session.log.lost_records == 0


def test_logger_names_that_never_end_do_not_fill_the_memory(session: Fixture) -> None:
    for number in range(10_000):
        session.log.write("INFO", f"object-{number}", "x")
    assert len(session.log._place.heads) <= 4096
    assert len(session.entries()) == 10_000


def test_warnings_module_is_left_alone(session: Fixture) -> None:
    with pytest.warns(UserWarning, match="x"):
        warnings.warn("x", UserWarning, stacklevel=1)
    assert session.messages() == []


def test_ensuring_costs_next_to_nothing(session: Fixture) -> None:
    logging.getLogger().setLevel(logging.INFO)
    session.log.ensure_attached()
    cost_s = min(timeit.repeat(session.log.ensure_attached, number=2000, repeat=10)) / 2000
    empty_s = min(timeit.repeat(lambda: None, number=2000, repeat=10)) / 2000
    assert cost_s < 20 * empty_s
