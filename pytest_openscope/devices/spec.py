"""The ``devices:`` section of a rig file: how it is read, and everything that can be wrong with it.

What is wrong is found before any hardware moves: keys, drivers, parameters, calls, mocks.
"""

from __future__ import annotations

import functools
import inspect
import os
import shutil
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ..config import Device, check, keys_of
from ..records import ConfigurationError, Mistake
from .answers import find_mistake
from .driver_registry import DRIVERS, LoadError, did_you_mean, load, missing_libraries
from .peer import Script
from .surface import callable_signature, fits, surface_of

#: Of the keys that the configuration knows, these are options of ready-made drivers.
_OF_DRIVERS = ("resource", "port", "baud", "url", "host", "command")
KEYS: tuple[str, ...] = tuple(key for key in keys_of(Device) if key not in _OF_DRIVERS)

#: Endings of files that the program of a safe-state command runs.
_SCRIPTS = frozenset({".py", ".pyw", ".m", ".sh", ".ps1", ".bat", ".cmd", ".jl", ".r", ".js", ".vbs"})
_PYTHON = ("python", "python3", "python.exe", "python3.exe")

#: Takes a key, a problem and a remedy.
Note = Callable[..., None]


class SafeCall(BaseModel):
    """One call that makes a device safe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    call: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}


class DeviceSpec(Device):
    """One device as the rig file declares it.

    ``params`` holds the constructor's keywords, wherever they were written. ``mock`` is ``module:Class``, a file beside the rig
    file, or a script written out. ``safe_state`` is empty where the driver's own ``safe_state`` method is meant.
    """

    name: str
    driver: str
    mock: str | Mapping[str, Any] = ""
    safe_state: tuple[SafeCall, ...] = ()

    @property
    def ready_made(self) -> bool:
        """True for the names in ``DRIVERS`` of :mod:`.driver_registry`."""
        return self.driver in DRIVERS

    def script(self, rig_dir: Path) -> Path | Mapping[str, Any] | None:
        """Return the script that ``mock`` names or holds; None where it is ``module:Class`` or absent."""
        if isinstance(self.mock, Mapping):
            return self.mock
        return rig_dir / self.mock if self.mock.lower().endswith((".yaml", ".yml")) else None

    def command_line(self, rig_dir: Path) -> list[str]:
        """Return ``safe_state_command`` as it is run, whichever folder and environment the process that runs it has.

        A bare ``python`` is this interpreter: the one on PATH may lack the packages that the command needs. A program with a
        relative folder lies beside the rig file.
        """
        given = self.safe_state_command or ""
        program, *arguments = [given] if isinstance(given, str) else given
        if program.lower() in _PYTHON:
            return [sys.executable or program, *arguments]
        if {"/", os.sep} & {*program}:
            program = str(rig_dir.absolute() / program)
        return [program, *arguments]

    def missing_for_safety(self, rig_dir: Path, *, program_too: bool) -> str:
        """Say what the command lacks: its program, or the script that it runs ("" when it has all, or there is none)."""
        if not self.safe_state_command:
            return ""
        program, *arguments = self.command_line(rig_dir)
        if program_too and not shutil.which(program):
            return f"there is no program {program!r}"
        script = next((text for text in arguments if text in ("-c", "-m") or Path(text).suffix.lower() in _SCRIPTS), "")
        if Path(script).suffix and not (rig_dir / script).is_file():
            return f"there is no script {str(rig_dir / script)!r}"
        return ""


def build_specs(raw: Mapping[str, Any]) -> dict[str, DeviceSpec]:
    """Read the section.

    Raises:
        ConfigurationError: everything that is wrong with its form; :func:`check_specs` finds that and more.
    """
    mistakes: list[Mistake] = []
    specs = [_read_spec(str(name), entry, _noting(mistakes, "rig file")) for name, entry in raw.items()]
    if mistakes:
        raise ConfigurationError(mistakes)
    return {spec.name: spec for spec in specs if spec is not None}


def check_specs(
    raw: Mapping[str, Any], rig_dir: Path, dry_run: bool, where: str = "rig file", *, safe_commands: bool = False
) -> list[Mistake]:
    """Return all mistakes of the section. Drivers are imported, as opening would do; nothing is constructed or opened.

    With ``safe_commands`` also commands that could not make their device safe: the program is missing, or the script beside the
    rig file. A dry run, whose machine has no programs of the rig, is told of the script only.
    """
    mistakes: list[Mistake] = []
    note = _noting(mistakes, where)
    remedy = "install it, or correct the path: nothing else makes the device safe once the experiment has died"
    for name, entry in raw.items():
        spec = _read_spec(str(name), entry, note)
        if spec is not None:
            _check_driver(spec, rig_dir, dry_run, note)
            if safe_commands and (problem := spec.missing_for_safety(rig_dir, program_too=not dry_run)):
                note(f"devices.{name}.safe_state_command", problem, remedy)
    return mistakes


def _noting(mistakes: list[Mistake], where: str) -> Note:
    return lambda key, problem, remedy="": mistakes.append(Mistake(where, problem, remedy, key))


def _read_spec(name: str, entry: Any, note: Note) -> DeviceSpec | None:
    """Read one entry; every mistake of its form is noted, and None is returned where there is no driver."""
    place = f"devices.{name}"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("driver"), str):
        note(place, "no driver given", f'write {{driver: "module:Class"}} or one of {", ".join(DRIVERS)}')
        return None
    if not name or any(char in name for char in ".=*?[ ") or name == "acquisition":
        note(place, "a device's name holds letters, digits and _ (acquisition is taken)", "rename it")
    device, mistakes = check(Device, {key: value for key, value in entry.items() if key not in _OF_DRIVERS}, "", place)
    for mistake in mistakes:
        note(mistake.key, mistake.problem, mistake.remedy)
    driver = entry["driver"].strip()
    params = dict(device.params)
    extra = {str(key): value for key, value in entry.items() if key not in KEYS}
    if driver in DRIVERS:
        params = {**extra, **params}
    else:
        for key in extra:
            note(
                f"{place}.{key}",
                "unknown key",
                did_you_mean(key, KEYS) or f"constructor arguments go into params: {{{key}: …}}",
            )
    mock = device.mock or ""
    if not isinstance(mock, (str, Mapping)):
        note(f"{place}.mock", f"{mock!r} is neither 'module:Class' nor a file nor a script")
        mock = ""
    for method, item in device.returns.items():
        if problem := find_mistake(item):
            note(f"{place}.returns.{method}", problem)
    own = {
        "name": name,
        "driver": driver,
        "params": params,
        "mock": mock,
        "safe_state": _safe_state(device.safe_state, place, note),
    }
    return DeviceSpec.model_construct(**{**dict(device), **own})


def _safe_state(written: Any, place: str, note: Note) -> tuple[SafeCall, ...]:
    """Read one call or a list of calls; each is a method's name, or ``{call: output, args: [false]}``."""
    calls = []
    for item in written if isinstance(written, list) else [] if written is None else [written]:
        try:
            calls.append(SafeCall.model_validate({"call": item} if isinstance(item, str) else item))
        except ValidationError:
            note(f"{place}.safe_state", f"{item!r} is no call", "write {call: output, args: [false]}")
    return tuple(calls)


def _check_driver(spec: DeviceSpec, rig_dir: Path, dry_run: bool, note: Note) -> None:
    place = f"devices.{spec.name}"
    mocked = dry_run and bool(spec.mock)
    if spec.ready_made and not (mocked and spec.script(rig_dir) is None):
        missing, remedy = missing_libraries(spec.driver, dry_run)
        if missing:
            note(f"{place}.driver", f"{spec.driver} needs {' and '.join(missing)}, which this Python does not have", remedy)
    try:
        driver = load(spec.driver, rig_dir)
    except LoadError as error:
        # A dry run on a machine without the vendor's library is what a mock is for; a name that cannot exist is not.
        if not (mocked and ":" in spec.driver):
            note(f"{place}.driver", str(error), error.remedy)
    else:
        if callable(driver):
            _check_params(spec, driver, place, note)
            _check_methods(spec, driver, place, note)
        else:
            note(f"{place}.driver", f"{spec.driver} is neither a class nor a function")
    if spec.mock:
        _check_mock(spec, rig_dir, dry_run, f"{place}.mock", note)


def _check_mock(spec: DeviceSpec, rig_dir: Path, dry_run: bool, place: str, note: Note) -> None:
    script = spec.script(rig_dir)
    if script is None:
        if dry_run:
            _check_mock_class(spec, rig_dir, place, note)
    elif isinstance(script, Path) and not script.is_file():
        note(place, f"{script} does not exist", "the path is relative to the rig file")
    elif not spec.ready_made and "port" not in spec.params:
        text = "a script plays the other end of a ready-made driver or of a 'port' in params"
        note(place, text, "name 'module:Class' instead")
    elif dry_run and spec.driver != "visa":
        try:
            Script.read(script)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            note(place, str(error), "docs/reference/devices.md shows what a script may hold")


def _check_mock_class(spec: DeviceSpec, rig_dir: Path, place: str, note: Note) -> None:
    try:
        mock = load(str(spec.mock), rig_dir)
    except LoadError as error:
        note(place, str(error), error.remedy)
        return
    if not fits(mock, spec.params) and not fits(mock, {}):
        text = f"{spec.mock} takes neither the device's params nor nothing"
        note(place, text, f"it takes {callable_signature(mock)}")


def _check_params(spec: DeviceSpec, driver: Any, place: str, note: Note) -> None:
    signature = callable_signature(driver)
    if signature is None:
        return
    section = place if spec.ready_made else f"{place}.params"
    known = [item for name, item in signature.parameters.items() if not name.startswith("_")]
    free = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in known)
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = {item.name: item for item in known if item.kind not in several}
    hints = _hints(driver) if spec.ready_made else {}
    for key, value in spec.params.items():
        if key not in named and not free:
            remedy = did_you_mean(key, [*named, *(KEYS if spec.ready_made else ())]) or f"it knows {', '.join(named)}"
            note(f"{section}.{key}", f"{spec.driver} has no option {key!r}", remedy)
            continue
        try:
            TypeAdapter(hints.get(key, Any)).validate_python(value, strict=True)
        except ValidationError as error:
            note(f"{section}.{key}", f"{value!r} is not {error.errors()[0]['msg'].removeprefix('Input should be ')}")
    for key, item in named.items():
        if item.default is inspect.Parameter.empty and key not in spec.params:
            note(f"{section}.{key}", f"{spec.driver} needs {key!r}", f"add {key}: to the device")


@functools.cache
def _hints(driver: Any) -> dict[str, Any]:
    """Return the types of a ready-made driver's options; a rig may have many devices of one driver."""
    return typing.get_type_hints(driver.__init__)


def _check_methods(spec: DeviceSpec, driver: Any, place: str, note: Note) -> None:
    """Hold every method that the rig file names against the driver."""
    if not isinstance(driver, type):
        return
    surface = surface_of(driver)
    named = [(key, getattr(spec, key)) for key in ("open_method", "close_method")]
    wanted = [("safe_state", call) for call in spec.safe_state]
    wanted += [(key, SafeCall(call=name)) for key, name in named if name not in (None, "", "none")]
    for key, call in wanted:
        try:
            surface.require(call.call)
            surface.bind(call.call, call.args, call.kwargs)
        except (AttributeError, TypeError) as error:
            note(f"{place}.{key}", str(error))
    for method in spec.returns:
        try:
            surface.require(method)
        except AttributeError as error:
            note(f"{place}.returns.{method}", str(error))
