"""Questions that the terminal and the live page answer, whichever comes first; both show what became of them."""

from __future__ import annotations

import builtins
import contextlib
import os
import queue
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass

if sys.platform != "win32":
    import select
    import termios

#: How often the other side is looked at while one is waited for.
_LOOK_S = 0.1
_REAL_INPUT = builtins.input
TERMINAL, PAGE = "the terminal", "the live page"


@dataclass(frozen=True)
class Form:
    """What may be answered.

    Attributes:
        kind: ``text``, ``lines``, ``confirm``, ``choice`` or ``number``.
        picture: a file in the session folder; empty without.
    """

    kind: str = "text"
    default: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    picture: str = ""


class Questions:
    """Asks on the terminal and on the live page.

    Args:
        tell: writes an event that the live page reads: ``question`` with its form, ``answered`` with ``by`` (empty when it was
            given up) and ``text``.
        terminal: somebody sits at a terminal; else only the page is asked.
    """

    def __init__(self, tell: Callable[..., None], terminal: bool) -> None:
        self._tell = tell
        self._answers: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._terminal = Terminal() if terminal else None
        self._page_lost = ""

    def take(self, ident: str, text: str) -> None:
        """Take an answer of the live page, in any thread; one that comes too late is dropped by who waits."""
        self._answers.put((ident, text))

    def lose_page(self, why: str) -> None:
        """Nothing comes from the page any more: where there is no terminal either, nobody can be asked."""
        self._page_lost = why

    def ask(self, prompt: str, logged: str, form: Form) -> str:
        """Return the first answer.

        Raises:
            EOFError: the operator closed the terminal's input, or the page is lost and there is no terminal.
        """
        ident = uuid.uuid4().hex
        if self._terminal is not None:
            print(prompt, end="", flush=True)
        self._tell("question", id=ident, text=logged, **asdict(form))
        by = answer = ""
        try:
            by, answer = self._wait(ident)
        finally:
            self._tell("answered", id=ident, by=by, text=answer)
        if by == PAGE and self._terminal is not None:
            self._terminal.drop_typed()
            print(f"\n(answered on the live page: {answer})", flush=True)
        return answer

    def _wait(self, ident: str) -> tuple[str, str]:
        while True:
            line = self._terminal.line(_LOOK_S) if self._terminal is not None else None
            if line is not None:
                return TERMINAL, line
            with contextlib.suppress(queue.Empty):
                for_question, text = self._answers.get(timeout=_LOOK_S if self._terminal is None else 0)
                if for_question == ident:
                    return PAGE, text
                continue
            if self._page_lost and self._terminal is None:
                raise EOFError(f"nobody to ask: {self._page_lost}, and there is no terminal")


class ThreadedTerminal:
    """Lines of the terminal for Windows, which lets nobody wait for a console and for something else: a thread reads.

    What it is reading when the page answers is the next question's.
    """

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | EOFError] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None

    def line(self, timeout_s: float) -> str | None:
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, name="openscope-terminal", daemon=True)
            self._reader.start()
        try:
            found = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self._reader = None
        if isinstance(found, EOFError):
            raise found
        return found

    def _read(self) -> None:
        try:
            self._lines.put(_REAL_INPUT())
        except (EOFError, OSError):
            self._lines.put(EOFError())

    def drop_typed(self) -> None:
        """Leave what was typed to who goes on reading."""


if sys.platform != "win32":

    class Terminal:
        """Lines of the terminal, waited for with a limit; the system lets a line be edited until Enter."""

        def __init__(self) -> None:
            self._rest = b""

        def line(self, timeout_s: float) -> str | None:
            fd = sys.stdin.fileno()
            ready, _, _ = select.select([fd], [], [], timeout_s)
            if not ready:
                return None
            data = os.read(fd, 65536)
            if not data:
                raise EOFError
            whole, end, self._rest = (self._rest + data).partition(b"\n")
            if not end:
                self._rest = whole
                return None
            return whole.decode("utf-8", "replace")

        def drop_typed(self) -> None:
            """Forget what was typed for a question that is answered, so that it is no part of the next answer."""
            self._rest = b""
            with contextlib.suppress(OSError, termios.error):
                termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)

else:
    Terminal = ThreadedTerminal
