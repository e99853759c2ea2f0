"""What stands in for a Harp device in a dry run: Harp's own ``Device`` above registers in memory."""

from __future__ import annotations

import queue
from typing import Any

#: How long a read of the transport waits for bytes; Harp's reader looks after each whether it shall end.
_READ_S = 0.05


def is_harp(cls: Any) -> bool:
    """Tell a class derived from Harp's ``Device`` that is constructed like it; Harp is not imported for this."""
    bases = cls.__mro__ if isinstance(cls, type) else ()
    device = [base for base in bases if base.__name__ == "Device" and base.__module__.startswith("harp.device.")]
    return bool(device) and cls.__init__ is device[0].__init__  # type: ignore[misc]


def harp_device(cls: Any) -> Any:
    """Return a device of this class whose registers hold what was written, and zeros before."""

    class Registers(cls):  # type: ignore[misc]
        def __init__(self) -> None:
            self._simulated_transport = RegisterTransport()
            super().__init__(self._simulated_transport, raise_on_error=False)

        def read(self, register: Any, **more: Any) -> Any:
            # A question does not tell how long the answer is.
            self._simulated_transport.sizes[register.address] = register.payload_class.payload_dtype.itemsize
            return super().read(register, **more)

    Registers.__name__, Registers.__qualname__, Registers.__module__ = cls.__name__, cls.__qualname__, cls.__module__
    return Registers()


class RegisterTransport:
    """Answers the frames of the Harp protocol.

    Attributes:
        sizes: bytes of the registers by address; one element where it is not known.
    """

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self._values: dict[int, bytes] = {}
        self._replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def open(self) -> None:
        """There is nothing to open."""

    def write(self, data: bytes) -> None:
        """Take one request and make its reply."""
        from harp.protocol import HarpMessage, MessageType

        request = HarpMessage.parse(data)
        if request.message_type == MessageType.Write:
            self._values[request.address] = bytes(request.payload_bytes)
            self._replies.put(bytes(data))
            return
        # The low bits of the payload type are the bytes of one element.
        size = self.sizes.get(request.address, int(data[4]) & 0x0F)
        payload = self._values.get(request.address, bytes(size))
        head = bytes([data[0], len(payload) + 4, data[2], data[3], data[4]])
        self._replies.put(head + payload + bytes([sum(head + payload) & 0xFF]))

    def read(self) -> bytes:
        """Return the next reply, b"" where none comes for a moment."""
        try:
            return self._replies.get(timeout=_READ_S)
        except queue.Empty:
            return b""

    def close(self) -> None:
        """There is nothing to close."""
