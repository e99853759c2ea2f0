"""The ready-made steps by name, and where a step of any name is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from ..records import Phase
from .behavior_videos_flatten import behavior_videos_flatten
from .disk_space_check import disk_space_check
from .instrument_json_fetch import instrument_json_fetch
from .metadata_fetch import metadata_procedures_fetch, metadata_subject_fetch
from .metadata_validators import metadata_project_validator, metadata_protocol_validator
from .mouse_weight import mouse_weight_post_prompt, mouse_weight_pre_prompt
from .notes import experiment_notes_editor, experiment_notes_finalize, experiment_notes_post_prompt
from .other_steps import OtherStep, OwnSteps, launcher_step
from .parameters import StepParameters
from .session_archiver import session_archiver
from .session_creator import session_creator
from .session_enhancer_bonsai import session_enhancer_bonsai
from .wait_for_user_input import wait_for_user_input
from .zmq_ready import zmq_ready_publisher, zmq_ready_waiter


@dataclass(frozen=True)
class ReadyMade:
    """A step that comes with the package: its function, called with the context and its ``parameters``, and their model."""

    run: Callable[..., Any]
    model: type[StepParameters]


_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    behavior_videos_flatten,
    disk_space_check,
    experiment_notes_editor,
    experiment_notes_finalize,
    experiment_notes_post_prompt,
    instrument_json_fetch,
    metadata_procedures_fetch,
    metadata_project_validator,
    metadata_protocol_validator,
    metadata_subject_fetch,
    mouse_weight_post_prompt,
    mouse_weight_pre_prompt,
    session_archiver,
    session_creator,
    session_enhancer_bonsai,
    wait_for_user_input,
    zmq_ready_publisher,
    zmq_ready_waiter,
)
#: What a pipeline can name as ``launcher_module``, and the model of its parameters.
READY_MADE: Mapping[str, ReadyMade] = {run.__name__: ReadyMade(run, get_type_hints(run)["parameters"]) for run in _FUNCTIONS}
#: Called by the module contract, as a lab's own steps are.
EXAMPLES = {
    f"example_{phase}_module": OtherStep("this package", f"{__package__}.examples", f"run_{phase}")
    for phase in (Phase.PRE_ACQUISITION, Phase.POST_ACQUISITION)
}


def find_step(name: str, phase: Phase, own_steps: OwnSteps) -> ReadyMade | OtherStep | None:
    """Return the step of a name: the rig's own, a ready-made one, or one of an installed launcher."""
    return own_steps.find(name) or READY_MADE.get(name) or EXAMPLES.get(name) or launcher_step(name, phase)


def known_names(own_steps: OwnSteps) -> list[str]:
    """Return the names of all steps but the launcher's."""
    return [*READY_MADE, *EXAMPLES, *own_steps.names()]
