"""The helper process: mirror, witness, resource samples, outbox."""

from __future__ import annotations

from .alerts import check_alerts
from .link import SidecarClient, start_finisher
from .notes import crashed, mark_unfinished
from .otel import check_otel
from .reconstruct import SessionView, is_running, running_sessions
from .recovery import finish_dead, recover, reopen
from .reports import LateAnswers
from .rescue import add_to_states, is_owed, run_unreached, unreached_steps
