"""What one record costs the caller, compared with one ``FileHandler``."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Result, in_turn
from pytest_openscope.log.masking import ExactMasker
from pytest_openscope.log.session_log import SessionLog

TARGET = 0.8
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_SECRETS = ("correct-horse-battery", "ghp_0123456789abcdef0123456789abcdef0123", "s3cr3t-p4ssw0rd")


def _log(records: int) -> float:
    """Log with whatever collects at the moment; return the seconds per record, the logging call included."""
    logger = logging.getLogger("my.camera")
    start_s = time.perf_counter()
    for number in range(records):
        logger.info("value %d", number)
    return (time.perf_counter() - start_s) / records


def _with_file_handler(path: Path, records: int) -> float:
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


def _with_session_log(path: Path, records: int, masker: Callable[[str], str] | None) -> float:
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
                base_s, ours_s = in_turn(
                    lambda base=base: _with_file_handler(base, records),  # type: ignore[misc]
                    lambda ours=ours, masker=masker: _with_session_log(ours, records, masker),  # type: ignore[misc]
                    rounds,
                )
            results.append(Result(f"log record, {where}{what}", TARGET, base_s, ours_s, per="record"))
    return results
