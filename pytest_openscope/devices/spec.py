"""The ``devices:`` section of a rig file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import Device, check, keys_of
from ..records import ConfigurationError, Mistake
from .answers import find_mistake
from .loader import READY_MADE, did_you_mean
from .surface import callable_signature

#: Of the keys that the configuration knows, these are options of ready-made drivers.
_OF_DRIVERS = ("resource", "port", "baud", "url", "host", "command")
KEYS: tuple[str, ...] = tuple(key for key in keys_of(Device) if key not in _OF_DRIVERS)


@dataclass(frozen=True)
class SafeCall:
    """One call that makes a device safe."""

    call: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceSpec:
    """One device as the rig file declares it; times in seconds.

    ``params`` holds the constructor's keywords, wherever they were written. ``mock`` is ``module:Class``, a file beside the rig
    file, or a script written out. ``safe_state`` is empty where the driver's own ``safe_state`` method is meant.
    ``open_method``/``close_method``: "" for the usual search, ``none`` for nothing to call. ``open_in_main_thread`` opens
    unwatched, for libraries that are bound to a thread.
    """

    name: str
    driver: str
    params: Mapping[str, Any] = field(default_factory=dict)
    mock: str | Mapping[str, Any] = ""
    returns: Mapping[str, Any] = field(default_factory=dict)
    safe_state: tuple[SafeCall, ...] = ()
    safe_state_command: tuple[str, ...] = ()
    eager: bool = False
    open_method: str = ""
    close_method: str = ""
    log_io: bool = False
    open_in_main_thread: bool = False
    description: str = ""
    open_timeout_s: float = Device.model_fields["open_timeout_s"].default
    close_timeout_s: float = Device.model_fields["close_timeout_s"].default
    check_timeout_s: float = Device.model_fields["check_timeout_s"].default
    safe_state_timeout_s: float = Device.model_fields["safe_state_timeout_s"].default
    call_timeout_s: float | None = None

    @property
    def ready_made(self) -> bool:
        """True for serial, visa, zmq, http and subprocess."""
        return self.driver in READY_MADE


def build_specs(raw: Mapping[str, Any]) -> dict[str, DeviceSpec]:
    """Read the section.

    Raises:
        ConfigurationError: everything that is wrong with its form; ``checking.check_specs`` finds that and more.
    """
    mistakes: list[Mistake] = []
    specs = {}
    for name, entry in raw.items():
        spec = read_spec(
            str(name), entry, lambda key, problem, remedy="": mistakes.append(Mistake("rig file", problem, remedy, key))
        )
        if spec is not None:
            specs[spec.name] = spec
    if mistakes:
        raise ConfigurationError(mistakes)
    return specs


#: Takes a key, a problem and a remedy.
Note = Callable[..., None]


def read_spec(name: str, entry: Any, note: Note) -> DeviceSpec | None:
    """Read one entry; every mistake of its form is noted, and None is returned where there is no driver."""
    place = f"devices.{name}"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("driver"), str):
        note(place, "no driver given", f'write {{driver: "module:Class"}} or one of {", ".join(READY_MADE)}')
        return None
    if not name or any(char in name for char in ".=*?[ ") or name == "acquisition":
        note(place, "a device's name holds letters, digits and _ (acquisition is taken)", "rename it")
    device, mistakes, _ = check(Device, {key: value for key, value in entry.items() if key not in _OF_DRIVERS}, "", place)
    for mistake in mistakes:
        note(mistake.key, mistake.problem, mistake.remedy)
    driver = entry["driver"].strip()
    params = dict(device.params)
    extra = {str(key): value for key, value in entry.items() if key not in KEYS}
    if driver in READY_MADE:
        params = {**extra, **params}
    else:
        for key in extra:
            remedy = did_you_mean(key, KEYS) or f"constructor arguments go into params: {{{key}: …}}"
            note(f"{place}.{key}", "unknown key", remedy)
    mock = device.mock or ""
    if not isinstance(mock, (str, Mapping)):
        note(f"{place}.mock", f"{mock!r} is neither 'module:Class' nor a file nor a script", "")
        mock = ""
    for method, item in device.returns.items():
        if problem := find_mistake(item):
            note(f"{place}.returns.{method}", problem)
    command = device.safe_state_command or ()
    return DeviceSpec(
        name=name,
        driver=driver,
        params=params,
        mock=mock,
        returns=device.returns,
        safe_state=_safe_state(device.safe_state, place, note),
        safe_state_command=(command,) if isinstance(command, str) else tuple(command),
        eager=device.open == "eager",
        open_method=device.open_method or "",
        close_method=device.close_method or "",
        log_io=device.log_io,
        open_in_main_thread=device.open_in_main_thread,
        description=device.description or "",
        open_timeout_s=device.open_timeout_s,
        close_timeout_s=device.close_timeout_s,
        check_timeout_s=device.check_timeout_s,
        safe_state_timeout_s=device.safe_state_timeout_s,
        call_timeout_s=device.call_timeout_s,
    )


def _safe_state(written: Any, place: str, note: Note) -> tuple[SafeCall, ...]:
    """Read one call or a list of calls; each is a method's name, or ``{call: output, args: [false]}``."""
    calls = []
    for item in written if isinstance(written, list) else [] if written is None else [written]:
        item = {"call": item} if isinstance(item, str) else item
        known = isinstance(item, Mapping) and isinstance(item.get("call"), str) and set(item) <= {"call", "args", "kwargs"}
        if not known or not isinstance(item.get("args", []), list) or not isinstance(item.get("kwargs", {}), Mapping):
            note(f"{place}.safe_state", f"{item!r} is no call", "write {call: output, args: [false]}")
            continue
        calls.append(SafeCall(item["call"], tuple(item.get("args", ())), dict(item.get("kwargs", {}))))
    return tuple(calls)


def script_of(spec: DeviceSpec, rig_dir: Path) -> Path | Mapping[str, Any] | None:
    """Return the script that a ``mock:`` names or holds; None where it is ``module:Class`` or absent."""
    if isinstance(spec.mock, Mapping):
        return spec.mock
    return rig_dir / spec.mock if spec.mock.lower().endswith((".yaml", ".yml")) else None


def fits(target: Any, params: Mapping[str, Any]) -> bool:
    """Tell whether ``target(**params)`` is a possible call."""
    signature = callable_signature(target)
    if signature is None:
        return True
    try:
        signature.bind(**params)
    except TypeError:
        return False
    return True
