"""Questions at a real terminal (a pseudo-terminal) and elsewhere, whichever answers first."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.session.operator import Operator
from pytest_openscope.session.questions import Form, Questions, ThreadedTerminal

if sys.platform != "win32":
    import pty


class Desk:
    """A terminal at which somebody types, and the events that a page reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, terminal: bool = True) -> None:
        self.events: list[dict[str, Any]] = []
        if terminal and sys.platform != "win32":
            self.keys, self.child = pty.openpty()
            monkeypatch.setattr(sys, "stdin", open(self.child, encoding="utf-8", closefd=False))  # noqa: SIM115
        self.questions = Questions(lambda event, **fields: self.events.append({"event": event, **fields}), terminal)

    def type(self, text: str) -> None:
        os.write(self.keys, text.encode())

    def later(self, action: Callable[[str], None]) -> None:
        """Act once a question is open; a second thread, as the sidecar's is."""
        seen = len(self.events)

        def act() -> None:
            while len(self.events) == seen:
                time.sleep(0.001)
            action(self.events[seen]["id"])

        threading.Thread(target=act, daemon=True).start()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    if sys.platform == "win32":
        pytest.skip("POSIX: pseudo-terminals; the console of Windows has test_the_thread_that_reads_a_console")
    made = Desk(monkeypatch)
    yield made
    os.close(made.keys)
    os.close(made.child)


def test_the_terminal_answers(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.later(lambda ident: desk.type("24 grams\nahead\n"))
    assert desk.questions.ask("Weight? ", "Weight?", Form()) == "24 grams"
    assert capsys.readouterr().out == "Weight? "
    assert [(one["event"], one["text"], one.get("by")) for one in desk.events] == [
        ("question", "Weight?", None),
        ("answered", "24 grams", "the terminal"),
    ]
    assert desk.questions.ask("Next? ", "Next?", Form()) == "ahead"


def test_the_page_answers_and_the_terminal_shows_it(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """What was half typed then is no part of the next answer, and an answer to another question is none."""
    desk.type("half")

    def answer(ident: str) -> None:
        desk.questions.take("another", "wrong")
        desk.questions.take(ident, "25")

    desk.later(answer)
    assert desk.questions.ask("Weight? ", "Weight?", Form()) == "25"
    assert "(answered on the live page: 25)" in capsys.readouterr().out
    desk.later(lambda ident: desk.type("26\n"))
    assert desk.questions.ask("Weight? ", "Weight?", Form()) == "26"
    assert [one["by"] for one in desk.events if one["event"] == "answered"] == ["the live page", "the terminal"]


def test_a_closed_terminal_gives_the_question_up(desk: Desk) -> None:
    desk.later(lambda ident: desk.type("\x04"))
    with pytest.raises(EOFError):
        desk.questions.ask("Weight? ", "Weight?", Form())
    assert (desk.events[-1]["event"], desk.events[-1]["by"]) == ("answered", "")


def test_without_a_terminal_the_page_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(monkeypatch, terminal=False)
    desk.later(lambda ident: desk.questions.take(ident, "25"))
    assert desk.questions.ask("Weight? ", "Weight?", Form()) == "25"
    assert capsys.readouterr().out == ""


def test_a_question_that_nobody_can_answer_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
    alone = Desk(monkeypatch, terminal=False)
    alone.later(lambda ident: alone.questions.lose_page("the page has ended"))
    with pytest.raises(EOFError, match="the page has ended, and there is no terminal"):
        alone.questions.ask("Weight? ", "Weight?", Form())
    monkeypatch.setattr(sys, "stdin", open(desk.child, encoding="utf-8", closefd=False))  # noqa: SIM115
    desk.questions.lose_page("the page has ended")
    desk.later(lambda ident: desk.type("26\n"))
    assert desk.questions.ask("Weight? ", "Weight?", Form()) == "26"


def test_the_thread_that_reads_a_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' way: a line that comes after the page's answer is the next question's; a closed input is told."""
    desk = Desk(monkeypatch, terminal=False)
    typed: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> str:
        line = typed.get()
        if not line:
            raise EOFError
        return line

    monkeypatch.setattr("pytest_openscope.session.questions._REAL_INPUT", read)
    desk.questions._terminal = terminal = ThreadedTerminal()  # type: ignore[assignment]
    desk.later(lambda ident: desk.questions.take(ident, "25"))
    assert desk.questions.ask("Weight? ", "Weight?", Form()) == "25"
    threads = [one.name for one in threading.enumerate()].count("openscope-terminal")
    desk.later(lambda ident: typed.put("26"))
    assert desk.questions.ask("Weight? ", "Weight?", Form()) == "26"
    assert threads == 1
    assert terminal.line(0.01) is None
    typed.put("")
    with pytest.raises(EOFError):
        terminal.line(10)


class TestForms:
    """Answers are checked where they are asked for, wherever they come from."""

    @pytest.fixture
    def ask(self) -> Callable[..., tuple[Operator, list[dict[str, Any]]]]:
        def make(*answers: str) -> tuple[Operator, list[dict[str, Any]]]:
            waiting, events = list(answers), list[dict[str, Any]]()

            def tell(event: str, **fields: Any) -> None:
                events.append({"event": event, **fields})
                if event == "question":
                    questions.take(fields["id"], waiting.pop(0))

            questions = Questions(tell, terminal=False)
            operator = Operator(False)
            operator.share(questions)
            return operator, events

        return make

    def test_a_choice_is_asked_for_until_it_is_one(self, ask: Any) -> None:
        operator, events = ask("x", "re", "RETRY")
        assert operator.ask("What now?", choices=("retry", "report", "abort")) == "retry"
        assert (events[0]["kind"], events[0]["choices"]) == ("choice", ("retry", "report", "abort"))
        operator, _ = ask("")
        assert operator.ask("What now?", "abort", choices=("retry", "abort")) == "abort"
        operator, _ = ask("on")
        assert operator.ask("Laser?", choices=("on", "on again")) == "on"

    def test_a_number_keeps_its_limits(self, ask: Any) -> None:
        operator, events = ask("heavy", "nan", "9,9", "61", "24,5 g")
        assert operator.number("Weight?", minimum=10, maximum=60, unit="g") == 24.5
        asked = [one["text"] for one in events if one["event"] == "question"]
        assert asked == [
            "Weight?",
            "'heavy' is no number. Weight?",
            "'nan' is no number. Weight?",
            "9,9 is outside 10 to 60 g. Weight?",
            "61 is outside 10 to 60 g. Weight?",
        ]
        assert (events[0]["minimum"], events[0]["maximum"], events[0]["unit"]) == (10, 60, "g")
        operator, _ = ask("")
        assert operator.number("Weight?", 25) == 25

    def test_yes_no_and_many_lines(self, ask: Any) -> None:
        operator, events = ask("maybe", "no")
        assert operator.confirm("Ready?") is False
        assert events[0]["kind"] == "confirm"
        operator, _ = ask("one\ntwo\n")
        assert operator.lines("Notes:") == "one\ntwo"
        operator, _ = ask("one", "two", "")
        assert operator.lines("Notes:") == "one\ntwo"

    def test_a_picture_is_named_by_its_place_in_the_session(self, ask: Any) -> None:
        operator, events = ask("yes")
        operator._keep_picture = lambda path: f"attachments/{path.name}"
        assert operator.confirm("Is the eye in focus?", picture=Path("/tmp/eye.png"))
        assert events[0]["picture"] == "attachments/eye.png"
