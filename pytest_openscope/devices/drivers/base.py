"""What the ready-made drivers share."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

#: A script's file, a script written out, or none.
ScriptSource = Path | Mapping[str, Any] | None


class Talker:
    """A device that is asked in texts: sets how it proves that it is the right one.

    Each driver has a class method ``simulate(options, script)``, which returns the options that lead to an in-process peer, an
    object to ``close`` afterwards (or None), and words for the operator.
    """

    def __init__(self, check_query: str | None, check_answer: str | None) -> None:
        self._check_query = check_query
        self._check_answer = check_answer
        self._lock = threading.RLock()

    def query(self, text: str) -> str:
        """Send a text and return the answer."""
        raise NotImplementedError

    def check(self) -> str:
        """Ask ``check_query`` and hold the answer against the regular expression ``check_answer``.

        Raises:
            RuntimeError: another answer came.
        """
        if self._check_query is None:
            return "open (no check_query declared)"
        answer = self.query(self._check_query)
        if self._check_answer is not None and not re.search(self._check_answer, answer):
            raise RuntimeError(f"{self._check_query!r} was answered {answer!r}, which does not match {self._check_answer!r}")
        return answer

    def _ask(self, text: str, send: Callable[[str], None], receive: Callable[[], str]) -> str:
        """Send a text and return what comes next; a ``TimeoutError`` names the question."""
        with self._lock:
            send(text)
            try:
                return receive()
            except TimeoutError as error:
                raise TimeoutError(f"no answer to {text!r}: {error}") from None


class LineTalker(Talker):
    """A device that is told and answers in lines."""

    def __init__(self, check_query: str | None, check_answer: str | None, safe_command: str | None) -> None:
        super().__init__(check_query, check_answer)
        self._safe_command = safe_command

    def write(self, text: str) -> None:
        """Send one line."""
        raise NotImplementedError

    def read_line(self, timeout_s: float | None = None) -> str:
        """Return the next line without its end, which comes within ``timeout_s`` (default: the device's)."""
        raise NotImplementedError

    def query(self, text: str, timeout_s: float | None = None) -> str:
        """Send a line and return the next one that comes.

        Raises:
            TimeoutError: as :meth:`read_line`, naming the question.
        """
        return self._ask(text, self.write, partial(self.read_line, timeout_s))

    def safe_state(self) -> None:
        """Send ``safe_command``, if one is declared."""
        if self._safe_command is not None:
            self.write(self._safe_command)
