"""The ready-made steps by name, and where a step of any name is found."""

from __future__ import annotations

from collections.abc import Mapping

from ..records import Phase
from . import (
    behavior_videos_flatten,
    disk_space_check,
    examples,
    instrument_json_fetch,
    metadata_fetch,
    metadata_validators,
    mouse_weight,
    notes,
    session_archiver,
    session_creator,
    session_enhancer_bonsai,
    wait_for_user_input,
    zmq_ready,
)
from .other_steps import OtherStep, OwnSteps, launcher_step
from .parameters import ReadyMade

#: What a pipeline can name as ``launcher_module``.
READY_MADE: Mapping[str, ReadyMade] = {
    **behavior_videos_flatten.STEPS,
    **disk_space_check.STEPS,
    **examples.STEPS,
    **instrument_json_fetch.STEPS,
    **metadata_fetch.STEPS,
    **metadata_validators.STEPS,
    **mouse_weight.STEPS,
    **notes.STEPS,
    **session_archiver.STEPS,
    **session_creator.STEPS,
    **session_enhancer_bonsai.STEPS,
    **wait_for_user_input.STEPS,
    **zmq_ready.STEPS,
}


def find_step(name: str, phase: Phase, own_steps: OwnSteps) -> ReadyMade | OtherStep | None:
    """Return the step of a name: the rig's own, a ready-made one, or one of an installed launcher."""
    return own_steps.find(name) or READY_MADE.get(name) or launcher_step(name, phase)
