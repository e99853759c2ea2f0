"""What an operator sees at a real terminal (a pseudo-terminal of POSIX)."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm

if sys.platform == "win32":
    pytest.skip("pseudo-terminals of POSIX; of consoles: tests/windows/test_windows_endings.py", allow_module_level=True)

import fcntl
import pty
import termios

import pyte


class Terminal:
    """A session at a terminal: what it shows, and somebody who types."""

    def __init__(
        self, command: list[str], cwd: Any, size: tuple[int, int] = (24, 80), environment: dict[str, str] | None = None
    ) -> None:
        self.fd, child = pty.openpty()
        self.resize(*size)
        self.process = warm.start(
            command,
            cwd=cwd,
            stdin=child,
            stdout=child,
            stderr=child,
            terminal=True,
            # The size is the terminal's own, not what somebody exported.
            env={**{key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}, **(environment or {})},
        )
        #: A terminal outlives what runs in it: a shell has it open.
        self._shell = child
        self.raw = b""

    def _read(self, deadline: float) -> bool:
        """Take in what is shown; False when the program has closed its terminal."""
        ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"nothing more came:\n{self.text}")
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.take(data)
        return bool(data)

    def take(self, data: bytes) -> None:
        self.raw += data

    @property
    def text(self) -> str:
        """What was shown above the area, without control sequences."""
        shown = re.sub(r"\x1b7.*?\x1b8", "", self.raw.decode("utf-8", "replace"), flags=re.DOTALL)
        return re.sub(r"\x1b(\[[0-9;]*[A-Za-z]|D)|\a", "", shown).replace("\r\n", "\n")

    @property
    def everything(self) -> str:
        """What was shown, the area too."""
        return re.sub(r"\x1b(\[[0-9;]*[A-Za-z]|[78D])|\a", "", self.raw.decode("utf-8", "replace"))

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, words: str, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while words not in self.everything:
            assert self._read(deadline), f"{words!r} did not come:\n{self.text}"

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def watch(self, until: float) -> None:
        """Take in what comes until then."""
        while (left_s := until - time.monotonic()) > 0 and select.select([self.fd], [], [], left_s)[0]:
            self._read(until)

    def end(self, timeout_s: float = 30.0) -> int:
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
            self.watch(time.monotonic() + 0.02)
        while select.select([self.fd], [], [], 0.2)[0]:
            self._read(deadline)
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
        os.close(self._shell)


@pytest.fixture
def start(bench: Any) -> Iterator[Any]:
    started: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        command = [*bench.command(*arguments, ids=False), "--subject-id", "m", "--user-id", "u"]
        started.append(Terminal(command, bench.path))
        return started[-1]

    yield start
    for one in started:
        one.close()


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
    deaf = (
        "import os, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready', flush=True)\n"
        "while not os.path.exists('enough'): time.sleep(0.01)"
    )
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
    stopping = ("--param", "stop_graceful_s=60", "--param", "stop_terminate_s=1", "--param", "stop_kill_s=2")
    terminal = start(*stopping, "-s")
    log = lambda: bench.folder / "launcher_metadata" / "launcher.log"  # noqa: E731
    bench.wait_for(lambda: "camera.stdout ready" in log().read_text(encoding="utf-8"))
    terminal.type("\x03")
    terminal.until("stopping camera (at most 63 s); stopping; post-acquisition runs, again to skip it")
    # The program is deaf until now: the answer did not wait for it.
    bench.write("enough", "")
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


# -- scenes: what the screen shows, compared with a kept picture of it -----------------------------

_SCREENS = Path(__file__).with_name("screens")
#: Make the pictures anew, and look at them before they are kept.
_UPDATE = bool(os.environ.get("UPDATE_SCREENS"))
_NORMAL = [
    (r"m_\d{4}-\d\d-\d\d_\d\d-\d\d-\n?\d\d", "m_2026-01-01_00-00-00"),
    (r"\b\d:\d\d:\d\d\b", "0:00:00"),
    (r"\b\d\d:\d\d:\d\d\b", "00:00:00"),
    (r"[\d.]+ [kMGT]B free", "9 GB free"),
    (r"mirror (up to date|[\d.]+ \w+ behind)", "mirror 1 kB behind"),
    (r"run\.py:\d+", "run.py:000"),
    (r"/tmp/o-\w{8}", "/tmp/o-somewhat"),
    (r"^platform .*", "platform ..."),
    (r"^(rootdir|plugins|cachedir): .*", r"\1: ..."),
    (r"^=+ (.*) in [\d.]+s.* =+$", r"=== \1 ==="),
]


def normal(shown: str) -> str:
    """Return what a screen shows without times, versions, and what else differs from run to run."""
    for pattern, text in _NORMAL:
        shown = re.sub(pattern, text, shown, flags=re.MULTILINE)
    return shown.rstrip() + "\n"


class Screen(Terminal):
    """A terminal as a person sees it."""

    def __init__(self, command: list[str], cwd: Any, columns: int, rows: int, **environment: str) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=5000)
        self._emulator = pyte.ByteStream(self.screen)
        super().__init__(command, cwd, (rows, columns), {"TERM": "xterm-256color", "PYTEST_THEME": "", **environment})

    def take(self, data: bytes) -> None:
        super().take(data)
        self._emulator.feed(data)

    def resize(self, rows: int, columns: int) -> None:
        super().resize(rows, columns)
        self.screen.resize(rows, columns)

    def lines(self) -> list[str]:
        """All that was ever shown and stayed, with what has scrolled off."""
        gone = ["".join(row[column].data for column in range(self.screen.columns)) for row in self.screen.history.top]
        return [line.rstrip() for line in [*gone, *self.screen.display]]

    def picture(self) -> str:
        return normal("\n".join(line.rstrip() for line in self.screen.display))

    def shows(self, name: str, timeout_s: float = 20.0) -> None:
        """Wait until the screen is what the kept picture shows."""
        path, deadline = _SCREENS / f"{name}.txt", time.monotonic() + timeout_s
        if _UPDATE:
            self.watch(time.monotonic() + 1.5)
            _SCREENS.mkdir(exist_ok=True)
            path.write_text(self.picture(), encoding="utf-8")
            return
        kept = path.read_text(encoding="utf-8")
        while self.picture() != kept:
            if time.monotonic() > deadline:
                assert self.picture() == kept
            self.watch(time.monotonic() + 0.1)


@pytest.fixture
def bench(bench: Any) -> Iterator[Any]:
    """The rig in a folder whose name is as long on every computer, since a terminal wraps long lines."""
    with tempfile.TemporaryDirectory(prefix="o-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield type(bench)(bench.pytester, Path(folder))


@pytest.fixture
def show(bench: Any) -> Iterator[Any]:
    started: list[Screen] = []

    def show(*arguments: str, columns: int = 100, rows: int = 30, cwd: Any = None, **environment: str) -> Screen:
        command = [*bench.command(*arguments, ids=False), "--subject-id", "m", "--user-id", "u"]
        started.append(Screen(command, cwd or bench.path, columns, rows, **environment))
        return started[-1]

    yield show
    for one in started:
        one.close()


CAMERA = """
CAMERA = '''
import pathlib, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("frame 12 of 40, \\\\x1b[2Jtoken", flush=True)
while not pathlib.Path("end").exists():
    time.sleep(0.05)
'''

def record(acquisition, experiment):
    logging.getLogger("lab").warning("dark")
    with acquisition.running(command=[sys.executable, "-c", CAMERA], name="camera", cwd=os.getcwd()) as camera:
        experiment.progress(1, 40, "frames")
        experiment.progress(12, 40, "frames")
        camera.wait()
"""


def test_a_question_a_running_step_and_ctrl_c_twice(bench: Any, show: Any) -> None:
    bench.steps(
        CAMERA
        + """
@pytest.mark.pre_acquisition
def test_weigh(operator):
    operator.ask("Weight of the animal?")

def test_record(acquisition, experiment):
    record(acquisition, experiment)

@pytest.mark.post_acquisition
def test_save():
    time.sleep(60)
"""
    )
    screen = show("--param", "stop_graceful_s=30", "--param", "stop_terminate_s=1", "--param", "stop_kill_s=2")
    screen.until("Weight of the animal?")
    screen.shows("question")
    assert screen.raw.count(b"\a") == 1
    # How long it waits goes on while nobody types, and what is typed stands behind the question.
    screen.type("2")
    screen.until("waiting 0:00:02")
    screen.type("4\n")
    screen.until("frame 12 of 40")
    screen.shows("running")
    screen.type("\x03")
    screen.shows("ctrl_c_once")
    bench.write("end", "")
    screen.until("step test_save")
    screen.type("\x03")
    screen.until("Notes on this session")
    screen.shows("ctrl_c_twice")
    screen.type("\n")
    assert screen.end() == 2
    screen.shows("interrupted")
    assert screen.screen.margins is None


def test_60_columns_without_colour_and_a_failure(bench: Any, show: Any) -> None:
    bench.steps(
        CAMERA + "def test_record(acquisition, experiment):\n    record(acquisition, experiment)\n    assert 0, 'no light'\n"
    )
    screen = show("--tb=short", columns=60, NO_COLOR="1")
    screen.until("frame 12 of 40")
    screen.shows("running_60")
    bench.write("end", "")
    screen.until("Notes on this session")
    screen.shows("question_60")
    screen.type("\n")
    assert screen.end() == 1
    screen.shows("failure_60")
    # Attributes of all kinds are left away, but for taking them back.
    assert set(re.findall(rb"\x1b\[([0-9;]*)m", screen.raw)) <= {b"0", b""}


def test_200_columns_with_a_mirror_and_a_crash(bench: Any, show: Any) -> None:
    rig = (bench.path / "rig.yaml").read_text(encoding="utf-8")
    bench.write("rig.yaml", f"{rig}centralized_log_directory: {bench.path / 'central'}\n")
    bench.steps(
        CAMERA
        + "def test_record(acquisition, experiment):\n    record(acquisition, experiment)\n"
        + "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    screen = show(columns=200)
    screen.until("frame 12 of 40")
    screen.shows("running_200")
    bench.write("end", "")
    screen.until("session folder: ")
    # The area has gone, and the shell that follows has the whole terminal.
    assert screen.screen.margins is None
    screen.shows("crash")


MUCH = """
logging.getLogger("lab").setLevel("INFO")

@pytest.fixture
def laser():
    logging.getLogger("lab").info("laser on")
    yield
    logging.getLogger("lab").info("laser off")

@pytest.mark.pre_acquisition
@pytest.mark.parametrize("number", range(12))
def test_many(number):
    time.sleep(0.03)

@pytest.mark.pre_acquisition
def test_skipped():
    pytest.skip("no need")

def test_much(laser):
    for number in range(40):
        print("line", number, "x" * number)
        logging.getLogger("lab").info("record %d", number)
        time.sleep(0.002)
    import subprocess
    subprocess.run([sys.executable, "-c", "for n in range(30): print('child', n, flush=True)"])
    print("no end of line", end="")

@pytest.mark.post_acquisition
def test_fails():
    time.sleep(0.1)
    assert [1, 2] == [1, 3]
"""


@pytest.mark.parametrize(
    "options", [("-v", "--log-cli-level=INFO"), ("-s", "--tb=short"), ("-q", "--tb=line"), ("-vv", "-s", "-rA")], ids=" ".join
)
def test_what_pytest_and_steps_print_is_the_same_with_an_area_and_without(bench: Any, show: Any, options: Any) -> None:
    """Drawn as often as can be, on a terminal over which much scrolls, against a session whose area is never drawn."""
    shown = []
    for name, draw_s in (("drawa", 0.01), ("drawb", 1e6)):
        rig = bench.beside(name)
        rig.steps(MUCH)
        rig.write("conftest.py", f"from pytest_openscope.views.terminal import view\nview.DRAW_S = {draw_s}\n")
        screen = show(*options, "--no-input", columns=90, rows=24, cwd=rig.path)
        shown.append(screen)
    texts = []
    for screen in shown:
        assert screen.end() == 1
        text = normal("\n".join(screen.lines()))
        texts.append(re.sub(r"draw[ab]", "RIG", re.sub(r"\d+\.\d+ ?s\b", "1 s", text)))
    assert b"openscope \xc2\xb7" in shown[0].raw
    assert b"\x1b[1;" not in shown[1].raw
    assert texts[0] == texts[1]


def test_a_terminal_that_changes_its_size(bench: Any, show: Any) -> None:
    bench.steps(CAMERA + "def test_record(acquisition, experiment):\n    record(acquisition, experiment)\n")
    screen = show("--no-input")
    screen.until("frame 12 of 40")
    for rows, columns in ((20, 70), (8, 30), (40, 120)):
        screen.resize(rows, columns)
        screen.watch(time.monotonic() + 1.2)
        drawn = [line for line in screen.screen.display if "openscope ·" in line]
        # Too small a terminal shows pytest alone.
        assert len(drawn) == (rows > 8)
        assert (screen.screen.margins is None) == (rows == 8)
    bench.write("end", "")
    assert screen.end() == 0
    assert screen.screen.margins is None


# -- without a terminal -----------------------------

STEPS = """
@pytest.fixture
def laser():
    yield

@pytest.mark.pre_acquisition
def test_light():
    pass

@pytest.mark.pre_acquisition(on_failure="continue")
def test_skip():
    pytest.skip("no need")

def test_record(laser, experiment):
    experiment.progress(3, 4, "frames")
    time.sleep(1.0)
    raise ValueError("no light")
"""


def test_a_line_per_step_and_signs_of_life_without_a_terminal(bench: Any) -> None:
    bench.steps(STEPS)
    bench.write("conftest.py", "from pytest_openscope.views.terminal import view\nview.SIGN_OF_LIFE_S = 0.4\n")
    result = bench.run("--tb=no")
    said = [re.sub(r"\d+\.\d s$", "1 s", line) for line in result.outlines if line.startswith("openscope: ")]
    alive = [line for line in said if "still running" in line]
    assert [line for line in said if line not in alive] == [
        "openscope: pre_acquisition step test_light begins",
        "openscope: pre_acquisition step test_light passed in 1 s",
        "openscope: pre_acquisition step test_skip begins",
        "openscope: pre_acquisition step test_skip skipped (no need)",
        "openscope: acquisition step test_record begins",
        "openscope: pre_acquisition fixture laser begins",
        "openscope: pre_acquisition fixture laser passed in 1 s",
        "openscope: post_acquisition fixture laser begins",
        "openscope: post_acquisition fixture laser passed in 1 s",
        "openscope: acquisition step test_record failed in 1 s",
    ]
    # On a busy computer one may come while the steps are collected.
    alive = [line for line in alive if "collecting the steps" not in line]
    assert re.match(
        r"openscope: still running: acquisition step test_record for 0:00:0\d; session 0:00:0\d; 75 % \(3 of 4 frames\); "
        r"no errors, no warnings; [\d.]+ [kMGT]B free$",
        alive[0],
    )
    assert "\x1b" not in result.stdout.str()
    quiet = bench.run("--tb=no", "-q")
    shown = [line for line in quiet.outlines if "still running" not in line]
    assert not [line for line in shown if line.startswith("openscope: ")]
    assert "".join(shown).startswith(".sF")


def test_a_view_that_fails_is_a_helper_that_failed(bench: Any, show: Any) -> None:
    bench.steps("def test_it(operator):\n    time.sleep(0.5)\n    assert operator.ask('Ready?') == 'yes'\n")
    bench.write(
        "conftest.py",
        "from pytest_openscope.views.terminal import picture, view\n"
        "def fail(*_):\n    raise RuntimeError('no picture')\n"
        "picture.Picture.lines = picture.Picture.prompt_line = fail\nview.DRAW_S = 0.1\n",
    )
    screen = show()
    screen.until("Ready?")
    screen.type("yes\n")
    screen.until("Notes on this session")
    screen.type("\n")
    assert screen.end() == 0
    assert "helper failed: showing the session: RuntimeError: no picture" in screen.text
    assert any("no picture" in text for text in bench.end["helper_failures"])
    assert "Traceback" in bench.messages
    assert screen.screen.margins is None
