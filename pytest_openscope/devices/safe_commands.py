"""Command lines that make a device safe where its driver cannot: promised to the sidecar, or run here at the end."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .spec import DeviceSpec


class SafeCommands:
    """Keeps account of the devices with a command that nobody has made safe yet. In a dry run there are none.

    Args:
        rig_dir: where the commands run.
        on_event: called with an event's name and fields, for the journal: ``safe_state`` before a device with a command is
            touched, ``safe_state_done`` when it is safe. A sidecar that finds the first without the second runs the command.
        dry_run: nothing is promised, and no command runs.

    Attributes:
        rescued, failed: names of the devices whose command :meth:`run` ran, by what came of it.
    """

    def __init__(self, rig_dir: Path, on_event: Callable[..., None] | None, log: logging.Logger, *, dry_run: bool) -> None:
        self._rig_dir, self._log, self._dry_run = rig_dir, log, dry_run
        self._on_event = on_event or (lambda event, **fields: None)
        self._unsure: dict[str, DeviceSpec] = {}
        self.rescued: set[str] = set()
        self.failed: list[str] = []

    def has(self, spec: DeviceSpec) -> bool:
        """Tell whether a command stands by for a device."""
        return bool(spec.safe_state_command) and not self._dry_run

    def promise(self, spec: DeviceSpec) -> None:
        """Let the sidecar know the command before the device is touched; the device counts as unsafe from now on."""
        if self.has(spec):
            command, timeout_s = spec.command_line(self._rig_dir), spec.safe_state_timeout_s
            self._on_event("safe_state", device=spec.name, command=command, cwd=str(self._rig_dir), timeout_s=timeout_s)
            self._unsure[spec.name] = spec

    def opened(self, spec: DeviceSpec) -> None:
        """The driver has it in hand and will make it safe."""
        self._unsure.pop(spec.name, None)

    def unsure(self, spec: DeviceSpec) -> None:
        """The driver could not make it safe, or does not know how."""
        if self.has(spec):
            self._unsure[spec.name] = spec

    def done(self, spec: DeviceSpec) -> None:
        """It is safe and closed."""
        if self.has(spec):
            self._on_event("safe_state_done", device=spec.name)

    def run(self, deadline: float) -> list[str]:
        """Run the command of every device that is not safe, each once, and return what went wrong.

        Args:
            deadline: ``time.monotonic()`` by which all should be done; each gets a second at least.
        """
        problems = []
        for name in list(self._unsure):
            spec = self._unsure.pop(name)
            if problem := self._run_one(spec, deadline):
                problems.append(f"safe-state command of {name} failed{problem}")
                self.failed.append(name)
            else:
                self.rescued.add(name)
                self.done(spec)
        return problems

    def _run_one(self, spec: DeviceSpec, deadline: float) -> str:
        command = spec.command_line(self._rig_dir)
        timeout_s = max(1.0, min(spec.safe_state_timeout_s, deadline - time.monotonic()))
        try:
            done = subprocess.run(command, cwd=self._rig_dir, timeout=timeout_s, capture_output=True, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f": {error}"
        if done.returncode:
            output = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-500:]
            return f" with exit code {done.returncode}: {output}"
        self._log.warning("%s was made safe by its command: %s", spec.name, " ".join(command))
        return ""
