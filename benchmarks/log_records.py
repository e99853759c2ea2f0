"""What one record costs the caller, compared with one ``FileHandler``."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Cost, Result, cost_of, in_turn
from pytest_openscope.log.masking import ExactMasker
from pytest_openscope.log.session_log import SessionLog

TARGET = 0.8
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_SECRETS = ("correct-horse-battery", "ghp_0123456789abcdef0123456789abcdef0123", "s3cr3t-p4ssw0rd")


def _log(records: int) -> Cost:
    """Log with whatever collects at the moment; return what a record took, the logging call included."""
    logger = logging.getLogger("my.camera")

    def log() -> None:
        for number in range(records):
            logger.info("value %d", number)

    return cost_of(log).per(records)


def _with_file_handler(path: Path, records: int) -> Cost:
    root = logging.getLogger()
    handler = logging.FileHandler(path, "w", encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        return _log(records)
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()


def _write_lines(path: Path, records: int) -> Cost:
    """Write lines as the ones of the log, each at once, as a reader of the file expects them."""

    def write() -> None:
        with open(path, "wb", buffering=0) as stream:
            for number in range(records):
                stream.write(b"2026-03-04T10:00:00.000000+01:00 INFO acquisition test_record my.camera value %d\n" % number)

    return cost_of(write).per(records)


def _with_session_log(path: Path, records: int, masker: Callable[[str], str] | None) -> Cost:
    path.unlink(missing_ok=True)
    log = SessionLog()
    log.install()
    try:
        log.open(path, masker)
        log.set_place("acquisition", "test_record")
        return _log(records)
    finally:
        log.uninstall()
        log.close()


def _folders() -> list[tuple[str, Path | None]]:
    """Return a folder in memory, where there is one, and one on the disk (None: the platform's temporary folder)."""
    memory = Path("/dev/shm")
    return [*([("memory", memory)] if memory.is_dir() else []), ("disk", None)]


def run(quick: bool) -> list[Result]:
    """Measure in memory and on the disk, without and with secrets to mask."""
    records, rounds = (5_000, 7) if quick else (20_000, 15)
    results = []
    for where, parent in _folders():
        for what, masker in (("", None), (", 3 secrets masked", ExactMasker(_SECRETS))):
            with tempfile.TemporaryDirectory(dir=parent) as folder:
                base, ours = Path(folder, "base.log"), Path(folder, "ours.log")
                costs = in_turn(
                    lambda base=base: _with_file_handler(base, records),  # type: ignore[misc]
                    lambda ours=ours, masker=masker: _with_session_log(ours, records, masker),  # type: ignore[misc]
                    rounds,
                )
            name, floor = f"log record, {where}{what}", "FileHandler of the standard library"
            results.append(Result(name, floor, *costs, target=TARGET, decides="cpu", per="record"))
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            path = Path(folder, "lines.log")
            lines = in_turn(
                lambda path=path: _write_lines(path, records),  # type: ignore[misc]
                lambda path=path: _with_session_log(path, records, None),  # type: ignore[misc]
                rounds,
            )
        floor = "a file write of the same line"
        results.append(Result(f"log record, {where}", floor, *lines, decides="cpu", per="record"))
    return results
