"""What steps print, warnings, and exceptions that nobody catches: all of it goes into the session log too."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

_MAX_PARTIAL_CHARS = 1_000_000


class _Tee:
    """Passes everything on to the stream it stands for, and whole lines to the log as well."""

    def __init__(self, stream: Any, write_line: Callable[[str], None]) -> None:
        self.stream = stream
        self._write_line = write_line
        self._partial = ""

    def write(self, text: str) -> Any:
        written = self.stream.write(text)
        if isinstance(text, str):
            *lines, self._partial = (self._partial + text).split("\n")
            for line in lines:
                self._write_line(line)
            if len(self._partial) > _MAX_PARTIAL_CHARS:
                self.end()
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def close(self) -> None:
        """A step may close what it takes for its stdout; the stream is pytest's, and needed by the next step."""

    def end(self) -> None:
        """Log what came without a newline."""
        if self._partial:
            partial, self._partial = self._partial, ""
            self._write_line(partial)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class OutputTee:
    """Hooks that log what a step writes to stdout and stderr, in all of pytest's capture modes."""

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write
        self._seen: dict[str, dict[str, int]] = {"stdout": {}, "stderr": {}}
        self._out, self._err = self._line("stdout"), self._line("stderr")

    def _line(self, name: str) -> Callable[[str], None]:
        seen = self._seen[name]

        def write_line(line: str) -> None:
            seen[line] = seen.get(line, 0) + 1
            self._write(name, line.rstrip("\r"))

        return write_line

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Any:
        out: Any = _Tee(sys.stdout, self._out)
        err: Any = _Tee(sys.stderr, self._err)
        sys.stdout, sys.stderr = out, err
        try:
            return (yield)
        finally:
            # A step may have put something else in its place.
            if sys.stdout is out:
                sys.stdout = out.stream
            if sys.stderr is err:
                sys.stderr = err.stream
            out.end()
            err.end()

    pytest_runtest_call = pytest_runtest_teardown = pytest_runtest_setup

    def log_remainder(self, report: pytest.TestReport) -> None:
        """Log what pytest captured below Python's streams: ``os.write``, C code, children of the step."""
        if report.when != "teardown" or not report.sections:
            return
        for name, seen in self._seen.items():
            for title, content in report.sections:
                if title.startswith(f"Captured {name}"):
                    self._log_unseen(name, content, seen)
            seen.clear()

    def _log_unseen(self, name: str, content: str, seen: dict[str, int]) -> None:
        for line in content.splitlines():
            if seen.get(line, 0) > 0:
                seen[line] -= 1
            elif line.strip():
                self._write(name, line)


class LooseEnds:
    """Logs what no step reports: exceptions of threads and of ``__del__``, and a call of ``os._exit``."""

    def __init__(self, on_exit: Callable[[int, str], None]) -> None:
        self._log = logging.getLogger("pytest_openscope.uncaught")
        self._on_exit = on_exit
        self._pid = os.getpid()
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def install(self) -> None:
        """Chain to the hooks that are there; call it after pytest has set its own."""
        thread_before, unraisable_before, exit_before = threading.excepthook, sys.unraisablehook, os._exit

        def thread_hook(args: Any) -> None:
            name = args.thread.name if args.thread else "?"
            if args.exc_type is not SystemExit:
                self._log.error("exception in thread %s", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))
            thread_before(args)

        def unraisable_hook(args: Any) -> None:
            text = f"{args.err_msg or 'exception ignored in'}: {args.object!r}"
            self._log.error("%s", text, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))
            unraisable_before(args)

        def noted_exit(status: int) -> Any:
            if os.getpid() == self._pid:
                self._on_exit(status, "".join(traceback.format_stack(sys._getframe(1))))
            exit_before(status)

        self._replace(threading, "excepthook", thread_hook)
        self._replace(sys, "unraisablehook", unraisable_hook)
        self._replace(os, "_exit", noted_exit)

    def _replace(self, owner: Any, name: str, hook: Any) -> None:
        self._replaced.append((owner, name, getattr(owner, name), hook))
        setattr(owner, name, hook)

    def restore(self) -> None:
        """Take the hooks away where they are still this session's."""
        for owner, name, before, hook in self._replaced:
            if getattr(owner, name) is hook:
                setattr(owner, name, before)
        self._replaced.clear()
