"""The hardware of a rig: drivers, their mocks, faults on demand. Nothing here is imported for a rig without ``devices:``.

A new ready-made driver has a file in ``drivers/`` and is registered in :mod:`.driver_registry`.
"""

from .driver_registry import Driver
from .faults import check_faults, parse_injections
from .manager import Devices
from .spec import build_specs, check_specs
