"""``driver: visa``: an instrument that PyVISA can reach (USB, GPIB, serial, Ethernet)."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from .base import ScriptSource, Talker


class VisaDevice(Talker):
    """One VISA resource.

    Args:
        resource: ``ASRL3::INSTR``, ``USB0::0x0957::…::INSTR``, ``TCPIP0::192.168.0.5::INSTR``.
        backend: PyVISA's ``visa_library``: "" takes the vendor's, ``@py`` pyvisa-py, ``file.yaml@sim`` a simulation.
        timeout_s: longest wait for an answer.
        read_termination, write_termination: what ends texts; default is PyVISA's for the resource.
        baud: of a serial resource.
        on_command, off_command: what :meth:`output` sends.
        check_query, check_answer: what ``check()`` asks, and a regular expression that the answer must match.
    """

    def __init__(
        self,
        resource: str,
        *,
        backend: str = "",
        timeout_s: float = 2.0,
        read_termination: str | None = None,
        write_termination: str | None = None,
        baud: int | None = None,
        on_command: str = "OUTP ON",
        off_command: str = "OUTP OFF",
        check_query: str | None = "*IDN?",
        check_answer: str | None = None,
    ) -> None:
        super().__init__(check_query, check_answer)
        self.resource = resource
        self._backend = backend
        self._on, self._off = on_command, off_command
        self._attributes: dict[str, Any] = {"timeout": timeout_s * 1000, "baud_rate": baud}
        self._attributes |= {"read_termination": read_termination, "write_termination": write_termination}
        self.instrument: Any = None
        self._manager: Any = None

    def open(self) -> None:
        import pyvisa

        self._manager = pyvisa.ResourceManager(self._backend)
        self.instrument = self._manager.open_resource(self.resource)
        for name, value in self._attributes.items():
            if value is not None:
                setattr(self.instrument, name, value)

    def close(self) -> None:
        if self.instrument is not None:
            self.instrument.close()
        if self._manager is not None:
            self._manager.close()

    def write(self, text: str) -> None:
        with self._lock:
            self.instrument.write(text)

    def read(self) -> str:
        """Return the next answer.

        Raises:
            TimeoutError: none came in time.
        """
        try:
            with self._lock:
                answer: str = self.instrument.read()
        except Exception as error:
            if "TMO" in str(error):
                raise TimeoutError(f"{self.resource}: {error}") from error
            raise
        return answer.strip()

    def query(self, text: str) -> str:
        """Send a text and return the answer; a timeout names the question."""
        return self._ask(text, self.write, self.read)

    def output(self, on: bool) -> None:
        """Switch the output by ``on_command``/``off_command``."""
        self.write(self._on if on else self._off)

    def read_state(self) -> dict[str, Any]:
        library = str(getattr(self._manager, "visalib", "")) if self._manager is not None else ""
        return {"resource": self.resource, "library": library, **self._attributes}

    @classmethod
    def simulate(cls, options: dict[str, Any], script: ScriptSource) -> tuple[dict[str, Any], Any, str]:
        """pyvisa-sim: the file given, else a generic instrument that knows ``*IDN?`` and the output commands."""
        if isinstance(script, Path):
            return {**options, "backend": f"{script}@sim"}, None, f"pyvisa-sim {script.name}"
        words = "a generic instrument" if script is None else "written out"
        folder = contextlib.ExitStack()
        path = Path(folder.enter_context(tempfile.TemporaryDirectory(prefix="openscope_visa_"))) / "simulation.yaml"
        # JSON is YAML.
        path.write_text(json.dumps(_generic_simulation(options) if script is None else dict(script)), encoding="utf-8")
        return {**options, "backend": f"{path}@sim"}, folder, f"pyvisa-sim, {words}"


def _generic_simulation(options: dict[str, Any]) -> dict[str, Any]:
    resource = str(options.get("resource", ""))
    head, _, kind = resource.rpartition("::")
    interface = "".join(char for char in head.partition("::")[0] if char.isalpha())
    ends = {"q": options.get("write_termination") or "\r\n", "r": options.get("read_termination") or "\n"}
    dialogues = [
        {"q": "*IDN?", "r": "pytest-openscope,simulated,0,0"},
        {"q": "*RST"},
        {"q": "*CLS"},
        {"q": "*OPC?", "r": "1"},
        {"q": options.get("on_command", "OUTP ON")},
        {"q": options.get("off_command", "OUTP OFF")},
    ]
    return {
        "spec": "1.0",
        "devices": {"simulated": {"eom": {f"{interface} {kind}": ends}, "dialogues": dialogues}},
        "resources": {resource: {"device": "simulated"}},
    }
