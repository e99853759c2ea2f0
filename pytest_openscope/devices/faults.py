"""``--inject``: the worst day of a rig, on demand and only in dry runs.

``<device>.<method>=<what>`` and ``acquisition=<what>``; device and method may hold ``*``.
A device's call may meet an exception (``TimeoutError``, ``OSError:cable out``, ``my_lab:Jammed``), ``delay:2s``, ``hang``;
the acquisition ``exit:3``, ``hang``, ``crash``, ``chatty``, each with ``@2s`` behind it to say when.
"""

from __future__ import annotations

import fnmatch
import logging
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ..durations import parse_duration_s
from ..errors import Mistake
from .answers import make_exception
from .loader import did_you_mean
from .protocol import LIFECYCLE

ACQUISITION = "acquisition"
_ACQUISITION_KINDS = ("exit", "hang", "crash", "chatty")
_FORMS = "laser.open=TimeoutError, laser.*=delay:2s, laser.read=hang, acquisition=exit:3, acquisition=crash@2s"


@dataclass(frozen=True)
class Fault:
    """One injected fault.

    Attributes:
        text: as the user wrote it.
        target: device name or pattern, or ``acquisition``.
        method: method name or pattern ("" for the acquisition).
        kind: ``raise``, ``delay``, ``hang``; for the acquisition ``exit``, ``hang``, ``crash``, ``chatty``.
        exception: ``Type: message`` of ``raise``.
        seconds: length of ``delay``; for the acquisition the time after its start (0: at once).
        code: exit code of ``exit``, lines of ``chatty`` (0: the acquisition's own idea).
    """

    text: str
    target: str
    method: str = ""
    kind: str = "raise"
    exception: str = ""
    seconds: float = 0.0
    code: int = 0

    def hits(self, device: str, method: str) -> bool:
        """Tell whether a call of ``device.method`` meets this fault."""
        return fnmatch.fnmatchcase(device, self.target) and fnmatch.fnmatchcase(method, self.method)

    def strike(self, released: threading.Event, log: logging.Logger) -> None:
        """Do it: raise, wait, or hang until ``released`` (the device manager is done)."""
        log.warning("injected fault: %s", self.text)
        if self.kind == "raise":
            raise make_exception(self.exception)
        released.wait(self.seconds if self.kind == "delay" else None)
        if self.kind == "hang":
            raise TimeoutError(f"injected hang ({self.text}) let go")


def parse_injections(
    values: Iterable[str], devices: Collection[str], *, dry_run: bool, where: str = "--inject"
) -> tuple[list[Fault], list[Mistake]]:
    """Read what ``--inject`` gave; every value that is wrong gives one mistake."""
    faults: list[Fault] = []
    mistakes: list[Mistake] = []
    for value in values:
        try:
            if not dry_run:
                raise ValueError("faults are injected into dry runs only; add --dry-run")
            faults.append(_parse(value, devices))
        except ValueError as error:
            mistakes.append(Mistake(where, f"{value!r}: {error}", f"forms: {_FORMS}" if dry_run else ""))
    return faults, mistakes


def split(faults: Sequence[Fault]) -> tuple[list[Fault], list[Fault]]:
    """Return the faults of devices and those of the acquisition."""
    acquisition = [fault for fault in faults if fault.target == ACQUISITION and not fault.method]
    return [fault for fault in faults if fault not in acquisition], acquisition


def _parse(value: str, devices: Collection[str]) -> Fault:
    place, equals, what = (part.strip() for part in value.partition("="))
    if not equals or not place or not what:
        raise ValueError("no '<where>=<what>'")
    if place == ACQUISITION and ACQUISITION not in devices:
        return _parse_acquisition(value, what)
    target, dot, method = place.partition(".")
    if not dot or not method:
        raise ValueError(f"name a method of {target!r}: {target}.open or {target}.*")
    if not any(fnmatch.fnmatchcase(name, target) for name in devices):
        known = ", ".join(devices) or "none"
        raise ValueError(f"the rig file has no device {target!r} (devices: {known}) {did_you_mean(target, devices)}".rstrip())
    kind, _, rest = what.partition(":")
    if kind == "delay":
        return Fault(value, target, method, "delay", seconds=parse_duration_s(rest))
    if kind == "hang" and not rest:
        return Fault(value, target, method, "hang")
    make_exception(what)
    return Fault(value, target, method, "raise", exception=what)


def _parse_acquisition(value: str, what: str) -> Fault:
    action, at, when = what.partition("@")
    seconds = parse_duration_s(when) if at else 0.0
    kind, _, rest = action.partition(":")
    if kind not in _ACQUISITION_KINDS:
        raise ValueError(f"the acquisition knows {', '.join(_ACQUISITION_KINDS)}; {did_you_mean(kind, _ACQUISITION_KINDS)}")
    if kind in ("hang", "crash") and rest:
        raise ValueError(f"{kind} takes no {rest!r}")
    if rest and not rest.isdigit():
        raise ValueError(f"{rest!r} is no {'exit code' if kind == 'exit' else 'number of lines'}")
    code = int(rest or 1) if kind == "exit" else int(rest or 0)
    return Fault(value, ACQUISITION, "", kind, seconds=seconds, code=code)


def check_method(fault: Fault, device: str, names: Collection[str]) -> Mistake | None:
    """Return a mistake for a fault on a method that the device's driver does not have."""
    if not fnmatch.fnmatchcase(device, fault.target) or any(sign in fault.method for sign in "*?["):
        return None
    if fault.method in LIFECYCLE or fault.method in names:
        return None
    return Mistake(
        "--inject", f"{fault.text!r}: the driver of {device!r} has no {fault.method!r}", did_you_mean(fault.method, names)
    )
