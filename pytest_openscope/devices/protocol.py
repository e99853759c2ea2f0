"""What a driver may offer. Every method is optional; a driver is any class."""

from __future__ import annotations

from typing import Any, Protocol


class Driver(Protocol):
    """The methods that a session calls by itself, if the driver has them.

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
