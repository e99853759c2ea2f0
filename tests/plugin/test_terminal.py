"""What an operator sees at a real terminal (a pseudo-terminal of POSIX)."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals of POSIX", allow_module_level=True)

import fcntl
import pty
import termios


def _take_terminal() -> None:
    """Make stdin the terminal from which Ctrl-C comes."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A session at a terminal: what it shows, and somebody who types."""

    def __init__(self, command: list[str], cwd: Any) -> None:
        self.fd, child = pty.openpty()
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=child, stdout=child, stderr=child, start_new_session=True, preexec_fn=_take_terminal
        )
        os.close(child)
        self.text = ""

    def _read(self, deadline: float) -> bool:
        """Take in what is shown; False when the program has closed its terminal."""
        ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"nothing more came:\n{self.text}")
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.text += re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", data.decode("utf-8", "replace")).replace("\r\n", "\n")
        return bool(data)

    def until(self, words: str, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while words not in self.text:
            assert self._read(deadline), f"{words!r} did not come:\n{self.text}"

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self, timeout_s: float = 30.0) -> int:
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        return self.process.wait(timeout_s)


@pytest.fixture
def start(bench: Any) -> Iterator[Any]:
    started: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        command = [*bench.command(*arguments, ids=False), "--subject-id", "m", "--user-id", "u"]
        started.append(Terminal(command, bench.path))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        os.close(one.fd)


def test_every_question_stands_on_a_line_of_its_own(bench: Any, start: Any) -> None:
    bench.steps("def test_it(operator):\n    operator.ask('Weight of the animal?')\n    assert input('Ready? ') == 'yes'\n")
    terminal = start()
    terminal.until("Weight of the animal?")
    terminal.type("24\n")
    terminal.until("Ready?")
    terminal.type("yes\n")
    terminal.until("Notes on this session")
    terminal.type("quiet\n\n")
    assert terminal.end() == 0
    for question in ("Weight of the animal? ", "Ready? ", "Notes on this session"):
        assert f"\n{question}" in terminal.text
    assert bench.end["experiment_data"]["experiment_notes"] == "quiet"


def test_every_ctrl_c_is_answered_at_once(bench: Any, start: Any) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    bench.steps(
        f"""
def test_record(acquisition):
    acquisition.run(command=[sys.executable, "-c", {deaf!r}], name="camera")

@pytest.mark.post_acquisition
def test_save():
    print("saving", file=sys.__stderr__, flush=True)
    time.sleep(60)
"""
    )
    stopping = ("--param", "stop_graceful_s=1.5", "--param", "stop_terminate_s=1", "--param", "stop_kill_s=2")
    terminal = start(*stopping, "-s")
    log = lambda: bench.folder / "launcher_metadata" / "launcher.log"  # noqa: E731
    bench.wait_for(lambda: "camera.stdout ready" in log().read_text(encoding="utf-8"))
    asked = time.monotonic()
    terminal.type("\x03")
    terminal.until("stopping camera (at most 4.5 s); stopping; post-acquisition runs, again to skip it")
    # The program is deaf for 1.5 s: the answer does not wait for it.
    assert time.monotonic() - asked < 1.5
    assert "\nopenscope: Ctrl-C: stopping" in terminal.text
    terminal.until("saving")
    terminal.type("\x03")
    terminal.until("openscope: Ctrl-C: no more steps; devices are made safe")
    terminal.until("Notes on this session")
    terminal.type("\n")
    assert terminal.end() == 2
    assert bench.end["outcome"] == "interrupted"


def test_ctrl_c_before_any_acquisition_says_that_the_session_ends(bench: Any, start: Any) -> None:
    bench.steps("@pytest.mark.pre_acquisition\ndef test_it():\n    open('begun', 'w').close()\n    time.sleep(60)\n")
    terminal = start()
    bench.wait_for((bench.path / "begun").exists)
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.until("openscope: Ctrl-C: stopping; no acquisition has begun, so the session ends; devices are made safe")
    terminal.until("Notes on this session")
    terminal.type("\n")
    assert terminal.end() == 2
