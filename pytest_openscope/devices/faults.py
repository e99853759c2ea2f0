"""``--inject <device>.<method>=<what>``: the worst day of a rig's devices, on demand and only in dry runs.

Device and method may hold ``*``. A call may meet an exception (``TimeoutError``, ``OSError:cable out``, ``my_lab:Jammed``),
``delay:2s`` or ``hang``. Faults of the acquisition are read by its own part.
"""

from __future__ import annotations

import fnmatch
import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..records import Mistake
from ..system import Latch, parse_duration_s
from .answers import make_exception
from .driver_registry import LIFECYCLE, LoadError, did_you_mean, load
from .surface import surface_of

_FORMS = "laser.open=TimeoutError, laser.*=delay:2s, laser.read=hang, acquisition=exit:3, acquisition=crash@2s"


@dataclass(frozen=True)
class Fault:
    """One injected fault, with the user's ``text``.

    ``target`` and ``method`` may be patterns; ``kind`` is ``raise`` (with ``exception``), ``delay`` (with ``seconds``) or
    ``hang``; ``struck`` is set once a call has met it.
    """

    text: str
    target: str
    method: str
    kind: str = "raise"
    exception: str = ""
    seconds: float = 0.0
    struck: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def hits(self, device: str, method: str) -> bool:
        """Tell whether a call of ``device.method`` meets this fault."""
        return self.aims_at(device) and fnmatch.fnmatchcase(method, self.method)

    def aims_at(self, device: str) -> bool:
        """Tell whether any call of ``device`` may meet this fault."""
        return fnmatch.fnmatchcase(device, self.target)

    def strike(self, released: Latch, log: logging.Logger) -> None:
        """Do it: raise, wait, or hang until ``released`` (the device manager is done)."""
        self.struck.set()
        log.warning("injected fault: %s", self.text)
        if self.kind == "raise":
            raise make_exception(self.exception)
        released.wait(self.seconds if self.kind == "delay" else None)
        if self.kind == "hang":
            raise TimeoutError(f"injected hang ({self.text}) let go")


def parse_injections(
    values: Iterable[str], devices: Collection[str], where: str = "--inject"
) -> tuple[list[Fault], list[Mistake]]:
    """Read what ``--inject`` gave for devices; every value that is wrong gives one mistake."""
    faults: list[Fault] = []
    mistakes: list[Mistake] = []
    for value in values:
        try:
            faults.append(_parse(value, devices))
        except ValueError as error:
            mistakes.append(Mistake(where, f"{value!r}: {error}", f"forms: {_FORMS}"))
    return faults, mistakes


def check_faults(values: Iterable[str], raw: Mapping[str, Any], rig_dir: Path, where: str = "--inject") -> list[Mistake]:
    """Return what is wrong with the faults, methods that no driver has included: a rehearsal must not rehearse nothing.

    Args:
        raw: the ``devices:`` section.
        rig_dir: directory of the rig file; drivers are imported.
    """
    faults, mistakes = parse_injections(values, list(raw), where)
    for fault in faults:
        aimed = {name: _methods(entry, rig_dir) for name, entry in raw.items() if fault.aims_at(name)}
        known = {method for methods in aimed.values() for method in methods or ()}
        if None in aimed.values() or any(fnmatch.fnmatchcase(method, fault.method) for method in {*known, *LIFECYCLE}):
            continue
        remedy = did_you_mean(fault.method, known) or f"it has {', '.join([*LIFECYCLE, *sorted(known - set(LIFECYCLE))])}"
        mistakes.append(Mistake(where, f"{fault.text!r}: the driver of {', '.join(aimed)} has no {fault.method!r}", remedy))
    return mistakes


def _methods(entry: Any, rig_dir: Path) -> Collection[str] | None:
    """Return the public names of a device's driver; None for one that cannot tell (a function, or one that is not there)."""
    try:
        driver = load(str(entry["driver"]), rig_dir)
    except (LoadError, KeyError, TypeError):
        return None
    if not isinstance(driver, type) or surface_of(driver).dynamic:
        return None
    return surface_of(driver).names()


def _parse(value: str, devices: Collection[str]) -> Fault:
    place, equals, what = (part.strip() for part in value.partition("="))
    if not equals or not place or not what:
        raise ValueError("no '<where>=<what>'")
    target, dot, method = place.partition(".")
    if not any(fnmatch.fnmatchcase(name, target) for name in devices):
        known = ", ".join(devices) or "none"
        guess = did_you_mean(target, [*devices, "acquisition"])
        raise ValueError(f"the rig file has no device {target!r} (devices: {known}) {guess}".rstrip())
    if not dot or not method:
        raise ValueError(f"name a method of {target!r}: {target}.open or {target}.*")
    kind, _, rest = what.partition(":")
    if kind == "delay":
        return Fault(value, target, method, "delay", seconds=parse_duration_s(rest))
    if kind == "hang" and not rest:
        return Fault(value, target, method, "hang")
    make_exception(what)
    return Fault(value, target, method, "raise", exception=what)
