"""What a driver may offer, which ones are ready-made, and how the one that a rig file names is found."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol


class Driver(Protocol):
    """The methods that a session calls by itself, if the driver has them; a driver is any class.

    The constructor gets the device's ``params`` (for ready-made drivers also the options beside ``driver``) as keywords and
    should only store them: hardware is touched in ``open``. Any of the methods may be a coroutine; it then runs on the
    event loop that the session keeps for its devices.

    A driver without ``open`` that is a context manager is entered and left. One whose ``open`` means something else (a
    shutter's, say) names its own with ``open_method``/``close_method`` in the rig file.
    """

    def open(self) -> None:
        """Connect, within ``open_timeout_s``. Runs outside of the main thread, unless ``open_in_main_thread`` is set."""

    def close(self) -> None:
        """Disconnect; must be callable after an ``open`` that failed half way."""

    def check(self) -> object:
        """Prove that the device answers: raise or return False when it does not; a text or a mapping is shown."""

    def read_state(self) -> dict[str, Any]:
        """Describe the device for ``debug_state.json``; quick, and without side effects."""

    def safe_state(self) -> None:
        """Laser off, valve shut. Called before anything is closed, in every ending."""


#: The names above, which faults can always be injected into.
LIFECYCLE = ("open", "close", "check", "read_state", "safe_state")

#: Ready-made drivers by name, which is also that of the extra: the class, and the library that it imports ("" for none).
#: A new one: its name at ``Device.driver`` in config/models.py, its extra in pyproject.toml, its page in
#: docs/how-to/devices; for an option of its own that is declared and checked also ``Device`` in config/models.py and
#: ``_OF_DRIVERS`` in spec.py; for ``log_io`` on a library that is not known there ``_LOGGED_LIBRARIES`` in proxy.py.
DRIVERS = {
    "serial": ("pytest_openscope.devices.drivers.serial_line:SerialDevice", "serial"),
    "visa": ("pytest_openscope.devices.drivers.visa_instrument:VisaDevice", "pyvisa"),
    "zmq": ("pytest_openscope.devices.drivers.zmq_socket:ZmqDevice", "zmq"),
    "http": ("pytest_openscope.devices.drivers.http_service:HttpDevice", ""),
    "subprocess": ("pytest_openscope.devices.drivers.helper_program:SubprocessDevice", ""),
}


def missing_libraries(driver: str, dry_run: bool) -> tuple[list[str], str]:
    """Return what a ready-made driver needs and this Python does not have, and the command that installs it."""
    needed = [DRIVERS[driver][1], "pyvisa_sim" if driver == "visa" and dry_run else ""]
    missing = [name for name in needed if name and importlib.util.find_spec(name) is None]
    return missing, f'pip install "pytest-openscope[{driver}]"'


class LoadError(Exception):
    """A driver or mock cannot be had; ``remedy`` says what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.remedy = remedy


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest of ``known``, else ""."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else ""


def load(reference: str, rig_dir: Path) -> Any:
    """Import what ``module:Name`` (or the name of a ready-made driver) stands for.

    Raises:
        LoadError: the module cannot be imported or has no such name.
    """
    reference = DRIVERS[reference][0] if reference in DRIVERS else reference
    module_name, colon, path = reference.partition(":")
    if not colon or not module_name or not path:
        guess = did_you_mean(reference, DRIVERS)
        raise LoadError(
            f"{reference!r} is neither 'module:Class' nor one of {', '.join(DRIVERS)}",
            guess or "write the import path, a colon and the class: my_lab.cameras:Spinnaker",
        )
    # Installed packages go first, so that nothing beside the rig file shadows them.
    folder = str(rig_dir.resolve())
    if folder not in sys.path:
        sys.path.append(folder)
    value: Any = _import(module_name, rig_dir)
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            owner = value.__name__ if hasattr(value, "__name__") else module_name
            guess = did_you_mean(part, dir(value))
            raise LoadError(f"{owner} has no {part!r}", guess or f"define it in {module_name}") from None
    return value


def _import(module_name: str, rig_dir: Path) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            remedy = f"install it, or put it beside the rig file in {rig_dir}"
        else:
            remedy = f"pip install {missing.partition('.')[0]}, or give the device a 'mock:' for dry runs"
        raise LoadError(f"module {module_name!r} cannot be imported: {error}", remedy) from error
    except Exception as error:
        text = f"module {module_name!r} fails on import: {type(error).__name__}: {error}"
        raise LoadError(text, "mend the module, or give the device a 'mock:' for dry runs") from error
