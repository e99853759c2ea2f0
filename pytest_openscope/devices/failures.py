"""Devices that did not open, told with what to do about each."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .driver_registry import LoadError
from .spec import DeviceSpec

_PACKAGE = Path(__file__).parents[1]
#: Folders that hold nobody's own code.
_LIBRARIES = frozenset({"site-packages", "dist-packages", Path(os.__file__).parent.name})


def _is_own_code(path: Path) -> bool:
    return _PACKAGE not in path.parents and not _LIBRARIES.intersection(path.parts) and path.is_file()


@dataclass(frozen=True)
class DeviceFailure:
    """One device that did not open."""

    spec: DeviceSpec
    error: BaseException

    def __str__(self) -> str:
        """Say what stands behind the device's name."""
        place = f" (in {self.place})" if self.place else ""
        return f"({self.spec.driver}): {type(self.error).__name__}: {self.error}{place}\n      -> {self.remedy}"

    @property
    def place(self) -> str:
        """The last line of the lab's own code on the way to the error: ``laser.py:12``; "" where a library raised it alone."""
        frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(self.error.__traceback__)]
        own = [f"{path.name}:{line}" for path, line in frames if _is_own_code(path)]
        return own[-1] if own else ""

    @property
    def remedy(self) -> str:
        """What the operator can do about it."""
        error, spec = self.error, self.spec
        given = getattr(error, "remedy", "")
        if given:
            return str(given)
        if isinstance(error, LoadError):
            return "mend the device's entry in the rig file"
        text = f"{type(error).__name__} {error}"
        port = str(spec.params.get("port", ""))
        if any(words in text for words in ("Access is denied", "PermissionError", "Resource busy")):
            return "another program holds it: close it (Bonsai, a serial monitor, an earlier session) and try again"
        if port and ("could not open port" in text or isinstance(error, FileNotFoundError)):
            return f"is it plugged in and switched on?{_ports()}"
        if spec.driver == "subprocess" and isinstance(error, FileNotFoundError):
            return "is the program installed? give its whole path under command:"
        if isinstance(error, TimeoutError):
            return "is it switched on and connected? a slower device needs a longer open_timeout_s"
        if isinstance(error, ConnectionError):
            return "is it switched on, on the network, and its program running?"
        return f"check its power, its cable and its entry in the rig file (devices.{spec.name}), then try again"


class DevicesFailed(Exception):  # noqa: N818 - a sentence, as its message is
    """Every device that did not open; ``failures`` holds them, the first one's exception is the cause."""

    #: The message says all; what the driver's library did before stands in the log and in the states.
    openscope_hides_cause = True

    def __init__(self, failures: Sequence[DeviceFailure]) -> None:
        self.failures = tuple(failures)
        if len(failures) == 1:
            super().__init__(f"{failures[0].spec.name} did not open {failures[0]}")
            return
        # The summary shows the first line alone: it names them all.
        names = ", ".join(failure.spec.name for failure in failures)
        lines = [f"  - {failure.spec.name} {failure}" for failure in failures]
        super().__init__("\n".join([f"{len(failures)} devices did not open: {names}", *lines]))


def _ports() -> str:
    """Name the serial ports; nothing where they cannot be listed, since that may not take the place of the device's error."""
    try:
        from serial.tools import list_ports

        present = [port.device for port in list_ports.comports()]
    except Exception:
        return ""
    return f" ports here: {', '.join(present) or 'none'}"
