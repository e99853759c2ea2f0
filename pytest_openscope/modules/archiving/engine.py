"""Archiving a folder: which file goes where, in several threads, each file on its own, with the truth in the manifest.

Every file is read once and written to all targets that lack it, its checksum computed on the way; then each copy is read back
and given its name. What fails is tried again when everything else is done, and named in the report when it keeps failing.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...system import patiently
from .folders import BINARY, BLOCK_BYTES, FolderTarget, Helper, Source, Wanted, new_hash, os_path, path_in
from .manifest import Copy, Manifest
from .parameters import ArchiverParameters, is_url
from .remote import RemoteTarget
from .sources import find_files
from .targets import Conflict, Copying, Target, words_of

#: Files up to this size share one trip to the disk.
SMALL_BYTES = 2 * 1024 * 1024
_BATCH_FILES = 4096
_BATCH_BYTES = 128 * 1024 * 1024
#: So many small files at one time are worth a process of their own.
_HELPED_FILES = 250
#: After so many failures in a row a target is asked whether it works at all.
_SUSPICIOUS = 8
_TELL_S = 0.5


@dataclass(frozen=True)
class Problem:
    """A file that is not archived, where (``original``, ``network``, ``backup``), and why."""

    name: str
    place: str
    reason: str
    again: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.place}: {self.reason}"


@dataclass(frozen=True)
class Progress:
    """How far a run is; bytes are those of all copies that are to be made."""

    files: int
    files_done: int
    bytes: int
    bytes_done: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes per second so far."""
        return self.bytes_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take at this rate; None when nothing can be said yet."""
        return (self.bytes - self.bytes_done) / self.rate if self.rate > 0 else None

    def __str__(self) -> str:
        left = f", {self.left_s:.0f} s left" if self.left_s is not None else ""
        share = 100 * self.bytes_done / self.bytes if self.bytes else 100.0
        return (
            f"{self.files_done} of {self.files} files, {self.bytes_done / 1e9:.2f} of {self.bytes / 1e9:.2f} GB "
            f"({share:.0f} %), {self.rate / 1e6:.0f} MB/s{left}"
        )


@dataclass
class Report:
    """How a run ended."""

    copied: int = 0
    already: int = 0
    later: int = 0
    removed: int = 0
    bytes_copied: int = 0
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    stopped: bool = False
    would: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every file that was to be archived is, verified, in every target."""
        return not self.problems and not self.stopped

    def as_json(self) -> dict[str, Any]:
        """Return it for the manifest."""
        return {
            "complete": self.complete,
            "copies_made": self.copied,
            "copies_already_there": self.already,
            "files_for_later": self.later,
            "originals_removed": self.removed,
            "bytes_copied": self.bytes_copied,
            "seconds": round(self.seconds, 3),
            "stopped": self.stopped,
            "problems": [str(problem) for problem in self.problems],
            "passed_over": self.passed_over,
            "remarks": self.remarks,
        }

    def __str__(self) -> str:
        rate = self.bytes_copied / 1e6 / self.seconds if self.seconds else 0.0
        volume = f"{self.bytes_copied / 1e9:.3f} GB in {self.seconds:.1f} s, {rate:.0f} MB/s"
        parts = [f"{self.copied} copies made and verified ({volume})"]
        parts += [f"{self.already} were there already"] if self.already else []
        parts += [f"{self.removed} originals removed"] if self.removed else []
        parts += [f"{self.later} of the session's own files follow when it has ended"] if self.later else []
        parts += [f"{len(self.problems)} NOT ARCHIVED"] if self.problems else []
        parts += ["stopped before the end"] if self.stopped else []
        return ", ".join(parts)


@dataclass(slots=True)
class _Task:
    """A file and the targets that lack it."""

    source: Source
    targets: list[Target]
    checksum: str = ""
    #: Targets that hold an older copy of ours, which is to be replaced.
    replaces: frozenset[str] = frozenset()


class Archiver:
    """One run over one folder.

    Args:
        parameters: as :func:`read_parameters` gives them.
        put_off: files that are not to be touched in this run (a session that runs still writes its own).
        may_change: files whose copy, where we made it ourselves, may be replaced by that of a newer original.
        on_progress: called about twice a second, in the thread that runs.

    Raises:
        ValueError: the file at the manifest's place is no manifest.
        OSError: the manifest cannot be read.
    """

    def __init__(
        self,
        parameters: ArchiverParameters,
        *,
        put_off: Callable[[str], bool] = lambda _: False,
        may_change: Callable[[str], bool] = lambda _: False,
        on_progress: Callable[[Progress], object] = lambda _: None,
    ) -> None:
        self.parameters = parameters
        self.stop = threading.Event()
        self.report = Report()
        self._put_off, self._may_change, self._on_progress = put_off, may_change, on_progress
        self.targets = [_target_of(parameters, name, place) for name, place in parameters.targets().items()]
        head = {"session_dir": str(parameters.folder), "network_dir": None, "backup_dir": None}
        self.manifest = Manifest(parameters.manifest, {**head, **{f"{one.name}_dir": one.place for one in self.targets}})
        self._root = os_path(str(parameters.folder))
        self._algo = parameters.checksum_algo
        self._lock = threading.Lock()
        self._problems: dict[tuple[str, str], Problem] = {}
        self._broken: dict[str, str] = {}
        self._in_a_row: dict[str, int] = {}
        self._total = self._total_files = self._done = self._done_files = 0
        self._started = time.monotonic()
        self._helpers: list[Helper] = []

    # -- a run -------------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Archive; problems are in the report, never raised."""
        report = self.report
        found = find_files(self.parameters)
        report.passed_over, report.remarks = found.passed_over, found.remarks
        self._problems = {(name, "original"): Problem(name, "original", why) for name, why in found.problems.items()}
        files = [source for source in found.files if not self._put_off(source.name)]
        report.later = len(found.files) - len(files)
        if self.parameters.dry_run:
            report.would = [f"{source.name} -> {', '.join(one.where(source.name) for one in self.targets)}" for source in files]
            return self._conclude()
        tasks = self._lacking(files)
        self._total = sum(task.source.size * len(task.targets) for task in tasks)
        self._total_files = len(tasks)
        self._attempt_all(tasks)
        if self.parameters.remove_originals and not self.stop.is_set():
            self._remove_originals(files)
        if self.parameters.remove_empty_dirs and not self.stop.is_set():
            self._remove_empty_folders()
        return self._conclude()

    def _conclude(self) -> Report:
        report = self.report
        report.problems = sorted(self._problems.values(), key=str)
        report.stopped = self.stop.is_set()
        report.seconds = time.monotonic() - self._started
        if self.parameters.dry_run:
            return report
        self.manifest.errors = {}
        for problem in report.problems:
            self.manifest.errors.setdefault(problem.name, f"{problem.place}: {problem.reason}")
        try:
            self.manifest.close(self.parameters.targets(), report.as_json())
        except OSError as error:
            report.remarks.append(f"the manifest cannot be written ({error}); its lines are in {self.manifest.journal}")
        return report

    def _lacking(self, files: Iterable[Source]) -> list[_Task]:
        """Return what is to be done: files with the targets whose copy is not on record, or is not there any more."""
        tasks = []
        for source in files:
            targets = [target for target in self.targets if not self._is_settled(source, target)]
            self.report.already += len(self.targets) - len(targets)
            if targets:
                tasks.append(_Task(source, targets))
        return tasks

    def _is_settled(self, source: Source, target: Target) -> bool:
        copy = self.manifest.copies.get((source.name, target.name))
        if copy is None or not self.parameters.skip_completed or not copy.is_of(source.size, source.mtime_ns):
            return False
        try:
            return copy.path == target.where(source.name) and target.size_of(source.name) == source.size
        except OSError:
            return False  # found out, and told, when it is copied

    def _attempt_all(self, tasks: list[_Task]) -> None:
        for attempt in range(self.parameters.max_retries + 1):
            if attempt:
                self.stop.wait(min(self.parameters.retry_delay_s * 2 ** (attempt - 1), 60.0))
            self._broken.clear()
            self._in_a_row.clear()
            self._run_workers(_units(tasks, self.parameters.workers))
            tasks = [task for task in tasks if self._problems and self._wants_another(task)]
            if not tasks or self.stop.is_set():
                return

    def _wants_another(self, task: _Task) -> bool:
        """Tell whether a file is to be tried again, and with its facts as they are now."""
        problems = [self._problems.get((task.source.name, place)) for place in ("original", "network", "backup")]
        if not any(problem is not None and problem.again for problem in problems):
            return False
        name = task.source.name
        try:
            facts = Path(self._path(name)).stat()
        except OSError:
            return True  # told by the next attempt
        task.source = Source(name, facts.st_size, facts.st_mtime_ns)
        task.targets = [one for one in task.targets if not self._is_settled(task.source, one)]
        return bool(task.targets)

    def _run_workers(self, units: Sequence[list[_Task]]) -> None:
        """Give the units to threads that end with the process: one that hangs in a dead share holds nobody up."""
        waiting: queue.SimpleQueue[list[_Task]] = queue.SimpleQueue()
        for unit in units:
            waiting.put(unit)
        threads = [
            threading.Thread(target=self._work, args=(waiting,), name=f"archiver-{number}", daemon=True)
            for number in range(min(self.parameters.workers, len(units)))
        ]
        for thread in threads:
            thread.start()
        told = time.monotonic()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
                if self.stop.is_set():
                    self._kill_helpers()
                if time.monotonic() - told >= _TELL_S:
                    told = time.monotonic()
                    self._on_progress(self.progress())
        self._on_progress(self.progress())

    def progress(self) -> Progress:
        """Say how far the run is."""
        return Progress(
            self._total_files, self._done_files, self._total, min(self._done, self._total), time.monotonic() - self._started
        )

    def _work(self, waiting: queue.SimpleQueue[list[_Task]]) -> None:
        helper: Helper | None = None
        try:
            while not self.stop.is_set():
                try:
                    unit = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    if len(unit) >= _HELPED_FILES and not self._broken:
                        helper = helper or self._start_helper()
                        unit = self._let_copy(unit, helper) if helper else unit
                    self._archive(unit)
                except Exception as error:  # guards the other files: nothing that one does may end the run
                    for task in unit:
                        self._fail(task.source.name, "original", words_of(error))
        finally:
            if helper:
                helper.close()

    # -- many small files, by a helper process -----------------------------------------------------------------------

    def _start_helper(self) -> Helper | None:
        """Return a new helper; None where there can be none, or it could not copy to all targets."""
        folders = [target for target in self.targets if type(target) is FolderTarget]
        if len(folders) < len(self.targets):
            return None
        try:
            helper = Helper(self._root, self._algo, folders)
        except OSError:
            return None  # it goes without
        with self._lock:
            self._helpers.append(helper)
        return helper

    def _kill_helpers(self) -> None:
        """End the helpers wherever they are, which leaves what any kill leaves; their threads let go of them."""
        with self._lock:
            for helper in self._helpers:
                helper.kill()

    def _let_copy(self, unit: list[_Task], helper: Helper) -> list[_Task]:
        """Let a helper copy small files; return those that are still to be seen to, with the targets that lack them."""
        which = {target.name: number for number, target in enumerate(self.targets)}
        wanted: list[Wanted] = [(*task.source, [which[target.name] for target in task.targets]) for task in unit]
        try:
            for made in helper.copy(wanted):
                for target, copies in zip(self.targets, made, strict=True):
                    for number, checksum in copies:
                        unit[number].checksum = checksum
                    mine = [unit[number] for number, _ in copies]
                    self._settled(target, mine)
                    with self._lock:
                        for task in mine:
                            task.targets.remove(target)
                            self._done += task.source.size
                            self._problems.pop((task.source.name, target.name), None)
                            if not task.targets:
                                self._done_files += 1
                                self._problems.pop((task.source.name, "original"), None)
        except (OSError, ValueError):
            pass  # the helper was ended; what it has not told of is seen to here
        return [task for task in unit if task.targets]

    # -- one unit: a large file, or some small ones ------------------------------------------------------------------

    def _archive(self, unit: list[_Task]) -> None:
        copied: dict[str, list[_Task]] = {target.name: [] for target in self.targets}
        buffer = memoryview(bytearray(BLOCK_BYTES if len(unit) == 1 else SMALL_BYTES + 1))
        for task in unit:
            if self.stop.is_set():
                return
            for target in self._copy(task, buffer):
                copied[target.name].append(task)
        for target in self.targets:
            self._verify(target, copied[target.name])
        with self._lock:
            self._done_files += len(unit)

    def _copy(self, task: _Task, buffer: memoryview) -> list[Target]:
        """Read a file once and write it to its targets; return those that have all of it now, under its partial name."""
        name = task.source.name
        self._problems.pop((name, "original"), None)
        targets = [target for target in task.targets if self._is_free(task, target, buffer)]
        if not targets:
            return []
        try:
            with self._opened(name) as fd:
                return self._pour(task, fd, targets, buffer)
        except FileNotFoundError:
            self._fail(name, "original", "has vanished", again=False)
        except OSError as error:
            self._fail(name, "original", words_of(error))
        return []

    def _pour(self, task: _Task, fd: int, targets: list[Target], buffer: memoryview) -> list[Target]:
        name = task.source.name
        copies: dict[str, Copying] = {}
        for target in targets:
            with self._guarded(name, target):
                copies[target.name] = target.begin(name, task.source, target.name in task.replaces)
        digest = new_hash(self._algo)
        length = 0
        try:
            # What the file has grown by is not read: its facts, asked again below, tell of it.
            while copies and length < task.source.size and (count := _read_into(fd, buffer)):
                block = buffer[:count]
                digest.update(block)
                length += count
                for target in targets:
                    copying = copies.get(target.name)
                    if copying is None:
                        continue
                    try:
                        copying.put(block)
                    except OSError as error:
                        del copies[target.name]
                        _let_go(copying)
                        self._fail(name, target.name, words_of(error), target=target)
                    else:
                        self._done += count
                if self.stop.is_set():
                    return []
            if not copies:
                return []
            facts = os.fstat(fd)
            if (facts.st_size, facts.st_mtime_ns) != task.source[1:] or length != task.source.size:
                self._fail(name, "original", "changed while it was copied")
                return []
            task.checksum = digest.hexdigest()
            whole = []
            for target in targets:
                copying = copies.pop(target.name, None)
                if copying is not None:
                    with self._guarded(name, target):
                        copying.finish(task.source)
                        whole.append(target)
            return whole
        finally:
            for copying in copies.values():
                _let_go(copying)

    def _is_free(self, task: _Task, target: Target, buffer: memoryview) -> bool:
        """See to what lies at a file's place: nothing, the file itself (then that is on record), or another one."""
        name = task.source.name
        with self._lock:
            self._problems.pop((name, target.name), None)
        if broken := self._broken.get(target.name):
            self._fail(name, target.name, broken)
            return False
        with self._guarded(name, target):
            there = None if target.is_fresh(name) else target.size_of(name)
            task.replaces -= {target.name}
            if there is None:
                return True
            if self._may_replace(name, target):
                task.replaces |= {target.name}
                return True
            self._compare(task, target, buffer, there)
        return False

    def _compare(self, task: _Task, target: Target, buffer: memoryview, there: int) -> None:
        name = task.source.name
        where = target.where(name)
        if there != task.source.size:
            raise Conflict(f"another file is there already ({there} bytes, not {task.source.size}): {where}")
        if not task.checksum:
            task.checksum = self._checksum_of_original(task, buffer)
        if target.checksum_of(name, self._algo, self.stop.is_set) != task.checksum:
            raise Conflict(f"another file of the same size is there already: {where}")
        if isinstance(target, FolderTarget):
            patiently(partial(target.discard, name))  # a kill between the copy's two names leaves both
        self._keep(target, [task])
        with self._lock:
            self.report.already += 1
            self._done += task.source.size

    def _checksum_of_original(self, task: _Task, buffer: memoryview) -> str:
        digest = new_hash(self._algo)
        with self._opened(task.source.name) as fd:
            while count := _read_into(fd, buffer):
                digest.update(buffer[:count])
                if self.stop.is_set():
                    raise InterruptedError("stopped")
        return digest.hexdigest()

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        fd = os.open(self._path(name), os.O_RDONLY | BINARY)
        try:
            yield fd
        finally:
            os.close(fd)

    def _may_replace(self, name: str, target: Target) -> bool:
        """Tell whether what is there is our own copy of an older state of a file that may change."""
        copy = self.manifest.copies.get((name, target.name))
        if copy is None or copy.path != target.where(name) or not self._may_change(name):
            return False
        return target.checksum_of(name, copy.algo, self.stop.is_set) == copy.checksum

    def _verify(self, target: Target, tasks: list[_Task]) -> None:
        """Bring copies to the disk, read them back, give the right ones their names, and put them on record."""
        if not tasks or self.stop.is_set():
            return
        try:
            target.settle([task.source.name for task in tasks])
        except OSError as error:
            for task in tasks:
                self._fail(task.source.name, target.name, words_of(error), target=target)
            return
        right = []
        for task in tasks:
            if self.stop.is_set():
                break
            name = task.source.name
            with self._guarded(name, target):
                if target.checksum_of_copy(name, self._algo, self.stop.is_set) != task.checksum:
                    patiently(partial(target.discard, name))
                    raise OSError(0, "what was read back differs from what was written")
                self._publish(task, target)
                right.append(task)
        self._settled(target, right)

    def _settled(self, target: Target, tasks: Sequence[_Task]) -> None:
        """Put copies on record that this run has made and verified."""
        self._keep(target, tasks)
        with self._lock:
            self._in_a_row[target.name] = 0
            self.report.copied += len(tasks)
            self.report.bytes_copied += sum(task.source.size for task in tasks)

    def _publish(self, task: _Task, target: Target) -> None:
        name = task.source.name
        try:
            patiently(partial(target.publish, name, target.name in task.replaces))
        except FileExistsError:
            is_ours = target.checksum_of(name, self._algo, self.stop.is_set) == task.checksum
            patiently(partial(target.discard, name))
            if not is_ours:
                raise Conflict(f"another file is there already: {target.where(name)}") from None

    def _keep(self, target: Target, tasks: Iterable[_Task]) -> None:
        copies = {}
        for task in tasks:
            name, size, mtime_ns = task.source
            copies[name] = Copy(size, mtime_ns, task.checksum, self._algo, target.where(name))
        self.manifest.verified(target.name, copies)

    # -- failures ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _guarded(self, name: str, target: Target) -> Iterator[None]:
        """Turn what one file's copy raises into its problem."""
        try:
            yield
        except InterruptedError:
            if not self.stop.is_set():
                raise
        except Conflict as conflict:
            self._fail(name, target.name, str(conflict), again=False)
        except Exception as error:
            self._fail(name, target.name, words_of(error), target=target)

    def _fail(self, name: str, place: str, reason: str, *, again: bool = True, target: Target | None = None) -> None:
        with self._lock:
            self._problems[name, place] = Problem(name, place, reason, again)
            if target is None:
                return
            self._in_a_row[place] = self._in_a_row.get(place, 0) + 1
            suspicious = self._in_a_row[place] % _SUSPICIOUS == 0
        if suspicious:
            try:
                target.probe()
            except OSError as error:
                self._broken[place] = f"{target.place} cannot be written to: {words_of(error)}"

    # -- afterwards --------------------------------------------------------------------------------------------------

    def _remove_originals(self, files: Iterable[Source]) -> None:
        """Remove each original whose copies are all there; copies on record from an earlier run are read once more."""
        for source in files:
            name = source.name
            if self.stop.is_set():
                return
            if self._may_change(name) or any((name, place) in self._problems for place in ("original", "network", "backup")):
                continue
            try:
                if not all(self._holds(source, target) for target in self.targets):
                    continue
                facts = Path(self._path(name)).stat()
                if (facts.st_size, facts.st_mtime_ns) != source[1:]:
                    self._fail(name, "original", "changed after it was copied; it stays")
                    continue
                patiently(Path(self._path(name)).unlink)
            except OSError as error:
                self._fail(name, "original", f"cannot be removed: {words_of(error)}")
                continue
            self.manifest.removed(name)
            self.report.removed += 1

    def _holds(self, source: Source, target: Target) -> bool:
        copy = self.manifest.copies.get((source.name, target.name))
        if copy is None or not copy.is_of(source.size, source.mtime_ns):
            return False
        if (source.name, target.name) in self.manifest.fresh:
            return target.size_of(source.name) == source.size
        if target.checksum_of(source.name, copy.algo, self.stop.is_set) == copy.checksum:
            return True
        self._fail(source.name, target.name, "the verified copy is not what it was; the original stays", again=False)
        return False

    def _remove_empty_folders(self) -> None:
        for folder, _, _ in os.walk(self._root, topdown=False):
            if folder != self._root:
                try:
                    os.rmdir(folder)  # noqa: PTH106 - fails where something is in it
                except OSError:
                    continue

    def _path(self, name: str) -> str:
        return path_in(self._root, name)


def _target_of(parameters: ArchiverParameters, name: str, place: str) -> Target:
    if is_url(place):
        return RemoteTarget(name, place, parameters.storage_options(name))
    return FolderTarget(name, place, str(parameters.folder))


def _units(tasks: Sequence[_Task], workers: int) -> list[list[_Task]]:
    """Put small files together, so many that the disk is seldom waited for and every worker has some; large ones alone.

    The order stays, but for a large file between small ones.
    """
    small = sum(task.source.size <= SMALL_BYTES for task in tasks)
    most = min(_BATCH_FILES, small // (2 * workers) + 1)
    units: list[list[_Task]] = []
    batch: list[_Task] = []
    room = 0
    for task in tasks:
        if task.source.size > SMALL_BYTES:
            units.append([task])
            continue
        if not batch or len(batch) >= most or task.source.size > room:
            batch, room = [], _BATCH_BYTES
            units.append(batch)
        batch.append(task)
        room -= task.source.size
    return units


def _read_into(fd: int, buffer: memoryview) -> int:
    if sys.platform != "win32":
        return os.readv(fd, [buffer])
    data = os.read(fd, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def _let_go(copying: Copying) -> None:
    try:
        copying.abandon()
    except OSError:
        return
