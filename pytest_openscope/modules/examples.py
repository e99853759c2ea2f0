"""Ready-made steps: the smallest ones there are, to copy from and to try a parameter file with."""

from __future__ import annotations

import json
import logging
from pathlib import Path


def run_pre_acquisition(param_file: str) -> int:
    """Read the parameter file and say for whom the step runs; 0 is success."""
    parameters = json.loads(Path(param_file).read_text(encoding="utf-8"))
    logging.getLogger(__name__).info("example pre-acquisition step for subject %s", parameters.get("subject_id"))
    return 0


def run_post_acquisition(param_file: str) -> int:
    """Read the parameter file and say for whom the step runs; 0 is success."""
    parameters = json.loads(Path(param_file).read_text(encoding="utf-8"))
    logging.getLogger(__name__).info("example post-acquisition step for subject %s", parameters.get("subject_id"))
    return 0
