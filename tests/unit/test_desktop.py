"""Sleep, shutdown and a change of users, as Windows tells a session; its own calls run only there."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_openscope.system import terminal
from pytest_openscope.system.desktop import Desktop
from pytest_openscope.system.signals import CAUSES, CLOSE_REQUEST

QUERY, END, CLOSE, POWER, SESSION = 0x11, 0x16, 0x10, 0x218, 0x2B1
#: As Windows passes them: a number of 64 bits with sign.
LOG_OFF, CRITICAL = -0x80000000, 0x40000000
REASON = "the experiment mouse_7 is running; Ctrl-C in its window ends it"


class Seen:
    def __init__(self, reason: str = REASON) -> None:
        self.told: list[str] = []
        self.ended: list[int] = []
        self.desktop = Desktop(self.told.append, self.ended.append, reason)


def test_a_shutdown_is_refused_while_an_animal_is_in_the_rig() -> None:
    seen = Seen()
    assert seen.desktop.answer(QUERY, 0, 0) == 0
    assert seen.desktop.answer(QUERY, 0, LOG_OFF) == 0
    assert seen.told == [f"Windows asks for {what}: refused, {REASON}" for what in ("shutdown", "log-off")]
    assert seen.desktop.answer(END, 0, 0) == 0, "somebody took it back"
    assert seen.ended == []


def test_a_rehearsal_and_a_dying_computer_refuse_nothing() -> None:
    rehearsal, real = Seen(reason=""), Seen()
    assert (rehearsal.desktop.answer(QUERY, 0, 0), real.desktop.answer(QUERY, 0, CRITICAL)) == (1, 1)
    assert rehearsal.told == real.told == ["Windows asks for shutdown: agreed"]


def test_what_cannot_be_refused_ends_the_session() -> None:
    seen = Seen()
    assert [seen.desktop.answer(END, 1, 0), seen.desktop.answer(END, 1, LOG_OFF), seen.desktop.answer(CLOSE, 0, 0)] == [0, 0, 0]
    assert [CAUSES[event] for event in seen.ended] == ["shutdown", "log-off", CAUSES[CLOSE_REQUEST]]


def test_sleep_and_other_users_are_told_and_the_rest_is_left_to_windows() -> None:
    seen = Seen()
    for message, first in ((POWER, 4), (POWER, 0x12), (SESSION, 2), (SESSION, 4), (SESSION, 7)):
        assert seen.desktop.answer(message, first, 0) is not None
    assert [text.split()[-1] for text in seen.told] == ["sleep", "sleep", "Desktop)", "disconnected", "locked"]
    assert [seen.desktop.answer(*message) for message in ((POWER, 0x7, 0), (SESSION, 0x9, 0), (0x0F, 0, 0))] == [None] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="elsewhere there is nothing to mind")
def test_elsewhere_nothing_is_started() -> None:
    seen, before = Seen(), threading.active_count()
    assert seen.desktop.start() == ""
    assert threading.active_count() == before
    seen.desktop.stop()


@pytest.mark.skipif(sys.platform != "win32", reason="windows and messages of Windows")
def test_windows_itself_asks_and_is_answered() -> None:
    if sys.platform == "win32":
        import ctypes

        user32 = ctypes.WinDLL("user32")
        seen = Seen()
        assert seen.desktop.start() == ""
        try:
            window, answer = seen.desktop._window, ctypes.c_size_t(99)
            assert window
            assert not user32.IsWindowVisible(ctypes.c_void_p(window))
            send = user32.SendMessageTimeoutW
            wide, number = ctypes.c_void_p, ctypes.c_uint
            send.argtypes = [wide, number, ctypes.c_size_t, ctypes.c_ssize_t, number, number, wide]

            def asked(message: int, first: int, second: int) -> int:
                assert send(window, message, first, second, 0, 10_000, ctypes.byref(answer))
                return answer.value

            assert [asked(QUERY, 0, LOG_OFF), asked(END, 1, LOG_OFF), asked(POWER, 4, 0), asked(CLOSE, 0, 0)] == [0, 0, 1, 0]
            assert (seen.told[0], seen.ended) == (f"Windows asks for log-off: refused, {REASON}", [5, CLOSE_REQUEST])
            assert seen.desktop._thread is not None
            assert seen.desktop._thread.is_alive()
        finally:
            thread = seen.desktop._thread
            seen.desktop.stop()
        assert thread is not None
        assert not thread.is_alive()
        assert not user32.IsWindow(ctypes.c_void_p(window))
        assert seen.desktop.problem == ""


def fake_console(monkeypatch: pytest.MonkeyPatch, mode: int | None) -> list[int]:
    """Let the console have a mode, None for no console; return the modes that it is given."""
    given: list[int] = []
    monkeypatch.setattr(terminal, "_mode", lambda fd: given[-1] if given else mode)
    monkeypatch.setattr(terminal, "_set_mode", lambda fd, new: given.append(new) is None)
    return given


def test_a_click_selects_nothing_until_the_session_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = 0x0001 | 0x0002 | 0x0004 | 0x0040 | 0x0080
    given = fake_console(monkeypatch, usual)
    undo = terminal.switch_off_selection()
    assert given == [usual & ~0x0040]
    undo()
    assert given == [usual & ~0x0040, usual]


@pytest.mark.parametrize("mode", [None, 0x0087])
def test_what_selects_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch, mode: int | None) -> None:
    given = fake_console(monkeypatch, mode)
    terminal.switch_off_selection()()
    assert given == []


CONSOLE = """
import sys
from pytest_openscope.system import terminal
with terminal._console_input() as fd:
    usual = terminal._mode(fd)
    if usual is None:
        sys.exit(3)
    terminal._set_mode(fd, usual | 0x40 | 0x80)
    undo = terminal.switch_off_selection()
    during = terminal._mode(fd)
    undo()
    after = terminal._mode(fd)
open(sys.argv[1], "w").write(f"{bool(during & 0x40)} {bool(after & 0x40)}")
"""


@pytest.mark.skipif(sys.platform != "win32", reason="a console of Windows")
def test_windows_itself_selects_nothing_meanwhile(tmp_path: Path) -> None:
    if sys.platform == "win32":
        path = tmp_path / "seen"
        command = [sys.executable, "-c", CONSOLE, str(path)]
        done = subprocess.run(command, creationflags=subprocess.CREATE_NO_WINDOW, check=False, timeout=120)
        if done.returncode == 3:
            pytest.skip("this Windows gives no console")
        assert path.read_text() == "False True"


def test_nobody_types_into_the_null_device() -> None:
    code = "import sys; from pytest_openscope.system import is_terminal; print(is_terminal(sys.stdin), is_terminal(None))"
    done = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
