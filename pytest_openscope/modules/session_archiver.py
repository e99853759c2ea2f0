"""Ready-made step: archive the session folder to two places, without loss.

Every file is copied to ``network_dir`` and ``backup_dir``, read back there and compared; nothing that lies there is ever
overwritten; what was interrupted is gone on with. The copying is done by a process of its own: it goes on when the step is
interrupted or runs out of time, and the next session, or ``python -m pytest_openscope archive``, finishes what is left. With
``when: background`` it begins when the session has ended and the rig is free.

The parameters are those of :class:`.archiving.ArchiverParameters`.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .archiving.engine import Progress
from .archiving.jobs import note_job, start_worker
from .archiving.parameters import ArchiverParameters, read_parameters, settled
from .context import ModuleContext
from .failures import ModuleFailed

#: The log gets a line on the progress this often.
_LOG_S = 10.0


def session_archiver(context: ModuleContext, parameters: ArchiverParameters) -> None:
    """Archive, and fail when anything is not archived.

    Raises:
        ModuleFailed: a parameter is wrong; files could not be archived, all of them named; or the time is up.
    """
    step = context.logger.name.removeprefix("pytest_openscope.modules").strip(".") or "session_archiver"
    read = settled(parameters, context.session_folder, step)
    report = _archive(context.session_folder, read, step, context.logger, context.progress)
    if report is not None:
        context.record("archived", round(report["bytes_copied"] / 1e9, 6), "GB")


def archive_session(
    session_folder: Path,
    /,
    *,
    step: str = "session_archiver",
    logger: logging.Logger | None = None,
    progress: Callable[[float, float, str], object] = lambda *_: None,
    **parameters: Any,
) -> dict[str, Any] | None:
    """Archive a folder as the step ``session_archiver`` does, from a Python experiment.

    Args:
        session_folder: the folder that the paths among ``parameters`` are relative to; also what is archived, unless
            ``session_dir`` says otherwise.
        step: name of this archive, unique in its session.
        logger: gets the progress and the report.
        progress: shows how far it is: ``experiment.progress``.
        parameters: as in ``module_parameters``.

    Returns:
        The report; None with ``when="background"``.

    Raises:
        ModuleFailed: a parameter is wrong; files could not be archived, all of them named; or the time is up.
    """
    read = read_parameters(parameters, session_folder, step)
    return _archive(session_folder, read, step, logger or logging.getLogger(__name__), progress)


def _archive(
    session_folder: Path,
    read: ArchiverParameters,
    step: str,
    log: logging.Logger,
    show: Callable[[float, float, str], object],
) -> dict[str, Any] | None:
    if not read.folder.is_dir():
        raise ModuleFailed(f"there is no folder {read.folder} to archive")
    note_job(session_folder, step, read)
    if read.when == "background":
        log.info("archived when the session has ended: %s", " and ".join(read.targets().values()))
        return None
    process = start_worker(session_folder, step=step)
    message = _follow(process, log, read.timeout_s, show)
    if message is None:
        raise ModuleFailed(f"the archive was not complete after {read.timeout_s:g} s; it goes on in the background")
    if "report" not in message:
        raise ModuleFailed(str(message.get("problem")))
    report: dict[str, Any] = message["report"]
    for line in message["would"]:
        log.info("would copy %s", line)
    for name, reason in report["passed_over"].items():
        log.warning("passed over: %s %s", name, reason)
    for remark in report["remarks"]:
        log.warning("%s", remark)
    for problem in report["problems"]:
        log.error("not archived: %s", problem)
    log.info("%s", message["text"])
    if not report["complete"]:
        named = "; ".join(report["problems"][:5])
        more = f"; and {len(report['problems']) - 5} more" if len(report["problems"]) > 5 else ""
        raise ModuleFailed(f"{len(report['problems'])} not archived: {named}{more} (see {read.manifest})")
    return report


def _follow(
    process: Any, log: logging.Logger, timeout_s: float | None, show: Callable[[float, float, str], object]
) -> dict[str, Any] | None:
    """Log what the worker says until it has a result; None when the time is up, which the worker does not mind."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        while line := process.stdout.readline():
            lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, name="archive-worker", daemon=True).start()
    started = told = time.monotonic()
    while timeout_s is None or time.monotonic() - started < timeout_s:
        try:
            line = lines.get(timeout=0.2)
        except queue.Empty:
            continue
        if not line:
            return {"problem": f"the archive worker ended with code {process.wait()} and said nothing"}
        message = json.loads(line)
        if "progress" not in message:
            process.wait(30)
            return dict(message)
        progress = Progress(**message["progress"])
        show(progress.bytes_done, progress.bytes, "bytes")
        if time.monotonic() - told > _LOG_S:
            told = time.monotonic()
            log.info("archiving: %s", progress)
    process.returncode = 0  # it goes on by design; Popen's finalizer would warn that it does
    return None
