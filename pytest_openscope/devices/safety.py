"""Which devices nobody has made safe, and the command lines that do it where a driver cannot."""

from __future__ import annotations

import logging
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .opening import OpenDevice
from .spec import DeviceSpec

_COMMAND = "safe-state command"


class Safety:
    """Keeps account of the devices that nobody has made safe yet. In a dry run no command is promised, and none runs.

    Args:
        rig_dir: where the commands run.
        on_event: called with an event's name and fields, for the journal: ``safe_state`` before a device with a command is
            touched, ``safe_state_done`` when it is safe. A sidecar that finds the first without the second runs the command.
        dry_run: the commands are those of a rig that is not there.
    """

    def __init__(self, rig_dir: Path, on_event: Callable[..., None] | None, log: logging.Logger, *, dry_run: bool) -> None:
        self._rig_dir, self._log, self._dry_run = rig_dir, log, dry_run
        self._on_event = on_event or (lambda event, **fields: None)
        #: Devices that wait for their command, and those that nothing made safe; each with what has failed.
        self._waiting: dict[str, tuple[DeviceSpec, str]] = {}
        self._unsafe: dict[str, str] = {}

    def promise(self, spec: DeviceSpec) -> None:
        """Let the sidecar know the command before the device is touched; the device counts as unsafe from now on."""
        if self._has_command(spec):
            command, timeout_s = spec.command_line(self._rig_dir), spec.safe_state_timeout_s
            self._on_event("safe_state", device=spec.name, command=command, cwd=str(self._rig_dir), timeout_s=timeout_s)
            self._waiting[spec.name] = (spec, _COMMAND)

    def opened(self, spec: DeviceSpec) -> None:
        """The driver has it in hand and will make it safe."""
        self._waiting.pop(spec.name, None)
        self._unsafe.pop(spec.name, None)

    def settle(self, device: OpenDevice) -> None:
        """Note of a device that is closed whether it is safe, waits for its command, or has nothing that makes it safe."""
        spec, failed = device.spec, _COMMAND if device.is_harmless else "safe_state"
        if device.is_safe:
            self._done(spec)
        elif self._has_command(spec):
            self._waiting[spec.name] = (spec, failed)
        elif not device.is_harmless:
            self._unsafe[spec.name] = failed

    def run_commands(self, deadline: float) -> list[str]:
        """Run the command of every device that waits for it, each once, and return what went wrong.

        Args:
            deadline: ``time.monotonic()`` by which all should be done; each gets a second at least.
        """
        problems = []
        for name in list(self._waiting):
            spec, failed = self._waiting.pop(name)
            if problem := self._run(spec, deadline):
                problems.append(f"safe-state command of {name} failed{problem}")
                self._unsafe[name] = failed
            else:
                self._done(spec)
        return problems

    def unsafe(self) -> list[str]:
        """Return one text for each device that neither its driver nor its command made safe."""
        return [f"{name} may not be safe: its {failed} failed" for name, failed in self._unsafe.items()]

    def _has_command(self, spec: DeviceSpec) -> bool:
        return bool(spec.safe_state_command) and not self._dry_run

    def _done(self, spec: DeviceSpec) -> None:
        if self._has_command(spec):
            self._on_event("safe_state_done", device=spec.name)

    def _run(self, spec: DeviceSpec, deadline: float) -> str:
        command = spec.command_line(self._rig_dir)
        timeout_s = max(1.0, min(spec.safe_state_timeout_s, deadline - time.monotonic()))
        try:
            # A file, no pipe: what the command leaves running would hold a pipe, and be waited for; on Windows without end.
            with tempfile.TemporaryFile() as output:
                done = subprocess.run(command, cwd=self._rig_dir, timeout=timeout_s, stdout=output, stderr=output, check=False)
                output.seek(0)
                printed = output.read().decode("utf-8", "replace").strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            return f": {error}"
        if done.returncode:
            return f" with exit code {done.returncode}: {printed[-500:]}"
        self._log.warning("%s was made safe by its command: %s", spec.name, " ".join(command))
        return ""
