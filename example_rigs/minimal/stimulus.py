"""Stands for the program that acquires: `python stimulus.py --trials 5 trials.csv`."""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--trials", type=int, default=5)
    arguments = parser.parse_args()
    with open(arguments.table, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["trial", "orientation_deg", "onset_s"])
        start = time.monotonic()
        for trial in range(1, arguments.trials + 1):
            writer.writerow([trial, (trial * 45) % 360, f"{time.monotonic() - start:.3f}"])
            print(f"trial {trial} of {arguments.trials}", flush=True)
            time.sleep(0.05)


if __name__ == "__main__":
    main()
