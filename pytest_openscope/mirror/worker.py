"""The child of the sidecar that alone touches the share while a session runs: only a process is lost when it hangs.

``main([job])`` takes the job as JSON. Orders come on stdin, a number a line: the session has ended, finish its mirror and copy
the small files (again). Reports go to stdout, one JSON object a line. The end of stdin ends the process at once, wherever it
is: every moment is as good as a kill.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from ..system import FileLock, Reporter, Retry, read_json, step_back, write_json
from .copy import Hint, OwnCopy, SourceLog
from .day_log import DayLog
from .files import MirrorJob

#: How often the session log is looked at; the copy is behind by this and the time of a write.
POLL_S = 0.4
_HURRY_S = 0.01
#: Folders in which systems mount shares: what is missing in them is not mounted, and is never created.
_ANCHORS = ("/mnt", "/media", "/net", "/Volumes")


def check_root(root: Path, notes: Path, beat: Callable[[], None] = lambda: None) -> None:
    """Is ``centralized_log_directory`` really there? An unmounted share leaves an empty local folder that takes every write.

    The directory is created only if no session of this rig has seen it before, its parent exists, and the parent is not a
    place where shares are mounted. A directory that was seen on a mounted file system must be on one again.

    Args:
        notes: file in the rig's state directory that tells what was seen.

    Raises:
        OSError: the share is missing.
    """
    known = read_json(notes) or {}
    seen = known.get(str(root))
    if not root.is_dir():
        if seen is not None:
            raise FileNotFoundError(errno.ENOENT, "the central log directory is gone", str(root))
        parent = root.parent
        if not parent.is_dir() or parent.as_posix() in _ANCHORS or parent.parent.as_posix() in ("/run/media", "/media"):
            raise FileNotFoundError(errno.ENOENT, "the central log directory does not exist", str(root))
        root.mkdir(exist_ok=True)
    beat()
    mount = mount_point(root, beat)
    if seen and seen != mount and len(mount) < len(seen):
        raise FileNotFoundError(errno.ENOENT, f"nothing is mounted on {seen}", str(root))
    if seen != mount:
        # Without the note the next session knows less, no more.
        with contextlib.suppress(OSError):
            notes.parent.mkdir(parents=True, exist_ok=True)
            write_json(notes, {**known, str(root): mount})


def mount_point(path: Path, beat: Callable[[], None] = lambda: None) -> str:
    """Return the folder on which the file system of ``path`` is mounted (Windows: the drive or the share).

    Raises:
        OSError: the share does not answer.
    """
    path = path.resolve(strict=True)
    beat()
    while not os.path.ismount(path):
        path = path.parent
        beat()
    return str(path)


class Worker:
    """Runs the mirror of one session: copy, day's log and small files, of which one in trouble does not stop the others."""

    def __init__(self, job: MirrorJob, reporter: Reporter) -> None:
        self.job = job
        self.reporter = reporter
        self.commands: SimpleQueue[int] = SimpleQueue()
        self.finishing = False
        self.order = 0
        self.state = "starting"
        hint = Hint(job.hint_path)
        self.root, self.notes = Path(job.mirror_directory), Path(job.state_directory, "mirror", "roots.json")
        self.source = SourceLog(Path(job.log_path))
        self.copy = OwnCopy(job, self.source, hint, self.beat, self.warn)
        self.day = DayLog(job, self.source, hint, self.beat, self.warn)
        self.retries = {name: Retry() for name in ("copy", "day", "metadata")}
        self.errors: dict[str, str] = {}
        self._checked = False
        self._metadata_order = 0

    def beat(self) -> None:
        """Tell the supervisor, now and then, that something moves."""
        if self.reporter.due():
            self.report()

    def warn(self, text: str) -> None:
        """Pass a warning on to the session log."""
        self.reporter.send(warn=text)

    def report(self) -> None:
        """Send where the mirror stands."""
        error = next(iter(self.errors.values()), "")
        self.reporter.send(
            state="trouble" if error else self.state,
            error=error,
            copied=self.copy.flushed,
            day=self.day.done,
            verified=self.copy.verified_size,
            sha256=self.copy.digest,
            order=self.order if self.state == "verified" else 0,
            holding=self.day.file.locked,
            blocked=self.day.file.blocked_s > 0,
        )

    def run(self) -> None:
        """Mirror until the supervisor says goodbye."""
        self._take_local_lock()
        while True:
            self._obey(0.0)
            more = self._round()
            self.report()
            if not more:
                self._obey(POLL_S if not self.finishing or self.state == "verified" else _HURRY_S)

    def _take_local_lock(self) -> None:
        lock = FileLock(self.job.lock_path)
        self._lock = lock
        while not lock.acquire():
            self.state = "waiting"
            self.report()
            self._obey(0.2)
        self.state = "starting"
        # What another process wrote down before it let the lock go.
        self.copy.hint.data = Hint(self.job.hint_path).data

    def _obey(self, wait_s: float) -> None:
        """Take orders; wait for the first one for ``wait_s``."""
        with contextlib.suppress(Empty):
            while True:
                self.order = self.commands.get(block=wait_s > 0, timeout=wait_s)
                self.finishing, wait_s = True, 0.0
                if self.state == "verified":
                    # A beat on the way must not tell of this order what was true of the last one.
                    self.state = "following"
                for retry in self.retries.values():
                    retry.soon()

    def _round(self) -> bool:
        """Give every part its turn; True when one has more to do at once."""
        more = self._try("copy", partial(self.copy.turn, self.finishing), self.copy.drop)
        if self.copy.number is not None:
            self.day.fresh = self.copy.created
            more = self._try("day", partial(self.day.turn, self.finishing), self.day.drop) or more
            if self.finishing and self._metadata_order != self.order:
                self._try("metadata", self._copy_metadata, lambda: None)
        whole = self.copy.verified_size == self.source.size() == self.day.settled and self._metadata_order == self.order
        if self.errors:
            self.state = "trouble"
        else:
            self.state = "verified" if self.finishing and whole else "following"
        return more

    def _copy_metadata(self) -> bool:
        order = self.order
        self.copy.copy_metadata()
        self._metadata_order = order
        return False

    def _try(self, name: str, turn: Callable[[], bool], drop: Callable[[], None]) -> bool:
        """Run one part's turn unless it waits after an error; an error makes it forget what it believed."""
        retry = self.retries[name]
        if time.monotonic() < retry.due_mono:
            return False
        try:
            if not self._checked:
                check_root(self.root, self.notes, self.beat)
                self._checked = True
                self.beat()
            more = turn()
        except OSError as error:
            drop()
            self._checked = False
            text = error.strerror or str(error) or type(error).__name__
            self.errors[name] = f"{text} ({error.filename})" if error.filename else text
            retry.failed(urgent=self.finishing)
            return False
        self.errors.pop(name, None)
        retry.succeeded()
        if self.state == "starting" and name == "copy" and self.copy.number is not None:
            self.state = "following"
        return more


def main(args: Sequence[str]) -> int:
    """Mirror the session that ``args[0]`` describes; return only after an error of the program itself."""
    reporter = Reporter()
    with reporter.crashes_told():
        step_back()
        worker = Worker(MirrorJob.from_json(args[0]), reporter)
        reporter.listen(lambda line: worker.commands.put(int(line)))
        worker.report()
        worker.run()
    return 3
