"""Rig checks as steps: their results are kept, and none holds up the suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .interrupts import StepExited, StepInterrupted
from .items import place_of

if TYPE_CHECKING:
    from .session import ExperimentSession


def register_recorder(session: ExperimentSession) -> Any:
    """Register what keeps the results of rig checks."""
    from ..checks import PLUGIN_NAME, CheckRecorder, RigChecks, keeper, read_results

    configuration, rig = session.configuration, session.configuration.rig

    @contextmanager
    def within(seconds: float, words: str) -> Iterator[None]:
        session.watchdog.arm("rig check", seconds, words)
        try:
            yield
        finally:
            session.watchdog.cancel("rig check")

    def not_run(item: pytest.Item, call: pytest.CallInfo[None]) -> bool:
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, (StepInterrupted, StepExited)):
            return True
        reason = session.gate.reason_to_skip(place_of(item)[0])
        return bool(reason) and isinstance(error, pytest.skip.Exception) and str(error) == reason

    name, notices = session.record.session_uuid, session.configuration_notices
    recorder = CheckRecorder(
        RigChecks(configuration, name, session.rig, notices=notices, within=within),
        None if session.dry_run else keeper(rig.state_directory, configuration.rig_file, rig.rig_id),
        known=lambda check: read_results(rig.state_directory, rig.rig_id).get(check),
        not_run=not_run,
        complete=session.validating and session.options.all_checks,
    )
    session.config.pluginmanager.register(recorder, PLUGIN_NAME)
    return recorder
