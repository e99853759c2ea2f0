"""A step of day1.json (a script_module); test_3_post_acquisition.py uses its function too."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def count(table: Path) -> int:
    with open(table, encoding="utf-8", newline="") as stream:
        return sum(1 for _ in csv.DictReader(stream))


def run_post_acquisition(params: dict[str, Any]) -> bool:
    """True is success, False is failure; an exception is one too."""
    if params["dry_run"]:
        log.info("a dry run acquires nothing")
        return True
    found = count(Path(params["output_session_folder"]) / "trials.csv")
    log.info("%d trials of %d", found, params["trials"])
    return bool(found == params["trials"])
