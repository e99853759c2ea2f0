"""What a session knows and leaves behind."""

from __future__ import annotations

from .failures import ConfigurationError, Mistake, failure_from_exception, noted_fingerprint
from .folder import METADATA, create_session_folder, is_folder_name, is_reserved, name_problem, safe_name, session_name
from .inbox import hand_over, take
from .journal import JOURNAL, RESCUE_JOURNAL, WITNESS_JOURNAL, Journal, JournalReader, boot_is_same, drop_empty_spare
from .phases import Gate, OnFailure, Outcome, Phase
from .record import (
    AcquisitionFacts,
    ChainedException,
    Failure,
    Measurement,
    SessionRecord,
    StepRecord,
    failures_in,
    from_json,
    to_json,
)
from .revisions import describe_repository, freeze, git_revisions, installed_versions, package_revisions
from .snapshot import DEBUG_STATE, END_STATE, debug_state, end_state, json_safe
