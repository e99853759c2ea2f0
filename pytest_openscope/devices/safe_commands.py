"""Command lines that make a device safe where its driver cannot: promised to the sidecar, or run here at the end."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .spec import DeviceSpec

#: Endings of files that a program of a command runs.
_SCRIPTS = frozenset({".py", ".pyw", ".m", ".sh", ".ps1", ".bat", ".cmd", ".jl", ".r", ".js", ".vbs"})
_PYTHON = ("python", "python3", "python.exe", "python3.exe")


def command_of(spec: DeviceSpec, rig_dir: Path) -> tuple[str, ...]:
    """Return the command as it is run, whichever folder and environment the process that runs it has.

    A bare ``python`` is this interpreter: the one on PATH may lack the packages that the command needs. A program with a
    relative folder lies beside the rig file.
    """
    program, *arguments = spec.safe_state_command
    if program.lower() in _PYTHON:
        return (sys.executable or program, *arguments)
    if {"/", os.sep} & {*program}:
        program = str(rig_dir.absolute() / program)
    return (program, *arguments)


def missing_for_safety(spec: DeviceSpec, rig_dir: Path, *, program_too: bool = True) -> str:
    """Say what the device's command lacks: its program, or the script that it runs ("" when it has all, or there is none)."""
    if not spec.safe_state_command:
        return ""
    program, *arguments = command_of(spec, rig_dir)
    if program_too and not shutil.which(program):
        return f"there is no program {program!r}"
    script = next((text for text in arguments if text in ("-c", "-m") or Path(text).suffix.lower() in _SCRIPTS), "")
    if Path(script).suffix and not (rig_dir / script).is_file():
        return f"there is no script {str(rig_dir / script)!r}"
    return ""


class SafeCommands:
    """Keeps account of the devices that nobody has made safe yet.

    Args:
        rig_dir: where the commands run.
        on_event: called with an event's name and fields, for the journal: ``safe_state`` before a device with a command is
            touched, ``safe_state_done`` when it is safe. A sidecar that finds the first without the second runs the command.
        dry_run: nothing is promised, and no command runs.

    Attributes:
        rescued, failed: names of the devices whose command :meth:`run` ran, by what came of it.
    """

    def __init__(self, rig_dir: Path, on_event: Callable[..., None] | None, log: logging.Logger, *, dry_run: bool) -> None:
        self._rig_dir, self._on_event, self._log, self._dry_run = rig_dir, on_event, log, dry_run
        self._unsure: dict[str, DeviceSpec] = {}
        self.rescued: set[str] = set()
        self.failed: list[str] = []

    def promise(self, spec: DeviceSpec) -> None:
        """Let the sidecar know the command before the device is touched; the device counts as unsafe from now on."""
        if not spec.safe_state_command or self._dry_run:
            return
        command, timeout_s = list(command_of(spec, self._rig_dir)), spec.safe_state_timeout_s
        self._event("safe_state", spec, command=command, cwd=str(self._rig_dir), timeout_s=timeout_s)
        self._unsure[spec.name] = spec

    def opened(self, spec: DeviceSpec) -> None:
        """The driver has it in hand and will make it safe."""
        self._unsure.pop(spec.name, None)

    def unsure(self, spec: DeviceSpec) -> None:
        """The driver could not make it safe, or does not know how."""
        if spec.safe_state_command and not self._dry_run:
            self._unsure[spec.name] = spec

    def done(self, spec: DeviceSpec) -> None:
        """It is safe and closed."""
        if spec.safe_state_command and not self._dry_run:
            self._event("safe_state_done", spec)

    def run(self, deadline: float) -> list[str]:
        """Run the command of every device that is not safe, each once, and return what went wrong.

        Args:
            deadline: ``time.monotonic()`` by which all should be done; each gets a second at least.
        """
        problems = []
        for name in list(self._unsure):
            problem = self._run_one(self._unsure.pop(name), deadline)
            if problem:
                problems.append(problem)
                self.failed.append(name)
        return problems

    def _run_one(self, spec: DeviceSpec, deadline: float) -> str:
        import subprocess

        command = command_of(spec, self._rig_dir)
        timeout_s = max(1.0, min(spec.safe_state_timeout_s, deadline - time.monotonic()))
        try:
            done = subprocess.run(command, cwd=self._rig_dir, timeout=timeout_s, capture_output=True, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"safe-state command of {spec.name} failed: {error}"
        if done.returncode:
            output = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-500:]
            return f"safe-state command of {spec.name} failed with exit code {done.returncode}: {output}"
        self._log.warning("%s was made safe by its command: %s", spec.name, " ".join(command))
        self.rescued.add(spec.name)
        self.done(spec)
        return ""

    def _event(self, event: str, spec: DeviceSpec, **fields: Any) -> None:
        if self._on_event is not None:
            self._on_event(event, device=spec.name, **fields)
