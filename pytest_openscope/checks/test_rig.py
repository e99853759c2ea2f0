"""The rig itself: configuration, disks, programs, ports, packages, clock, GitHub."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from . import measure, packages
from .result import FAIL, PASS, SKIP, WARN, CheckResult
from .suite import RigChecks

pytestmark = pytest.mark.rig_check

Said = Callable[[CheckResult], None]
_DRY = "a dry run does not touch it"


def test_configuration(rig_checks: RigChecks, said: Said) -> None:
    """A session runs, so the rig file is understood; what is left are values that only placeholders give, and remarks."""
    if rig_checks.mistakes:
        said(CheckResult(FAIL, "; ".join(rig_checks.mistakes), f"correct {rig_checks.rig.path}"))
    elif rig_checks.notices:
        said(CheckResult(WARN, "; ".join(rig_checks.notices), f"look at {rig_checks.rig.path}"))
    else:
        said(CheckResult(PASS, f"{rig_checks.rig.path} is read; the rig is {rig_checks.rig.rig_id}"))


@pytest.mark.parametrize("part", measure.DISK_PARTS)
def test_disk(part: str, rig_checks: RigChecks, said: Said) -> None:
    """Output disk."""
    said(rig_checks.once(measure.check_disk, rig_checks.settings.output_root, rig_checks.requirements)[part])


@pytest.mark.parametrize("part", measure.MIRROR_PARTS)
def test_mirror(part: str, rig_checks: RigChecks, said: Said) -> None:
    """Central log directory."""
    folder = rig_checks.settings.centralized_log_directory
    if not folder or rig_checks.dry_run:
        said(CheckResult(SKIP, _DRY if folder else "no centralized_log_directory is set"))
    said(rig_checks.once(measure.check_mirror, str(folder), rig_checks.requirements)[part])


def test_executable(executable: str, rig_checks: RigChecks, said: Said) -> None:
    """Declared programs."""
    said(measure.check_executable(executable, rig_checks.folder))


def test_acquisition(launcher: str, rig_checks: RigChecks, said: Said) -> None:
    """What the parameters run: its program, its script, and the faults of a Bonsai workflow."""
    mistakes, warnings = rig_checks.acquisition()
    if mistakes or warnings:
        words = [str(one) for one in (*mistakes, *warnings)]
        said(CheckResult(FAIL if mistakes else WARN, "; ".join(words), "see each one's own remedy"))
    else:
        said(CheckResult(PASS, "program and script are there, and no fault was found in them"))


def test_repository(repository: str, rig_checks: RigChecks, said: Said) -> None:
    """Declared repositories."""
    said(measure.check_repository(repository, rig_checks.folder))


def test_serial_port(serial_port: str, rig_checks: RigChecks, said: Said) -> None:
    """Serial ports of the requirements and of the devices."""
    if rig_checks.dry_run:
        said(CheckResult(SKIP, _DRY))
    said(measure.check_serial_port(serial_port))


def test_tcp_port(tcp_port: int | str, said: Said) -> None:
    """Ports that the rig's own programs will listen on."""
    said(measure.check_tcp_port(tcp_port))


def test_environment(variable: str, said: Said) -> None:
    """Environment variables."""
    said(measure.check_environment(variable))


def test_processes(rig_checks: RigChecks, said: Said) -> None:
    """Nothing runs that an earlier session should have ended."""
    said(measure.check_processes(rig_checks.things("no_processes"), rig_checks.session_uuid))


def test_packages(rig_checks: RigChecks, said: Said) -> None:
    """Python packages against the rig's lock file."""
    said(packages.check_packages(rig_checks.requirements.get("packages_lock"), rig_checks.folder))


def test_python(rig_checks: RigChecks, said: Said) -> None:
    """Version of Python."""
    said(measure.check_python(rig_checks.requirements.get("python")))


def test_memory(rig_checks: RigChecks, said: Said) -> None:
    """Free memory."""
    said(measure.check_memory(rig_checks.requirements.get("memory_gb")))


def test_clock(rig_checks: RigChecks, said: Said) -> None:
    """Clock of this PC."""
    said(measure.check_clock(rig_checks.requirements.get("clock_synchronised")))


def test_github(rig_checks: RigChecks, said: Said) -> None:
    """Token, repository and permission for failure reports."""
    settings = rig_checks.settings.github_issue
    if settings is not None and settings.enabled and rig_checks.dry_run:
        said(CheckResult(SKIP, _DRY))
    said(measure.check_github(settings, rig_checks.access, rig_checks.requirements))
