"""Steps of stimulus.json: which trial shows what, and whether Bonsai showed them all."""

from __future__ import annotations

import csv
import logging
import random
from pathlib import Path

log = logging.getLogger(__name__)


def make_table(trials: int, seed: int, output_path: str) -> None:
    """Every fourth trial or so is an oddball; the same seed gives the same table."""
    chance = random.Random(seed)
    with open(output_path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["trial", "orientation_deg", "oddball"])
        for trial in range(1, trials + 1):
            oddball = chance.random() < 0.25
            writer.writerow([trial, 90 if oddball else 0, int(oddball)])
    log.info("%d trials in %s", trials, Path(output_path).name)


def count_events(events_path: str) -> bool:
    """Tell whether Bonsai has written what it showed."""
    lines = Path(events_path).read_text(encoding="utf-8").splitlines()
    log.info("%d lines in %s", len(lines), Path(events_path).name)
    return bool(lines)
