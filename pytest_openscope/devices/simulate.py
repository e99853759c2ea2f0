"""What stands in for a device in a dry run, as near to the hardware as possible.

In this order: the device's ``mock:``; the mock that its driver ships (``__mock__``, a ``mock`` class method, or
``Mock<Name>`` in the driver's module); the simulation of its transport; an autospec of the driver.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .autospec import autospec, stand_in
from .driver_registry import LoadError, load
from .peer import Script, serve_lines
from .registers import harp_device, is_harp
from .spec import DeviceSpec
from .surface import Surface, fits, surface_of


@dataclass(frozen=True)
class Simulation:
    """How a device is simulated, in ``words`` for the operator; ``build`` makes what is then opened like the real one.

    Attributes:
        contract: what the driver offers, where the object is of another class.
        connect_mock: the object is ophyd-async's and is connected in its mock mode.
        helper: what is closed after the device.
    """

    words: str
    build: Callable[[], Any]
    contract: Surface | None = None
    connect_mock: bool = False
    helper: Any = None

    def close(self) -> None:
        """Close what stands at the other end."""
        if self.helper is not None:
            self.helper.close()


def choose(spec: DeviceSpec, rig_dir: Path) -> Simulation:
    """Find the simulation of a device.

    Raises:
        LoadError: neither the driver nor a mock can be had.
        TypeError: the params do not fit.
    """
    params = dict(spec.params)
    script = spec.script(rig_dir)
    if script is None and isinstance(spec.mock, str) and spec.mock:
        return _given_mock(spec, spec.mock, rig_dir, params)
    driver = load(spec.driver, rig_dir)
    if spec.ready_made:
        options, helper, words = driver.simulate(params, script)
        return Simulation(words, lambda: driver(**options), helper=helper)
    if script is not None:
        played = Script.read(script)
        server = serve_lines(played)
        options = {**params, "port": f"socket://{server.place}"}
        return Simulation(f"scripted peer {played.name}", lambda: driver(**options), helper=server)
    shipped = _shipped_mock(driver, rig_dir)
    if shipped is not None:
        words = f"mock of its driver, {_name(shipped)}"
        return Simulation(words, lambda: _construct(shipped, params), _contract(driver, shipped))
    if connects_in_mock_mode(driver):
        return Simulation("ophyd-async mock mode", lambda: driver(**params), connect_mock=True)
    cls = _made_class(driver, spec)
    if is_harp(cls):
        return Simulation("Harp registers in memory", lambda: harp_device(cls))
    if cls is driver or fits(cls, {}):
        given = params if cls is driver else {}
        return Simulation(f"autospec of {_name(cls)}", lambda: autospec(cls, given), surface_of(cls))
    return Simulation(f"autospec of {_name(cls)}", lambda: stand_in(cls, {}), surface_of(cls))


def _given_mock(spec: DeviceSpec, reference: str, rig_dir: Path, params: dict[str, Any]) -> Simulation:
    mock = load(reference, rig_dir)
    try:
        driver = load(spec.driver, rig_dir)
    except LoadError:
        driver = None
    return Simulation(f"mock {reference}", lambda: _construct(mock, params), _contract(driver, mock))


def _contract(driver: Any, mock: Any) -> Surface | None:
    if not isinstance(driver, type) or (isinstance(mock, type) and issubclass(mock, driver)):
        return None
    return surface_of(driver)


def _construct(target: Any, params: dict[str, Any]) -> Any:
    return target(**params) if fits(target, params) or not fits(target, {}) else target()


def _shipped_mock(driver: Any, rig_dir: Path) -> Any:
    shipped = vars(driver).get("__mock__") if isinstance(driver, type) else getattr(driver, "__mock__", None)
    if isinstance(shipped, str):
        return load(shipped, rig_dir)
    if shipped is not None:
        return shipped
    if isinstance(driver, type) and inspect.ismethod(getattr(driver, "mock", None)):
        return driver.mock  # type: ignore[attr-defined]
    module = sys.modules.get(getattr(driver, "__module__", ""))
    return getattr(module, f"Mock{getattr(driver, '__name__', '')}", None)


def connects_in_mock_mode(driver: Any) -> bool:
    """Tell an ophyd-async device: a class with a coroutine ``connect(mock=…)``."""
    connect = getattr(driver, "connect", None) if isinstance(driver, type) else None
    return inspect.iscoroutinefunction(connect) and "mock" in inspect.signature(connect).parameters


def _made_class(driver: Any, spec: DeviceSpec) -> type:
    """Return the class of what ``driver`` makes; for a function this is its return annotation.

    Raises:
        LoadError: it does not tell.
    """
    if isinstance(driver, type):
        return driver
    try:
        made = typing.get_type_hints(driver).get("return")
    except (NameError, TypeError):
        made = None
    made = typing.get_origin(made) or made
    if not isinstance(made, type):
        raise LoadError(
            f"{spec.driver} does not say what it returns, so it cannot be simulated",
            "annotate it, or give the device a 'mock:'",
        )
    return made


def _name(target: Any) -> str:
    return str(getattr(target, "__qualname__", target))
