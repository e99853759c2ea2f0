"""A console that is being closed, with this system's own interrupt of the main thread; the calls of Windows run only there."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time

import pytest

from pytest_openscope.session.interrupts import Interrupts, StepInterrupted
from pytest_openscope.system.signals import CAUSES, ConsoleClose, interrupt_main


@pytest.mark.parametrize("event", list(CAUSES))
def test_closing_is_one_interrupt_and_waits_for_the_session(event: int) -> None:
    told: list[tuple[int, str]] = []
    interrupts = Interrupts(lambda count, cause: told.append((count, cause)))
    interrupts.install()
    interrupts.hold()
    answered: list[bool] = []
    in_step = False

    def close() -> None:
        while not in_step:  # an interrupt in Thread.start() would leave its lock in disorder
            time.sleep(0.01)
        answered.append(interrupts.console.handle(event))

    windows = threading.Thread(target=close)
    windows.start()

    def step() -> None:
        nonlocal in_step
        with interrupts.window():
            in_step = True
            until = time.monotonic() + 10
            while time.monotonic() < until:
                time.sleep(0.01)

    try:
        with pytest.raises(StepInterrupted, match=re.escape(CAUSES[event])):
            step()
        assert told == [(1, CAUSES[event])]
        # The process would be ended as soon as this thread returns.
        assert windows.is_alive()
    finally:
        interrupts.restore()
    windows.join(10)
    assert answered == [True]


def test_an_interrupt_from_a_thread_runs_the_handler_in_the_main_thread() -> None:
    heard: list[threading.Thread] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(threading.current_thread()))
    try:
        other = threading.Thread(target=interrupt_main)
        other.start()
        other.join()
        until = time.monotonic() + 10
        while not heard and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [threading.main_thread()]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_an_interrupt_without_a_handler_does_nothing(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        interrupt_main()
        time.sleep(0.01)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_left_to_python_and_ctrl_break_passed_on() -> None:
    sent: list[int] = []
    broken: list[str] = []
    assert ConsoleClose(sent.append).handle(0) is False
    assert ConsoleClose(sent.append).handle(1) is False
    assert ConsoleClose(sent.append, lambda: not broken.append("break")).handle(1) is True
    assert (sent, broken) == ([], ["break"])


def test_what_closes_is_named_at_the_second_signal_too() -> None:
    console = ConsoleClose(lambda number: None)
    console.over()
    assert console.handle(2)
    assert console.cause == "the console was closed"


@pytest.mark.skipif(sys.platform != "win32", reason="the console of Windows")
def test_windows_takes_the_handler_and_gives_it_back() -> None:
    console = ConsoleClose()
    console.install()
    assert console._routine is not None
    console.over()
    assert console._routine is None
    assert signal.getsignal(signal.SIGINT) is not None


@pytest.mark.skipif(
    sys.platform == "win32", reason="POSIX gives a signal to any thread; a sleep of Windows' waits for an event"
)
def test_a_signal_that_the_sleep_of_the_main_thread_did_not_notice_is_heard_at_once() -> None:
    """It goes to another thread: what that does to the sleep is what a signal does that comes just before the sleep begins."""
    heard: list[tuple[int, str]] = []
    interrupts = Interrupts(lambda count, cause: heard.append((count, cause)))
    before = signal.getsignal(signal.SIGURG)
    threads = set(threading.enumerate())
    interrupts.install()
    (listener,) = set(threading.enumerate()) - threads
    interrupts.hold()
    sleeping = threading.Event()

    def elsewhere() -> None:
        sleeping.wait()
        time.sleep(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    other = threading.Thread(target=elsewhere)
    other.start()
    began = time.monotonic()

    def step() -> None:
        with interrupts.window():
            sleeping.set()
            time.sleep(60)

    try:
        with pytest.raises(StepInterrupted, match="Ctrl-C"):
            step()
    finally:
        interrupts.restore()
    assert time.monotonic() - began < 30
    assert heard == [(1, "Ctrl-C")]
    other.join()
    interrupts.restore()
    listener.join(30)
    assert not listener.is_alive()
    assert signal.getsignal(signal.SIGURG) is before
    assert signal.set_wakeup_fd(-1) == -1
