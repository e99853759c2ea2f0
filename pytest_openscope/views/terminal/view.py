"""Follows a session on its terminal: an area at the foot of a real one, plain lines elsewhere.

The area is drawn by a thread of its own, which holds no lock while it draws: what hooks do here is to append to a list. A view
that fails is taken away and shown as a helper that failed; the experiment goes on.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ...records import StepRecord
from ...system import is_terminal, keep_apart, obeys_control_sequences
from ..values import size
from .area import Area
from .content import Seen, Shown, clean, clock, plain_line

if TYPE_CHECKING:
    from .picture import Picture

#: How often the area is drawn; what came in between is left out.
DRAW_S = 0.5
#: Without an area: how often a line says that the session is alive.
SIGN_OF_LIFE_S = 60.0
#: A terminal that takes nothing any more (Ctrl-S) keeps the session no longer than this.
_LEAVE_S = 1.0


class TerminalView:
    """What the terminal shows of a session.

    Args:
        config: pytest's.
        fd: the real stdout, past pytest's capture.
    """

    def __init__(self, config: Any, fd: int) -> None:
        self._config = config
        #: A duplicate that no step closes or takes for its own.
        self._fd = keep_apart(os.dup(fd))
        self._session: Shown | None = None
        self._started = time.monotonic()
        #: Steps that have begun and not ended, the innermost last: a fixture runs within its step.
        self._running: list[tuple[StepRecord, float]] = []
        #: The question that waits for the operator, and since when.
        self._asked = ""
        self._asked_at: float | None = None
        self._thread: threading.Thread | None = None
        self._wake, self._over = threading.Event(), threading.Event()
        self._broken = False
        encoding = str(getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
        self._ascii_only = sys.platform != "win32" and encoding not in ("utf8", "utf")
        self._somebody_looks = is_terminal(sys.stdout)
        self._is_terminal = self._somebody_looks and not os.environ.get("CI") and obeys_control_sequences(fd)
        no_colour = os.environ.get("NO_COLOR") or getattr(config.option, "color", "auto") == "no"
        self._colour = self._is_terminal and not no_colour
        self._plain_steps = not self._is_terminal and config.option.verbose >= 0

    # -- what the session calls ----------------------------------------------------------------------------------------

    def begin(self, session: Shown) -> None:
        """Show this session from now on."""
        self._session = session
        if self._config.pluginmanager.getplugin("terminalreporter") is None:
            self._broken = True
        self._guarded("showing the session on the terminal", self._start)

    def end(self) -> None:
        """Take the area away: what follows is pytest's own report."""
        self._over.set()
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_LEAVE_S)

    def close(self) -> None:
        """End it, and give the terminal back."""
        self.end()
        os.close(self._fd)

    def step_begins(self, step: StepRecord) -> None:
        """A step, or a fixture within one, has begun."""
        self._running.append((step, time.monotonic()))
        self._tell(f"{_place(step)} begins")

    def step_ended(self, step: StepRecord) -> None:
        """A step has ended; a second call does nothing."""
        running = [entry for entry in self._running if entry[0] is not step]
        if len(running) < len(self._running):
            self._running = running
            self._tell(_ending(step))

    def _tell(self, text: str) -> None:
        if self._plain_steps and not self._broken and self._session is not None:
            self._guarded("telling of a step", lambda: self._say(text))

    @contextmanager
    def waiting(self, question: str, announced: bool = True) -> Iterator[None]:
        """The time in which the operator is asked: a line above the question, a bell, and how long it waits already.

        Args:
            question: what is asked.
            announced: False for one more line of the same answer.
        """
        only_now = self._thread is None and not self._over.is_set()
        if announced:
            self._asked = clean(question)
            self._guarded("announcing a question", self._announce)
        self._asked_at = time.monotonic()
        if self._is_terminal and only_now:
            self._guarded("showing a question on the terminal", self._start)
        self._wake.set()
        try:
            yield
        finally:
            self._asked_at = None
            self._wake.set()
            if only_now and self._session is None:
                self.end()
                self._over.clear()

    # -- guarded -------------------------------------------------------------------------------------------------------

    def _guarded(self, what: str, action: Callable[[], object]) -> None:
        if self._session is not None:
            if not self._session.guard(what, action):
                self._broken = True
            return
        try:
            action()
        except Exception:
            self._broken = True

    def _start(self) -> None:
        if self._thread is None and not self._broken:
            target = self._draw_until_over if self._is_terminal else self._give_signs_of_life
            given = ("showing the session", target)
            self._thread = threading.Thread(target=self._guarded, args=given, name="openscope-terminal", daemon=True)
            self._thread.start()

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _draw_until_over(self) -> None:
        area, picture = Area(self._fd, self._ascii_only), self._picture()
        try:
            # A session that is over at once needs no area.
            while not self._over.is_set():
                self._wake.wait(DRAW_S)
                self._wake.clear()
                width = area.width
                if not self._over.is_set():
                    area.draw(picture.lines(self._look(), width) if width else [])
        finally:
            with suppress(OSError):
                area.close()

    def _give_signs_of_life(self) -> None:
        while not self._over.wait(SIGN_OF_LIFE_S):
            self._say(plain_line(self._look()), from_thread=True)

    def _look(self) -> Seen:
        """Return what there is to show now."""
        now, session, asked_at = time.monotonic(), self._session, self._asked_at
        seen = Seen(session_s=now - self._started)
        if asked_at is not None:
            seen.waiting, seen.waiting_s = self._asked, now - asked_at
        if session is None:
            seen.title, seen.doing = "no session yet", "asking what it needs"
            return seen
        seen.title = clean(session.record.session_uuid) + (" (dry run)" if session.record.dry_run else "")
        seen.doing, seen.progress = session.doing, session.progress
        for step, begun in self._running[-1:]:
            seen.step, seen.step_s = clean(_place(step)), now - begun
        if (stopping := session.stopping) is not None:
            seen.stopping, seen.stopping_s = stopping.text, now - stopping.at
        if (output := session.last_output) is not None:
            seen.last_output = clean(output[0]), clean(session.log.masked(output[1][-2000:].decode("utf-8", "replace")))
        seen.errors, seen.warnings = session.log.errors, session.log.warnings
        seen.facts = self._facts(session)
        return seen

    def _facts(self, session: Shown) -> list[str]:
        facts = []
        with suppress(OSError):
            facts.append(f"{size(shutil.disk_usage(session.folder).free)} free")
        if session.mirror["status"] != "off":
            facts.append(_mirror(session.mirror_lag))
        return facts

    def _picture(self) -> Picture:
        from .picture import Picture  # rich is for sessions at a terminal

        return Picture(self._colour, self._ascii_only)

    # -- lines ---------------------------------------------------------------------------------------------------------

    def _announce(self) -> None:
        stream = sys.__stdout__
        if not self._somebody_looks or stream is None:
            return
        at = datetime.now().strftime("%H:%M:%S")
        who = clean(_place(self._running[-1][0])) if self._running else "the session"
        line = self._picture().prompt_line(
            f">> ANSWER NEEDED at {at}: {who} waits", max(20, shutil.get_terminal_size().columns - 1)
        )
        # Capture is suspended while somebody is asked, and this is no output of the step.
        stream.write(f"{line}\n")
        stream.flush()

    def _say(self, text: str, from_thread: bool = False) -> None:
        """Print a line of its own, past pytest's capture, and let pytest begin a new line after it."""
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        line = f"openscope: {clean(text)}"
        capture = getattr(self._config.pluginmanager.getplugin("capturemanager"), "_global_capturing", None)
        # While pytest's capture is at work its own stream ends there, not on the terminal.
        if not from_thread and not (capture is not None and capture.is_started()):
            reporter.ensure_newline()
            reporter.write_line(line)
            reporter.flush()
            return
        begun = reporter._tw.width_of_current_line > 0 or self._asked_at is not None
        reporter.currentfspath, reporter._tw._current_line = None, ""
        line = f"{chr(10) * begun}{line}\n"
        stream = getattr(reporter._tw, "_file", None)
        try:
            stream.fileno()  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):
            if stream is not None:  # pytest runs within pytest
                stream.write(line)
            return
        os.write(self._fd, line.encode(getattr(stream, "encoding", None) or "utf-8", "replace"))


def _place(step: StepRecord) -> str:
    return f"{step.phase} {'fixture' if step.kind == 'fixture' else 'step'} {step.name}"


def _ending(step: StepRecord) -> str:
    took_s = step.duration_s
    if step.skipped:
        return f"{_place(step)} skipped ({step.skipped})"
    return f"{_place(step)} {step.outcome or 'ended'} in {f'{took_s:.1f} s' if took_s < 60 else clock(took_s)}"


def _mirror(lag: dict[str, Any] | None) -> str:
    if lag is None:
        return "mirror: not confirmed yet"
    behind = lag.get("bytes_behind")
    return f"mirror {size(behind)} behind" if behind else "mirror up to date"
