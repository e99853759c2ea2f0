"""Running, watching and stopping the programs that acquire data.

The names below are loaded when they are first asked for, so that the sidecar pays only for what it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..system.tree import StopPolicy as StopPolicy
    from .api import Acquisition as Acquisition
    from .run import AcquisitionRun as AcquisitionRun
    from .simulated import Fault as Fault
    from .simulated import SimulatedRun as SimulatedRun
    from .simulated import parse_fault as parse_fault
    from .spec import AcquisitionFailed as AcquisitionFailed
    from .spec import AcquisitionSpec as AcquisitionSpec
    from .spec import AcquisitionTimeout as AcquisitionTimeout

_WHERE = {
    "Acquisition": "api",
    "AcquisitionFailed": "spec",
    "AcquisitionRun": "run",
    "AcquisitionSpec": "spec",
    "AcquisitionTimeout": "spec",
    "Fault": "simulated",
    "SimulatedRun": "simulated",
    "StopPolicy": "spec",
    "parse_fault": "simulated",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
