"""Ready-made step: is there room for the data, and is the disk fast enough for them?

With ``expected_gb`` random data are written where the data will lie, and removed again: what the disk took in a second says how
long the expected data take, and whether it keeps up with an acquisition of ``expected_duration_s``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ..config import PathText, key, seconds
from ..system import format_duration
from .context import ModuleContext
from .failures import ModuleFailed
from .parameters import Deadline, FlagText, NumberText, SecondsText, StepParameters, within

GIB = 1024**3
MIB = 1024**2
#: Brought to the disk one by one: smaller ones would measure how long that takes, not how fast the disk is.
_CHUNK = 32 * MIB
_AT_LEAST_CHUNKS = 2


class DiskSpaceCheck(StepParameters):
    """Parameters of ``disk_space_check``."""

    required_free_gb: NumberText | None = Field(
        None, gt=0, allow_inf_nan=False, description="free space that must be there, GiB"
    )
    expected_gb: NumberText | None = Field(
        None, gt=0, allow_inf_nan=False, description="data that the session will write, GiB; they and reserve_gb must fit"
    )
    reserve_gb: NumberText = key(5.0, "what must be left beside the expected data", "GiB", 0)
    expected_duration_s: SecondsText | None = seconds(
        None, "time in which the expected data come: a disk that writes slower fails the step", 0.001
    )
    minimum_write_mb_s: NumberText | None = key(None, "slowest disk that will do", "MiB/s", 0)
    write_test_mb: NumberText = key(256.0, "most that the measurement writes; 0 measures no speed", "MiB", 0)
    write_test_s: SecondsText = seconds(3.0, "longest measurement", 0.01)
    disk_space_check_path: PathText | None = key(None, "folder on the disk in question; default: the session folder")
    path: PathText | None = key(None, "the same, where disk_space_check_path is absent")
    prompt_to_free_space: FlagText = key(True, "let the operator free space, and look again")
    allow_override: FlagText = key(False, "let the operator go on with too little")
    timeout_s: SecondsText | None = seconds(60.0, "longest wait for the disk; the operator's answers take no time", 0.001)

    def missing(self) -> Iterator[tuple[str, str]]:
        if self.required_free_gb is None and self.expected_gb is None:
            yield "required_free_gb", "give it in GiB, or expected_gb"
        if self.expected_duration_s is not None and self.expected_gb is None:
            yield "expected_gb", "expected_duration_s says in which time the data come, not how much they are"

    @property
    def wanted_gb(self) -> float:
        """Free space that the step asks for, in GiB."""
        expected_gb = 0.0 if self.expected_gb is None else self.expected_gb + self.reserve_gb
        return max(self.required_free_gb or 0.0, expected_gb)

    @property
    def wanted_mb_s(self) -> float:
        """Write speed that the step asks for, in MiB/s."""
        needed = self.expected_gb * 1024 / self.expected_duration_s if self.expected_gb and self.expected_duration_s else 0.0
        return max(self.minimum_write_mb_s or 0.0, needed)

    @property
    def place(self) -> str:
        return self.disk_space_check_path or self.path or ""

    def would(self) -> str:
        checked = f"check that {self.wanted_gb:g} GiB are free in {self.place or 'the session folder'}"
        return checked if not self.wanted_mb_s else f"{checked} and that it takes {self.wanted_mb_s:,.0f} MiB/s"


def disk_space_check(context: ModuleContext, parameters: DiskSpaceCheck) -> float:
    """Measure the free space, and with ``expected_gb`` the write speed, and compare them with what is wanted.

    Records ``disk_space_free`` (GiB) and ``disk_write_speed`` (MiB/s).

    Returns:
        The free space in GiB.

    Raises:
        ModuleFailed: there is too little, or the disk is too slow.
        StepTimedOut: the disk does not answer.
    """
    folder = context.path(parameters.place)
    free_gb = _wait_for_space(context, parameters, folder)
    measured = parameters.expected_gb is not None or parameters.minimum_write_mb_s is not None
    if measured and parameters.write_test_mb:
        _check_speed(context, parameters, folder)
    return free_gb


def _wait_for_space(context: ModuleContext, parameters: DiskSpaceCheck, folder: Path) -> float:
    """Return the free space once there is enough, or the operator goes on without."""
    while True:
        free_gb, found = within(
            parameters.timeout_s, f"measuring the free space of {folder}", lambda: _look(folder, parameters)
        )
        context.record("disk_space_free", round(free_gb, 3), "GiB")
        if free_gb >= parameters.wanted_gb:
            context.logger.info("%s", found)
            return free_gb
        context.logger.warning("%s", found)
        if not _wants_another_look(context, parameters, found):
            break
    if parameters.allow_override:
        try:
            agreed = context.confirm(f"Not enough free disk space: {found}. Go on anyway?")
        except EOFError:
            agreed = False
        if agreed:
            context.logger.warning("the operator goes on with too little free space")
            return free_gb
    raise ModuleFailed(f"not enough free disk space: {found}")


def _look(folder: Path, parameters: DiskSpaceCheck) -> tuple[float, str]:
    """Return how much is free, in GiB, and the same in words."""
    try:
        usage = shutil.disk_usage(_existing(folder))
    except OSError as error:
        raise ModuleFailed(f"the free space of {folder} cannot be measured: {error}") from error
    free_gb = usage.free / GIB
    words = (
        f"{free_gb:,.2f} GiB of {usage.total / GIB:,.2f} GiB are free in {folder}, {parameters.wanted_gb:g} GiB are required"
    )
    if parameters.expected_gb is not None:
        words += f" ({parameters.expected_gb:g} GiB expected, {parameters.reserve_gb:g} GiB in reserve)"
    return free_gb, words


def _wants_another_look(context: ModuleContext, parameters: DiskSpaceCheck, found: str) -> bool:
    """Ask the operator to free space; False where nobody is there, or gives up."""
    if not parameters.prompt_to_free_space:
        return False
    try:
        answer = context.ask(f"Not enough free disk space: {found}. Free some, then press Enter to look again (q: give up):")
    except EOFError:
        return False
    return answer.strip().lower() not in ("q", "quit", "n", "no")


def _check_speed(context: ModuleContext, parameters: DiskSpaceCheck, folder: Path) -> None:
    speed_mb_s = within(
        parameters.timeout_s, f"measuring the write speed of {folder}", lambda: _write_speed_mb_s(folder, parameters)
    )
    recorded_mb_s = round(speed_mb_s, 1)
    context.record("disk_write_speed", recorded_mb_s, "MiB/s")
    # From the recorded value: rounded twice and rounded once may differ by one.
    found = f"{folder} takes {recorded_mb_s:,.0f} MiB/s"
    if parameters.expected_gb is not None:
        found += f": {parameters.expected_gb:g} GiB in {format_duration(parameters.expected_gb * 1024 / speed_mb_s)}"
    if speed_mb_s < parameters.wanted_mb_s:
        raise ModuleFailed(f"the disk is too slow: {found}, {parameters.wanted_mb_s:,.0f} MiB/s are required")
    context.logger.info("%s", found)


def _write_speed_mb_s(folder: Path, parameters: DiskSpaceCheck) -> float:
    """Write, bring it to the disk, and return the speed. Random data, since some disks compress."""
    chunk = os.urandom(_CHUNK)
    chunks = max(_AT_LEAST_CHUNKS, int(parameters.write_test_mb * MIB / _CHUNK))
    # The reserve of a nearly full disk is not for tests.
    chunks = min(chunks, max(_AT_LEAST_CHUNKS, int(shutil.disk_usage(_existing(folder)).free / 4 / _CHUNK)))
    test = Deadline(parameters.write_test_s, "the test")
    try:
        # It has no name, or goes with its last handle: it is gone even when the process is killed.
        with tempfile.TemporaryFile(dir=_existing(folder), buffering=0) as stream:
            began = time.perf_counter()
            written = 0
            while written < chunks and (written < _AT_LEAST_CHUNKS or not test.passed):
                stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
                written += 1
            took_s = max(time.perf_counter() - began, 1e-6)
    except OSError as error:
        raise ModuleFailed(f"the write speed of {folder} cannot be measured: {error}") from error
    return written * _CHUNK / MIB / took_s


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: the disk is the same."""
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)
