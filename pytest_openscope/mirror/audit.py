"""Auditing a day's log by hand, from the sessions' own copies beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .copy import SourceLog
from .day_audit import Pass, SessionAudit
from .day_file import DayFile
from .day_lines import parse_line
from .files import LOG_NAME, TURN_BYTES, day_key

#: Written beside a session's own copy at its very end: such a session appends nothing more by itself.
_END_MARK = "end_state.json"
_ROUNDS = 8


@dataclass
class AuditReport:
    """What an audit found and did.

    Attributes:
        path: the day's log.
        lines: lines read in the last round.
        sessions: sessions that were compared with their own copies.
        blanked: damaged, doubled or wrong lines that were blanked.
        appended: missing lines that were appended.
        other_lines: lines that no session of this package wrote; they are left alone.
        running: sessions that have not ended; only damage is mended for them, they append what is missing themselves.
        unclear: sessions that are not compared, with the reason.
        clean: the last round found nothing to mend.
    """

    path: Path
    lines: int = 0
    sessions: list[str] = field(default_factory=list)
    blanked: int = 0
    appended: int = 0
    other_lines: int = 0
    running: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    clean: bool = False

    def __str__(self) -> str:
        text = (
            f"{self.path}: {self.lines} lines, {len(self.sessions)} sessions compared, {self.blanked} lines blanked, "
            f"{self.appended} appended: {'clean' if self.clean else 'NOT clean'}"
        )
        for what, names in (("still running", self.running), ("not compared", self.unclear)):
            text += "".join(f"\n  {what}: {name}" for name in names)
        return text + (f"\n  {self.other_lines} lines of other programs left alone" if self.other_lines else "")


def audit_day_log(day_log_path: str | Path, lock_wait_s: float = 300.0) -> AuditReport:
    """Mend ``YYYY/MM/DD/launcher.log`` from the sessions' own copies in ``<rig>/<session>/`` beside it.

    Lines of other programs are left alone; damaged or doubled lines of ours are blanked in place, missing lines of ended
    sessions appended. May be run at any time, also while sessions write.

    Raises:
        OSError: the file is missing, not a day's log, or the share fails.
        TimeoutError: another PC has kept the file locked for ``lock_wait_s``.
    """
    path = Path(day_log_path)
    report = AuditReport(path)
    file = DayFile(path, lambda: None)
    file.open(create=False)
    if file.path != path:
        file.close()
        raise FileExistsError(f"{path} was not written by this package; {file.path.name} beside it was")
    sources = dict(_sources(path.parent, report))
    try:
        for _ in range(_ROUNDS):
            if _round(file, sources, report, lock_wait_s):
                report.clean = True
                break
    finally:
        file.close()
        for source, _ in sources.values():
            source.close()
    return report


def _sources(folder: Path, report: AuditReport) -> Iterator[tuple[bytes, tuple[SourceLog, bool]]]:
    """Give ``(key, (own copy, session has ended))`` for every session folder beside the day's log."""
    for session in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        name = f"{session.parent.name}/{session.name}"
        logs = list(session.glob("launcher*.log"))
        if [log.name for log in logs] != [LOG_NAME]:
            report.unclear.append(f"{name} ({'more than one' if logs else 'no'} log in its folder)")
            continue
        ended = (session / _END_MARK).exists()
        (report.sessions if ended else report.running).append(name)
        yield day_key(session.parent.name, session.name), (SourceLog(logs[0]), ended)


def _round(file: DayFile, sources: dict[bytes, tuple[SourceLog, bool]], report: AuditReport, lock_wait_s: float) -> bool:
    """Read the whole file, the last part under the lock, and mend; True when there was nothing to mend."""
    # Taking the lock once makes network clients give up what they have cached, before the long part is read without it.
    _lock(file, lock_wait_s)
    file.unlock()
    audits = {key: SessionAudit(key, source, source.size()) for key, (source, ended) in sources.items() if ended}
    reading = Pass(file, 0, audits.get)
    while not reading.advance(file.whole_end(file.end()), 64 * TURN_BYTES):
        pass
    _lock(file, lock_wait_s)
    try:
        end, _ = file.cut_torn_tail()
        if end < reading.place:
            return False
        reading.advance(end, end)
        missing = [line for one in audits.values() for line in one.missing_lines(TURN_BYTES)]
        wrong = reading.damage(missing)
        report.lines = reading.lines
        report.other_lines = reading.odd_count - sum(parse_line(raw) is None for _, raw in wrong)
        report.blanked += file.blank(wrong)
        nothing = not wrong and not missing
        while missing:
            count, _ = file.append(end, missing)
            report.appended += count
            del missing[:count]
            file.unlock()
            _lock(file, lock_wait_s)
            end, _ = file.cut_torn_tail()
        return nothing
    finally:
        file.unlock()


def _lock(file: DayFile, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not file.try_lock():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{file.path} has been locked by another PC for {wait_s:.0f} s")
        time.sleep(0.01)
