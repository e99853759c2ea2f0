"""Everything that can be wrong with a rig file's devices, found before any hardware moves: keys, drivers, calls, mocks."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..records import Mistake
from .loader import LoadError, did_you_mean, load, missing_libraries
from .safe_commands import missing_for_safety
from .spec import KEYS, DeviceSpec, Note, fits, read_spec, script_of
from .surface import callable_signature, surface_of


def check_specs(raw: Any, rig_dir: Path, dry_run: bool, where: str = "rig file") -> list[Mistake]:
    """Return all mistakes of the section. Drivers are imported, as opening would do; nothing is constructed or opened."""
    mistakes: list[Mistake] = []
    if not isinstance(raw, Mapping):
        return [Mistake(where, f"a mapping of names to devices is expected, not {raw!r}", "", "devices")]
    for name, entry in raw.items():

        def note(key: str, problem: str, remedy: str = "") -> None:
            mistakes.append(Mistake(where, problem, remedy, key))

        spec = read_spec(str(name), entry, note)
        if spec is not None:
            _check_driver(spec, rig_dir, dry_run, note)
    return mistakes


def check_safe_commands(raw: Mapping[str, Any], rig_dir: Path, dry_run: bool, where: str = "rig file") -> list[Mistake]:
    """Return the commands that could not make their device safe: the program is missing, or the script beside the rig file.

    A dry run, whose machine has no programs of the rig, is told of the script only.
    """
    mistakes: list[Mistake] = []
    for name, entry in raw.items():
        spec = read_spec(str(name), entry, lambda *_: None)
        problem = missing_for_safety(spec, rig_dir, program_too=not dry_run) if spec is not None else ""
        if problem:
            remedy = "install it, or correct the path: nothing else makes the device safe once the experiment has died"
            mistakes.append(Mistake(where, problem, remedy, f"devices.{name}.safe_state_command"))
    return mistakes


def _check_driver(spec: DeviceSpec, rig_dir: Path, dry_run: bool, note: Note) -> None:
    place = f"devices.{spec.name}"
    mocked = dry_run and bool(spec.mock)
    if spec.ready_made and not (mocked and script_of(spec, rig_dir) is None):
        missing, remedy = missing_libraries(spec.driver, dry_run)
        if missing:
            note(f"{place}.driver", f"{spec.driver} needs {' and '.join(missing)}, which this Python does not have", remedy)
    try:
        driver = load(spec.driver, rig_dir)
    except LoadError as error:
        # A dry run on a machine without the vendor's library is what a mock is for; a name that cannot exist is not.
        if not (mocked and ":" in spec.driver):
            note(f"{place}.driver", str(error), error.remedy)
        driver = None
    if driver is not None and not callable(driver):
        note(f"{place}.driver", f"{spec.driver} is neither a class nor a function", "")
        driver = None
    if driver is not None:
        _check_params(spec, driver, place, note)
        _check_methods(spec, driver, place, note)
    if spec.mock:
        _check_mock(spec, rig_dir, dry_run, place, note)


def _check_mock(spec: DeviceSpec, rig_dir: Path, dry_run: bool, place: str, note: Note) -> None:
    script = script_of(spec, rig_dir)
    if script is not None:
        if isinstance(script, Path) and not script.is_file():
            note(f"{place}.mock", f"{script} does not exist", "the path is relative to the rig file")
        elif not spec.ready_made and "port" not in spec.params:
            text = "a script plays the other end of a ready-made driver or of a 'port' in params"
            note(f"{place}.mock", text, "name 'module:Class' instead")
        elif dry_run and spec.driver != "visa":
            from .peer import Script

            try:
                Script.read(script)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                note(f"{place}.mock", str(error), "docs/reference/devices.md shows what a script may hold")
        return
    assert isinstance(spec.mock, str)
    if not dry_run:
        return
    try:
        mock = load(spec.mock, rig_dir)
    except LoadError as error:
        note(f"{place}.mock", str(error), error.remedy)
        return
    if not fits(mock, spec.params) and not fits(mock, {}):
        note(
            f"{place}.mock",
            f"{spec.mock} takes neither the device's params nor nothing",
            f"it takes {callable_signature(mock)}",
        )


def _check_params(spec: DeviceSpec, driver: Any, place: str, note: Note) -> None:
    signature = callable_signature(driver)
    if signature is None:
        return
    known = {name: item for name, item in signature.parameters.items() if not name.startswith("_")}
    free = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in known.values())
    section = place if spec.ready_made else f"{place}.params"
    named = {n: p for n, p in known.items() if p.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)}
    for key in spec.params:
        if key not in named and not free:
            candidates = [*named, *(KEYS if spec.ready_made else ())]
            note(
                f"{section}.{key}",
                f"{spec.driver} has no option {key!r}",
                did_you_mean(key, candidates) or f"it knows {', '.join(named)}",
            )
    for key, item in named.items():
        if item.default is inspect.Parameter.empty and key not in spec.params:
            note(f"{section}.{key}", f"{spec.driver} needs {key!r}", f"add {key}: to the device")
    if spec.ready_made:
        hints = _hints(driver)
        for key, value in spec.params.items():
            if key in named and not _is_of(value, hints.get(key, Any)):
                note(f"{section}.{key}", f"{value!r} is not {_words(hints[key])}", "")


@functools.cache
def _hints(driver: Any) -> dict[str, Any]:
    """Return the types of a ready-made driver's options; a rig may have many devices of one driver."""
    return typing.get_type_hints(driver.__init__)


def _is_of(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_of(value, argument) for argument in arguments)
    kind = origin or hint
    if kind is Any or not isinstance(kind, type):
        return True
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _words(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "empty"}
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return " or ".join(names.get(part, str(part)) for part in parts)


def _check_methods(spec: DeviceSpec, driver: Any, place: str, note: Note) -> None:
    """Hold every method that the rig file names against the driver."""
    if not isinstance(driver, type):
        return
    surface = surface_of(driver)
    wanted = [(f"{place}.safe_state", call.call, call.args, dict(call.kwargs)) for call in spec.safe_state]
    wanted += [
        (f"{place}.{key}", name, (), {})
        for key in ("open_method", "close_method")
        if (name := getattr(spec, key)) not in ("", "none")
    ]
    for key, method, args, kwargs in wanted:
        try:
            surface.require(method)
            surface.bind(method, args, kwargs)
        except (AttributeError, TypeError) as error:
            note(key, str(error), "")
    for method in spec.returns:
        try:
            surface.require(method)
        except AttributeError as error:
            note(f"{place}.returns.{method}", str(error), "")
