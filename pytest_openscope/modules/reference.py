"""Makes the tables of ``docs/reference/modules.md`` from the models of the ready-made steps.

``python -m pytest_openscope.modules.reference docs/reference/modules.md`` rewrites them in place.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..config import fill_tables
from .ready_made import READY_MADE

TABLES = {name: step.model for name, step in READY_MADE.items()}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(fill_tables(target.read_text(encoding="utf-8"), TABLES), encoding="utf-8", newline="\n")
