"""The operator: questions with their answers, confirmations, notes; what was answered last on this rig."""

from __future__ import annotations

import builtins
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ..system import make_private_folder, read_json, write_json
from .questions import Form, Questions

_log = logging.getLogger("pytest_openscope.operator")
#: Questions that a step asks itself must not reach the replaced ``input``.
_REAL_INPUT = builtins.input
_YES = {"y", "yes", "j", "ja", "o", "oui"}
_NO = {"n", "no", "nein", "non"}


class Operator:
    """Asks the operator; every question and answer stands in the session log.

    Attributes:
        on_question: gets each question when it is asked, and None when it is answered or given up.
        available: False with ``--no-input``, under ``CI``, or when stdin is no terminal. Asking then raises ``EOFError``.
    """

    def __init__(
        self,
        available: bool,
        suspend: Callable[[], AbstractContextManager[Any]] = nullcontext,
        pause: Callable[[], AbstractContextManager[Any]] = nullcontext,
        waiting: Callable[[str, bool], AbstractContextManager[Any]] = lambda *_: nullcontext(),
    ) -> None:
        self.available = available
        self._suspend = suspend
        self._pause = pause
        self._questions: Questions | None = None
        self._keep_picture: Callable[[Path], str] = str
        self._waiting = waiting
        self.on_question: Callable[[str | None], None] = lambda text: None

    def share(self, questions: Questions) -> None:
        self._questions, self.available = questions, True

    def ask(
        self, question: str, default: str | None = None, *, choices: Sequence[str] = (), picture: str | Path | None = None
    ) -> str:
        """Return what the operator answers; an empty answer gives ``default`` where there is one.

        Args:
            choices: asks until the answer is one of them; their first letters will do.
            picture: a file that belongs to the question: shown beside it on the live page, named on the terminal, and kept
                with the session's attachments.

        Raises:
            EOFError: nobody can be asked, or the operator closed the input.
            FileNotFoundError: there is no such picture.
        """
        text = question.rstrip()
        shown = f"{text} ({', '.join(choices)})" if choices else text
        form = Form("choice" if choices else "text", default or "", tuple(choices), picture=self._picture(picture))
        while True:
            answer = self._read(f"{shown} [{default}] " if default else f"{shown} ", text, form)
            if not choices:
                return answer
            typed = answer.strip().lower()
            same = [one for one in choices if one.lower() == typed]
            fitting = same or [one for one in choices if typed and one.lower().startswith(typed)]
            if len(fitting) == 1:
                return fitting[0]

    def number(
        self,
        question: str,
        default: float | None = None,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        unit: str = "",
        picture: str | Path | None = None,
    ) -> float:
        """Ask until the answer is a number within its limits; a decimal comma and the unit may be written.

        Raises:
            EOFError: nobody can be asked, or the operator closed the input.
            FileNotFoundError: there is no such picture.
        """
        text = question.rstrip()
        limits = limits_text(minimum, maximum, unit)
        shown = f"{text} ({limits})" if limits else text
        form = Form(
            "number",
            "" if default is None else f"{default:g}",
            minimum=minimum,
            maximum=maximum,
            unit=unit,
            picture=self._picture(picture),
        )
        problem = ""
        while True:
            prompt = f"{problem}{shown} [{default:g}] " if default is not None else f"{problem}{shown} "
            answer = self._read(prompt, f"{problem}{text}", form)
            value = number_in(answer, unit)
            if value is None:
                problem = f"{answer!r} is no number. "
            elif (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
                problem = f"{answer.strip()} is outside {limits}. "
            else:
                return value

    def _picture(self, path: str | Path | None) -> str:
        if path is None:
            return ""
        return self._keep_picture(Path(path)) if self.available else str(path)

    def _read(self, prompt: str, logged: str, form: Form) -> str:
        if not self.available:
            _log.warning("question without an operator: %s", logged)
            raise EOFError(f"nobody to ask: {logged} (--no-input, CI, or stdin is no terminal)")
        _log.info("question: %s", logged)
        with self._pause(), self._suspend(), self._waiting(logged, logged != "..."):
            try:
                self.on_question(logged)
                if form.picture:
                    print(f"picture: {form.picture}")
                answer = _REAL_INPUT(prompt) if self._questions is None else self._questions.ask(prompt, logged, form)
            except EOFError:
                _log.warning("the input was closed")
                raise
            finally:
                self.on_question(None)
        answer = answer.strip("\r\n") or form.default
        _log.info("answer: %s", answer)
        return answer

    def confirm(self, question: str, default: bool | None = None, *, picture: str | Path | None = None) -> bool:
        """Ask a yes-or-no question until the answer is one; ``picture`` as in :meth:`ask`.

        Raises:
            EOFError: nobody can be asked.
            FileNotFoundError: there is no such picture.
        """
        hint = {True: "[Y/n]", False: "[y/N]", None: "[y/n]"}[default]
        text, form = f"{question} {hint}", Form("confirm", picture=self._picture(picture))
        while True:
            answer = self._read(f"{text} ", text, form).strip().lower()
            if answer in _YES:
                return True
            if answer in _NO:
                return False
            if not answer and default is not None:
                return default

    def lines(self, question: str, collected: list[str] | None = None) -> str:
        """Ask for several lines, ended by an empty one or the end of the input; empty when nobody can be asked.

        Args:
            collected: gets each line at once, so that an interruption costs none that was given.
        """
        if not self.available:
            return ""
        collected = [] if collected is None else collected
        try:
            text, form = question.rstrip(), Form("lines")
            answer = self._read(f"{text} ", text, form)
            while answer.strip():
                collected += answer.splitlines()
                if "\n" in answer:
                    break  # The live page gives all of them at once.
                answer = self._read("... ", "...", form)
        except EOFError:
            pass
        return "\n".join(collected)

    def input(self, prompt: object = "", /) -> str:
        """Stand in for ``builtins.input`` while a step runs."""
        return self._read(str(prompt), str(prompt).strip() or "input()", Form())

    @contextmanager
    def replacing_input(self) -> Iterator[None]:
        """Answer ``input()`` and ``sys.stdin.readline()`` of third-party code for the time of a step."""
        mine: Any = self.input
        stdin: Any = _Stdin(self)
        real_input, real_stdin = builtins.input, sys.stdin
        builtins.input = mine
        sys.stdin = stdin
        try:
            yield
        finally:
            if builtins.input is mine:
                builtins.input = real_input
            if sys.stdin is stdin:
                sys.stdin = real_stdin


def limits_text(minimum: float | None, maximum: float | None, unit: str) -> str:
    """Return limits as the operator reads them; empty without any."""
    low, high = ("" if one is None else f"{one:g}" for one in (minimum, maximum))
    text = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else ""
    return f"{text} {unit}".strip()


def number_in(answer: str, unit: str) -> float | None:
    """Return the finite number that somebody typed, with its unit or without; None when it is none."""
    try:
        value = float(answer.strip().removesuffix(unit).strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class _Stdin:
    """``sys.stdin`` of a step: lines come from the operator, everything else from the stream that was there."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._stream = sys.stdin

    def readline(self, size: int = -1, /) -> str:
        try:
            line = self._operator.input("") + "\n"
        except EOFError:
            return ""
        return line if size < 0 else line[:size]

    def read(self, size: int = -1, /) -> str:
        return "" if not self._operator.available else self.readline(size)

    def __iter__(self) -> Iterator[str]:
        while line := self.readline():
            yield line

    def isatty(self) -> bool:
        return self._operator.available

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def real_descriptor(config: Any, number: int) -> int:
    """Return the descriptor of the real stdout (1) or stderr (2), which pytest's fd capture keeps aside."""
    manager = config.pluginmanager.getplugin("capturemanager")
    capture = getattr(getattr(manager, "_global_capturing", None), "out" if number == 1 else "err", None)
    saved = getattr(capture, "targetfd_save", None)
    return saved if isinstance(saved, int) else number


def say_at_once(config: Any, text: str) -> None:
    """Write a line to the real stderr, past pytest's capture; safe in a signal handler."""
    with suppress(OSError):
        os.write(real_descriptor(config, 2), f"\nopenscope: {text}\n".encode("utf-8", "replace"))


_FILE = "last_answers.json"


def last_answers(state_directory: Path) -> dict[str, str]:
    return {key: str(value) for key, value in (read_json(state_directory / _FILE) or {}).items()}


def remember_answers(state_directory: Path, answers: dict[str, str]) -> None:
    """Keep the answers for the next session; a convenience, so that a failure changes nothing."""
    with suppress(OSError):
        make_private_folder(state_directory)
        write_json(state_directory / _FILE, {**last_answers(state_directory), **answers})
