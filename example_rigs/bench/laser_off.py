"""Switches the laser off without the experiment: the sidecar runs this when the experiment process has died."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyvisa

BACKEND = "sims/laser.yaml@sim"  # on a real bench: ""


def main() -> None:
    manager = pyvisa.ResourceManager(BACKEND)
    laser: Any = manager.open_resource("ASRL3::INSTR", write_termination="\r\n", read_termination="\n")
    laser.write("OUTP 0")
    laser.close()
    manager.close()
    with Path("laser_off.log").open("a", encoding="utf-8") as log:
        log.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} laser switched off\n")


if __name__ == "__main__":
    main()
