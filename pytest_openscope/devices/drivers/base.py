"""What the ready-made drivers share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: Called with ``told``/``answered`` and the content, when the rig file says ``log_io: true``.
IoListener = Callable[[str, object], None]
#: A script's file, a script written out, or none.
ScriptSource = Path | Mapping[str, Any] | None


class Talker(ABC):
    """A device that is asked in texts: sets how it proves that it is the right one.

    A driver offers its own simulation by ``simulate``: it returns the options to use instead and what to close afterwards.
    """

    #: Name of the option that a simulated transport replaces, shown to the operator.
    transport = ""

    def __init__(self, check_query: str | None, check_answer: str | None) -> None:
        self.on_io: IoListener | None = None
        self._check_query = check_query
        self._check_answer = check_answer

    @abstractmethod
    def query(self, text: str) -> str:
        """Send a text and return the answer."""

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

    def _io(self, direction: str, content: object) -> None:
        if self.on_io is not None:
            self.on_io(direction, content)

    @classmethod
    @abstractmethod
    def simulate(cls, options: dict[str, Any], script: ScriptSource) -> tuple[dict[str, Any], Any, str]:
        """Return options that lead to an in-process peer, an object to ``close``, and words for the operator."""
