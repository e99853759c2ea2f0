"""``driver: serial``: a device on a serial line that speaks in terminated texts (pyserial)."""

from __future__ import annotations

import time
from typing import Any

from ..peer import Script, serve_lines
from .base import LineTalker, ScriptSource


class SerialDevice(LineTalker):
    """One serial port.

    Args:
        port: ``COM3``, ``/dev/ttyACM0`` or any URL of pyserial (``socket://``, ``rfc2217://``, ``loop://``).
        baud: symbols per second.
        bytesize, parity, stopbits, rtscts, dsrdtr, xonxoff: as in pyserial.
        timeout_s: longest wait for an answer.
        write_timeout_s: longest wait for the line to take what is sent.
        terminator: ends every text in both directions; ``read_terminator`` where answers differ.
        encoding: of the texts.
        settle_s: wait after opening, for boards that restart when their port is opened (an Arduino: 2 s).
        check_query, check_answer: what ``check()`` asks, and a regular expression that the answer must match.
        safe_command: text that ``safe_state()`` sends.
    """

    def __init__(
        self,
        port: str,
        *,
        baud: int = 9600,
        bytesize: int = 8,
        parity: str = "N",
        stopbits: float = 1,
        rtscts: bool = False,
        dsrdtr: bool = False,
        xonxoff: bool = False,
        timeout_s: float = 1.0,
        write_timeout_s: float = 1.0,
        terminator: str = "\n",
        read_terminator: str | None = None,
        encoding: str = "utf-8",
        settle_s: float = 0.0,
        check_query: str | None = None,
        check_answer: str | None = None,
        safe_command: str | None = None,
    ) -> None:
        super().__init__(check_query, check_answer, safe_command)
        self.port = port
        self.timeout_s = timeout_s
        self._settings = {"baudrate": baud, "bytesize": bytesize, "parity": parity, "stopbits": stopbits}
        self._settings |= {"rtscts": rtscts, "dsrdtr": dsrdtr, "xonxoff": xonxoff}
        self._settings |= {"timeout": timeout_s, "write_timeout": write_timeout_s}
        self._end = terminator.encode(encoding)
        self._read_end = (terminator if read_terminator is None else read_terminator).encode(encoding)
        self._encoding = encoding
        self._settle_s = settle_s
        self.line: Any = None

    def open(self) -> None:
        """Open the port; what it had sent before is thrown away."""
        import serial

        self.line = serial.serial_for_url(self.port, **self._settings)
        if self._settle_s:
            time.sleep(self._settle_s)
        self.line.reset_input_buffer()

    def close(self) -> None:
        if self.line is not None:
            self.line.close()

    def write(self, text: str) -> None:
        """Send a text with its terminator."""
        self.write_bytes(text.encode(self._encoding) + self._end)

    def read_line(self, timeout_s: float | None = None) -> str:
        """Return the next text, without its terminator.

        Raises:
            TimeoutError: it did not come (whole) within ``timeout_s`` (default: the device's); the part that came is named.
        """
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        with self._lock:
            if self.line.timeout != wait_s:
                self.line.timeout = wait_s
            data: bytes = self.line.read_until(self._read_end)
        if not data.endswith(self._read_end):
            part = f" (only {data!r} came)" if data else ""
            raise TimeoutError(f"{self.port} sent no whole line within {wait_s:g} s{part}")
        return data[: len(data) - len(self._read_end)].decode(self._encoding, "replace").rstrip("\r")

    def write_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        with self._lock:
            self.line.write(data)
            self.line.flush()

    def read_bytes(self, count: int) -> bytes:
        """Return up to ``count`` bytes, fewer when the time is up."""
        with self._lock:
            return bytes(self.line.read(count))

    def clear_input(self) -> None:
        """Throw away what has come and was not read."""
        self.line.reset_input_buffer()

    def read_state(self) -> dict[str, Any]:
        return {"port": self.port, "is_open": bool(self.line is not None and self.line.is_open), **self._settings}

    @classmethod
    def simulate(cls, options: dict[str, Any], script: ScriptSource) -> tuple[dict[str, Any], Any, str]:
        """A scripted peer on a loopback socket, else pyserial's ``loop://``, which answers what it was told."""
        if script is None:
            return {**options, "port": "loop://", "settle_s": 0.0}, None, "loop://"
        played = Script.read(script)
        server = serve_lines(played)
        return {**options, "port": f"socket://{server.place}", "settle_s": 0.0}, server, f"scripted peer {played.name}"
