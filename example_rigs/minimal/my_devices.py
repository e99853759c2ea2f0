"""Stands for the drivers of your hardware: any class will do, all five of open ... safe_state are optional."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class Lamp:
    def __init__(self, port: str, maximum_mw: float) -> None:
        self.port = port
        self.maximum_mw = maximum_mw
        self.power_mw = 0.0

    def open(self) -> None:
        log.info("lamp on %s is ready", self.port)

    def close(self) -> None:
        log.info("lamp on %s is closed", self.port)

    def safe_state(self) -> None:
        """Called before anything is closed, however the session ends."""
        self.power_mw = 0.0
        log.info("lamp is off")

    def check(self) -> str:
        return f"answers on {self.port}"

    def read_state(self) -> dict[str, float]:
        """Stands in debug_state.json when something fails."""
        return {"power_mw": self.power_mw}

    def set_power(self, power_mw: float) -> None:
        if not 0 <= power_mw <= self.maximum_mw:
            raise ValueError(f"{power_mw} mW: this lamp takes 0 to {self.maximum_mw} mW")
        self.power_mw = power_mw
        log.info("lamp is at %g mW", power_mw)

    def read_power_mw(self) -> float:
        return self.power_mw
