"""A wall clock that can be set while sessions run, in every process of theirs; the monotonic clocks go on."""

from __future__ import annotations

import itertools
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: For the head of an experiment: sets the clock of all its processes at once, by seconds from the true time.
SET_CLOCK = """
import struct

def set_clock(seconds):
    with open(os.environ["OPENSCOPE_TEST_CLOCK"], "r+b", buffering=0) as stream:
        stream.write(struct.pack("=q", round(seconds * 1e9)))

def true_time():
    with open(os.environ["OPENSCOPE_TEST_CLOCK"], "rb") as stream:
        return time.time() - struct.unpack("=q", stream.read(8))[0] / 1e9

"""


class SettableClock:
    """The clock of the processes that are started from now on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None or sys.platform != "linux":
            pytest.skip("no clock can be set here: that takes Linux and a C compiler (apt-get install gcc libc6-dev)")
        library = folder / "settable_clock.so"
        source = Path(__file__).with_name("settable_clock.c")
        made = subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"no clock can be set here: {made.stderr.strip().splitlines()[-1:]}")
        self.path = folder / "clock"
        self.path.write_bytes(bytes(8))
        monkeypatch.setenv("OPENSCOPE_TEST_CLOCK", str(self.path))
        monkeypatch.setenv("LD_PRELOAD", str(library))

    def set(self, seconds: float) -> None:
        """Set the clock by so much from the true time, for all at once."""
        with open(self.path, "r+b", buffering=0) as stream:
            stream.write(struct.pack("=q", round(seconds * 1e9)))


def disorder(log: list[Any]) -> list[str]:
    """Return the records that are older than the one before, but for those that say that the clock was set back."""
    pairs = itertools.pairwise(log)
    return [
        f"{later.timestamp} {later.logger} {later.message}"
        for earlier, later in pairs
        if later.timestamp < earlier.timestamp
        and not (later.logger == "pytest_openscope.clock" and "set back" in later.message)
    ]
