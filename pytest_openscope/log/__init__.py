"""The session log: taking, writing, reading and masking records."""

from __future__ import annotations

from .lines import Damage, LogEntry, LogFollower, encode_batch, head, last_lines, read_log, read_next
from .masking import REFERENCE, ExactMasker, collect_secrets, is_secret_key, mask_json, mask_text, weak_secret_keys
from .secret_shapes import MASK
from .session_log import CLOCK_LOGGER, SessionLog
from .writer import LogWriter, repair_tail
