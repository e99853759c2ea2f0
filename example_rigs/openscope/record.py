"""Stands for the camera's program on the second PC: writes one line per frame, in real time."""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--frame-rate-hz", type=float, default=30.0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with open(arguments.table, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["frame", "time_s"])
        for frame in range(1, arguments.frames + 1):
            time.sleep(max(0.0, start + frame / arguments.frame_rate_hz - time.monotonic()))
            writer.writerow([frame, f"{time.monotonic() - start:.4f}"])
    print(f"{arguments.frames} frames recorded", flush=True)


if __name__ == "__main__":
    main()
