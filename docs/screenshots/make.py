"""Makes the pictures of docs/images: a session's terminal, its live page and its report, as they are.

Run: ``python docs/screenshots/make.py`` in an environment with the extra ``dev``, on a system with Chromium and
pseudo-terminals. The session takes half a minute and is the one of ``docs/screenshots/experiment``.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyte
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

IMAGES = Path(__file__).resolve().parents[1] / "images"
EXPERIMENT = Path(__file__).with_name("experiment")
ROWS, COLUMNS = 24, 100
MOST_BYTES = 200_000
_COLORS = {"brown": "yellow", "brightbrown": "bright_yellow", "brightblack": "bright_black"}
_THEME = TerminalTheme(
    (24, 26, 30),
    (222, 222, 222),
    [
        (24, 26, 30),
        (240, 113, 97),
        (79, 208, 150),
        (232, 190, 90),
        (120, 170, 250),
        (200, 140, 230),
        (90, 200, 210),
        (222, 222, 222),
    ],
    [
        (128, 132, 140),
        (255, 140, 120),
        (110, 230, 180),
        (250, 210, 120),
        (150, 190, 255),
        (220, 170, 250),
        (120, 220, 230),
        (255, 255, 255),
    ],
)


class Terminal:
    """A session at a pseudo-terminal, read in a thread; ``screen`` is what somebody in front of it sees."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self.raw = b""
        self._fd, child = pty.openpty()
        fcntl.ioctl(
            self._fd, termios.TIOCSWINSZ, ROWS.to_bytes(2, sys.byteorder) + COLUMNS.to_bytes(2, sys.byteorder) + bytes(4)
        )
        left_out = ("CI", "COLUMNS", "LINES", "NO_COLOR")
        environment = {key: value for key, value in os.environ.items() if key not in left_out}
        environment.update(TERM="xterm-256color", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=child, stdout=child, stderr=child, start_new_session=True, env=environment
        )
        os.close(child)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            select.select([self._fd], [], [])
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)

    def type(self, text: str) -> None:
        """Type on its keyboard."""
        os.write(self._fd, text.encode())

    def until(self, found: Callable[[str], Any], timeout_s: float = 120.0) -> Any:
        """Wait until something is in what was shown."""
        deadline = time.monotonic() + timeout_s
        while not (hit := found(self.raw.decode("utf-8", "replace"))):
            if time.monotonic() > deadline:
                raise TimeoutError(self.raw.decode("utf-8", "replace"))
            time.sleep(0.05)
        return hit

    def picture(self) -> str:
        """Return the screen as an SVG picture."""
        text = Text(no_wrap=True)
        with self._lock:
            last = max((row for row in range(ROWS) if self.screen.display[row].strip()), default=0)
            for row in range(last + 1):
                for column in range(COLUMNS):
                    cell = self.screen.buffer[row][column]
                    style = [word for word in ("bold", "underscore", "reverse") if getattr(cell, word, False)]
                    style = ["underline" if word == "underscore" else word for word in style]
                    if cell.fg != "default":
                        style.append(f"#{cell.fg}" if re.fullmatch("[0-9a-f]{6}", cell.fg) else _rich_color(cell.fg))
                    text.append(cell.data, " ".join(style))
                text.append("\n")
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        console.print(text, end="", soft_wrap=True)
        return console.export_svg(title="pytest --rig-config rig.yaml --live", theme=_THEME)


def _rich_color(name: str) -> str:
    name = _COLORS.get(name, name)
    return f"bright_{name.removeprefix('bright')}" if name.startswith("bright") and "_" not in name else name


def earlier_sessions(root: Path) -> None:
    """Write what this rig's last sessions measured: a laser that gets weaker."""
    for number in range(12):
        began = datetime.now(timezone.utc) - timedelta(days=12 - number)
        folder = root / f"mouse7_{began:%Y-%m-%d_%H-%M-%S}" / "launcher_metadata"
        folder.mkdir(parents=True)
        values = {"weight": 24.8 - 0.05 * number + 0.2 * (number % 3), "laser power": 50.6 - 0.28 * number - 0.3 * (number % 2)}
        values |= {"dropped frames": number % 4, "free disk": 1400 - 48.0 * number}
        end = {
            "session_uuid": folder.parent.name,
            "rig_id": "scope-3",
            "subject_id": "mouse7",
            "outcome": "passed",
            "start_time": began.isoformat(),
            "stop_time": (began + timedelta(minutes=40)).isoformat(),
            "measurements": [{"name": name, "value": value, "passed": True} for name, value in values.items()],
        }
        (folder / "end_state.json").write_text(json.dumps(end), encoding="utf-8")


def shoot(page: Any, name: str, height: int, below: str = "") -> None:
    """Save what the page shows, from its top or from an element on."""
    path = IMAGES / name
    top = page.locator(below).bounding_box()["y"] - 10 if below else 0
    clip = {"x": 0, "y": top, "width": page.viewport_size["width"], "height": height}
    page.screenshot(path=str(path), clip=clip, full_page=True, animations="disabled")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes")
    print(f"{path.name}: {path.stat().st_size} bytes")


def live(terminal: Terminal, browser: Browser) -> str:
    """Answer the session's question on its page, take pictures of the page, and return the terminal's."""
    url = terminal.until(lambda text: re.search(r"live page: (http://\S+)", text))[1]
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.goto(url)
    page.wait_for_selector("#question-picture:not([hidden])", timeout=120_000)
    page.eval_on_selector("#question-picture", "one => one.decode()")
    page.wait_for_timeout(1500)
    shoot(page, "live_question.png", 850)
    page.click("#question-form button:text-is('Yes')")
    page.wait_for_selector("#log-view .row.WARNING", timeout=120_000)
    page.wait_for_timeout(1500)
    shoot(page, "live_page.png", 1000)
    return terminal.picture()


def main() -> None:
    """Make all pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name, "scope-3")
        shutil.copytree(EXPERIMENT, folder)
        earlier_sessions(folder / "sessions")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "pytest_openscope.plugin",
            "-p",
            "pytest_timeout",
            "-p",
            "no:cacheprovider",
        ]
        command += ["--rig-config", "rig.yaml", "--subject-id", "mouse7", "--user-id", "ada", "--live"]
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        terminal = Terminal(command, folder)
        try:
            picture = live(terminal, browser)
            terminal.until(lambda text: "Notes on" in text)
            terminal.type("\n")
            terminal.until(lambda text: "what now:" in text)
            report = terminal.until(lambda text: next(folder.glob("sessions/*/session_report.html"), None))
        finally:
            terminal.process.kill()
            terminal.process.wait()
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-log=ready][data-plots=drawn]", state="attached")
        page.wait_for_timeout(500)
        shoot(page, "report.png", 1250)
        page.select_option("#filter-phase", label="acquisition")
        shoot(page, "report_log.png", 1090, below="#measurements")
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        page.set_content(f"<style>body {{ margin: 0; width: 1000px }} svg {{ display: block }}</style>{picture}")
        shoot(page, "terminal.png", round(page.locator("svg").first.bounding_box()["height"]))
        browser.close()


if __name__ == "__main__":
    main()
