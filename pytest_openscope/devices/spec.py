"""The ``devices:`` section of a rig file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..records import ConfigurationError, Mistake
from ..system import parse_duration_s
from .answers import find_mistake
from .loader import READY_MADE, did_you_mean
from .surface import callable_signature

_TIMES_S = {"open_timeout_s": 30.0, "close_timeout_s": 10.0, "check_timeout_s": 10.0, "safe_state_timeout_s": 10.0}
KEYS: tuple[str, ...] = (
    "driver",
    "params",
    "mock",
    "returns",
    "safe_state",
    "safe_state_command",
    "open",
    "open_method",
    "close_method",
)
KEYS += ("log_io", "description", "open_in_main_thread", "call_timeout_s", *_TIMES_S)


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
    open_timeout_s: float = _TIMES_S["open_timeout_s"]
    close_timeout_s: float = _TIMES_S["close_timeout_s"]
    check_timeout_s: float = _TIMES_S["check_timeout_s"]
    safe_state_timeout_s: float = _TIMES_S["safe_state_timeout_s"]
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
        note(place, "no driver given", f'write {{driver: "my_lab.cameras:Spinnaker"}} or one of {", ".join(READY_MADE)}')
        return None
    if not name or any(char in name for char in ".=*?[ ") or name == "acquisition":
        note(place, "a device's name holds letters, digits and _ (acquisition is taken)", "rename it")
    faults = _Faults(place, note)
    driver = entry["driver"].strip()
    params = dict(faults.mapping(entry, "params"))
    extra = {str(key): value for key, value in entry.items() if key not in KEYS}
    if driver in READY_MADE:
        params = {**extra, **params}
    else:
        for key in extra:
            note(
                f"{place}.{key}",
                "unknown key",
                did_you_mean(key, KEYS) or f"constructor arguments go into params: {{{key}: …}}",
            )
    mock = entry.get("mock", "")
    if not isinstance(mock, (str, Mapping)):
        note(f"{place}.mock", f"{mock!r} is neither 'module:Class' nor a file nor a script", "")
        mock = ""
    opened = entry.get("open", "lazy")
    if opened not in ("lazy", "eager"):
        note(f"{place}.open", f"{opened!r} is neither eager nor lazy", "")
    return DeviceSpec(
        name=name,
        driver=driver,
        params=params,
        mock=mock,
        returns=faults.returns(entry),
        safe_state=faults.safe_state(entry),
        safe_state_command=faults.command(entry),
        eager=opened == "eager",
        open_method=str(entry.get("open_method") or ""),
        close_method=str(entry.get("close_method") or ""),
        log_io=faults.boolean(entry, "log_io"),
        open_in_main_thread=faults.boolean(entry, "open_in_main_thread"),
        description=str(entry.get("description") or ""),
        call_timeout_s=faults.seconds(entry, "call_timeout_s", 0.0) if entry.get("call_timeout_s") is not None else None,
        **{key: faults.seconds(entry, key, default) for key, default in _TIMES_S.items()},
    )


class _Faults:
    """Reads single values and notes what is wrong with them."""

    def __init__(self, place: str, note: Note) -> None:
        self._place, self._note = place, note

    def mapping(self, entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = entry.get(key) or {}
        if not isinstance(value, Mapping):
            self._note(f"{self._place}.{key}", f"a mapping is expected, not {value!r}")
            return {}
        return value

    def boolean(self, entry: Mapping[str, Any], key: str) -> bool:
        value = entry.get(key, False)
        if not isinstance(value, bool):
            self._note(f"{self._place}.{key}", f"{value!r} is neither true nor false")
        return value is True

    def seconds(self, entry: Mapping[str, Any], key: str, default: float) -> float:
        try:
            return parse_duration_s(default if entry.get(key) is None else entry[key])
        except ValueError as error:
            self._note(f"{self._place}.{key}", str(error))
            return default

    def returns(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        values = self.mapping(entry, "returns")
        for name, item in values.items():
            problem = find_mistake(item)
            if problem:
                self._note(f"{self._place}.returns.{name}", problem)
        return values

    def command(self, entry: Mapping[str, Any]) -> tuple[str, ...]:
        value = entry.get("safe_state_command")
        if value is None:
            return ()
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, Sequence) or not words or not all(isinstance(word, (str, int, float)) for word in words):
            self._note(f"{self._place}.safe_state_command", f"a list of program and arguments is expected, not {value!r}")
            return ()
        return tuple(map(str, words))

    def safe_state(self, entry: Mapping[str, Any]) -> tuple[SafeCall, ...]:
        value = entry.get("safe_state")
        calls = []
        for item in value if isinstance(value, list) else [] if value is None else [value]:
            item = {"call": item} if isinstance(item, str) else item
            known = isinstance(item, Mapping) and isinstance(item.get("call"), str) and set(item) <= {"call", "args", "kwargs"}
            if not known or not isinstance(item.get("args", []), list) or not isinstance(item.get("kwargs", {}), Mapping):
                self._note(f"{self._place}.safe_state", f"{item!r} is no call", "write {call: output, args: [false]}")
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
