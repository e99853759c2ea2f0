"""Calls that hang: each is made once, and none waits for one that does not come back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from pytest_openscope.system import BoundedCall


class Desk:
    """Functions that note when they are made, some of which hang until :meth:`release`."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.came_late: list[Any] = []
        self.late = threading.Event()
        self._released = threading.Event()

    def function(self, name: str, *, hangs: bool = False) -> Callable[[], str]:
        def function() -> str:
            self.made.append(name)
            if hangs:
                assert self._released.wait(20)
            return f"done {name}"

        return function

    def call(self, name: str, *, hangs: bool = False, limit_s: float = 10.0) -> BoundedCall:
        def late(result: Any) -> None:
            self.came_late.append(result)
            self.late.set()

        return BoundedCall(name, self.function(name, hangs=hangs), limit_s, late=late)

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_all_are_made_in_order(desk: Desk) -> None:
    calls = [desk.call(name) for name in "abcdef"]
    for call in calls:
        call.run()
    assert desk.made == list("abcdef")
    assert [call.result for call in calls] == [f"done {name}" for name in "abcdef"]


def test_one_that_hangs_is_left_and_the_rest_is_made_once(desk: Desk) -> None:
    calls = [desk.call("a"), desk.call("b", hangs=True, limit_s=0.05), desk.call("c"), desk.call("d")]
    for call in calls:
        call.run()
    assert desk.made == list("abcd")
    assert [call.ended for call in calls] == [True, False, True, True]
    assert str(calls[1].error) == "b did not return within 0.05 s"
    desk.release()
    assert desk.late.wait(10)
    assert desk.came_late == ["done b"]
    assert desk.made == list("abcd")
    assert calls[1].result is None


def test_errors_stay_with_their_call(desk: Desk) -> None:
    def fails() -> None:
        raise OSError("no")

    calls = [BoundedCall("a", fails, 1.0), desk.call("b")]
    for call in calls:
        call.run()
    assert isinstance(calls[0].error, OSError)
    assert calls[1].error is None
    with pytest.raises(OSError, match="no"):
        BoundedCall("a", fails, 1.0).result_in_time()


def test_a_result_is_kept_in_time_or_late_never_both() -> None:
    kept: list[int] = []
    late: list[int] = []
    for number in range(50):
        call = BoundedCall("a", lambda number=number: number, 10.0, kept=kept.append, late=late.append)  # type: ignore[misc]
        thread = threading.Thread(target=call.make)
        thread.start()
        left = call.leave()
        thread.join()
        assert (number in late) == left
        assert (number in kept) != left


def test_an_interrupt_leaves_the_running_call(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def hangs() -> str:
        begun.set()
        return desk.function("a", hangs=True)()

    late = threading.Event()
    call = BoundedCall("a", hangs, 20.0, late=lambda _: late.set())
    original = threading.Event.wait

    def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread() and begun.is_set():
            raise KeyboardInterrupt
        return original(event, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Event, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call.run()
    desk.release()
    assert late.wait(10)
    assert not call.ended
