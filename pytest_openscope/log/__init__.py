"""The session log: taking, writing, reading and masking records."""

from __future__ import annotations

from .lines import Damage, LogEntry, LogFollower, encode_batch, head, last_lines, read_log, read_next
from .masking import REFERENCE, ExactMasker, collect_secrets, is_secret_key, mask_json, mask_text, weak_secret_keys
from .secret_shapes import MASK
from .session_log import CLOCK_LOGGER, SessionLog
from .writer import LogWriter, repair_tail

__all__ = [
    "CLOCK_LOGGER",
    "MASK",
    "REFERENCE",
    "Damage",
    "ExactMasker",
    "LogEntry",
    "LogFollower",
    "LogWriter",
    "SessionLog",
    "collect_secrets",
    "encode_batch",
    "head",
    "is_secret_key",
    "last_lines",
    "mask_json",
    "mask_text",
    "read_log",
    "read_next",
    "repair_tail",
    "weak_secret_keys",
]
