"""The ready-made validation of a rig: ``pytest --rig-config rig.yaml --validate-rig``."""

from __future__ import annotations

from .changes import compare, describe_rig, keep_last_good, last_good
from .measure import TIMEOUT_S
from .readiness import evaluate, expanded_block
from .recorder import PLUGIN_NAME, CheckRecorder
from .suite import RigChecks, things_of
