"""From a device's entry in the rig file to an opened device: the driver's, or in a dry run what stands in for it."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .answers import Answers
from .calls import Watch
from .event_loop import EventLoopThread
from .faults import Fault
from .io_log import tap
from .loader import load
from .opening import OpenDevice, build_hooks
from .simulate import Simulation, choose, connects_in_mock_mode
from .spec import DeviceSpec


class DeviceMaker:
    """Makes and opens single devices, in whatever thread it is called.

    Args:
        rig_dir: directory of the rig file.
        loop: where coroutines run.
        released: set when the devices are closed, so that injected hangs let go.
        injections: faults; None when this is no dry run.
        watch: gets the limit of each call of a device that has a ``call_timeout_s``.
    """

    def __init__(
        self,
        rig_dir: Path,
        loop: EventLoopThread,
        released: threading.Event,
        log: logging.Logger,
        injections: Sequence[Fault] | None,
        watch: Watch | None = None,
    ) -> None:
        self._watch = watch
        self._rig_dir, self._loop, self._released, self._log = rig_dir, loop, released, log
        self._injections = injections
        self.simulations: dict[str, Simulation] = {}

    def simulation(self, spec: DeviceSpec) -> Simulation:
        """Return what stands in for a device; chosen once."""
        if spec.name not in self.simulations:
            self.simulations[spec.name] = choose(spec, self._rig_dir)
        return self.simulations[spec.name]

    def make(self, spec: DeviceSpec) -> OpenDevice:
        """Construct a device and open it; one that fails is closed again.

        Raises:
            Exception: what driver or mock raised.
        """
        opened = self._real(spec) if self._injections is None else self._simulated(spec, self._injections)
        try:
            opened.connect()
        except BaseException:
            # What simulated it is closed with it; the next try needs another one.
            self.simulations.pop(spec.name, None)
            self._close_failed(opened)
            raise
        if opened.hooks.log_io:
            tap(opened.target, opened.hooks.log)
        return opened

    def _real(self, spec: DeviceSpec) -> OpenDevice:
        driver = load(spec.driver, self._rig_dir)
        params = dict(spec.params)
        made = self._loop.run(driver, **params) if connects_in_mock_mode(driver) else driver(**params)
        made_open = not isinstance(driver, type) and not hasattr(type(made), "__enter__")
        made_open = made_open or (not isinstance(driver, type) and callable(getattr(made, "close", None)))
        hooks = build_hooks(spec, self._log, released=self._released, watch=self._watch)
        return OpenDevice(spec, made, hooks, self._call, is_made_open=made_open)

    def _simulated(self, spec: DeviceSpec, injections: Sequence[Fault]) -> OpenDevice:
        simulation = self.simulation(spec)
        hooks = build_hooks(
            spec,
            self._log,
            released=self._released,
            watch=self._watch,
            answers=Answers(spec.returns),
            faults=tuple(fault for fault in injections if fault.aims_at(spec.name)),
            contract=simulation.contract,
            # ophyd-async's own methods go unwrapped: it looks into its devices.
            calls=None if simulation.connect_mock else [],
        )
        made = self._loop.run(simulation.build) if simulation.connect_mock else simulation.build()
        return OpenDevice(spec, made, hooks, self._call, simulation.cleanup, simulation.connect_mock)

    def put_away(self, opened: OpenDevice) -> None:
        """A device that opened after its time was up is of no use to anybody: make it safe and close it."""
        self._log.warning("%s opened after its time was up; it is made safe and closed", opened.spec.name)
        for action in (opened.make_safe, opened.disconnect):
            try:
                action()
            except Exception:
                self._log.exception("%s, which opened too late, could not be put away", opened.spec.name)

    def close(self) -> None:
        """Close what simulated the devices."""
        for simulation in self.simulations.values():
            for helper in simulation.cleanup:
                helper.close()

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a driver's method; coroutines run on the loop, plain methods in the calling thread."""
        if inspect.iscoroutinefunction(function) or getattr(function, "__module__", "").startswith("ophyd_async"):
            return self._loop.run(function, *args, **kwargs)
        result = function(*args, **kwargs)
        return self._loop.run(lambda: result) if inspect.isawaitable(result) else result

    def _close_failed(self, opened: OpenDevice) -> None:
        try:
            opened.disconnect()
        except Exception as error:
            self._log.debug("closing %s after its open failed: %s: %s", opened.spec.name, type(error).__name__, error)
