"""Stands in for the program that records: works, holds memory and tells of its frames for as many seconds as it is given."""

from __future__ import annotations

import sys
import time

seconds, frames_per_s = float(sys.argv[1]), 30
held: list[bytearray] = []
begun = time.monotonic()
for number in range(int(seconds * frames_per_s)):
    held.append(bytearray(b"x" * 300_000))
    del held[: max(0, len(held) - 240)]
    sum(range(700_000))
    if number % frames_per_s == 0:
        print(f"frame {number} at {number / frames_per_s:.0f} s, exposure 33.0 ms", flush=True)
    if number == int(seconds * frames_per_s * 0.7):
        print("frame buffer was full for 412 ms: 13 frames dropped", file=sys.stderr, flush=True)
    time.sleep(max(0.0, begun + number / frames_per_s - time.monotonic()))
