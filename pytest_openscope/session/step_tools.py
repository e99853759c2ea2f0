"""Makes what steps use, when it is first asked for, and joins it to the session: acquisition, devices, module contexts."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..acquisition import Acquisition, default_spec, parse_fault
from ..log import mask_json
from ..records import Measurement, Phase
from .operator import real_descriptor

if TYPE_CHECKING:
    from ..config import PipelineEntry
    from ..devices import Devices
    from ..modules import ModuleContext, OwnSteps, Steps
    from .state import SessionState


class NotAfterCrash(RuntimeError):  # noqa: N818 - it says what is the matter
    """A step of post-acquisition asks for hardware after the session's process has died."""


def acquisition_of(session: SessionState) -> Acquisition:
    """Return what runs acquisition programs, made when first asked for.

    Raises:
        NotAfterCrash: the session's process has died, and only its post-acquisition is made up for.
    """
    if session.resuming:
        raise NotAfterCrash("nothing is acquired after a crash: this step needs 'acquisition'")
    if session.acquisition is None:
        session.acquisition = _make_acquisition(session)
    session.acquisition.attempt = session.attempt
    return session.acquisition


def devices_of(session: SessionState) -> Devices:
    """Return the rig's devices, made when first asked for; none is open yet.

    Raises:
        NotAfterCrash: the session's process has died, and only its post-acquisition is made up for.
    """
    if session.resuming:
        raise NotAfterCrash("there are no devices after a crash: this step needs 'devices' -> do without after_crash=True")
    if session.devices is None:
        session.devices = _make_devices(session)
    devices: Devices = session.devices
    return devices


def _make_acquisition(session: SessionState) -> Acquisition:
    faults = session.options.acquisition_faults
    joint = _AcquisitionJoint(session)
    return Acquisition(
        session.folder,
        joint.take_output,
        joint.take_event,
        defaults=default_spec(session.settings),
        dry_run=session.dry_run,
        fault=parse_fault(faults[0]) if faults else None,
        on_ended=partial(session.keep, "acquisitions"),
        echo=joint.echo,
        services={"ask": joint.ask, "save": joint.save, "notice": lambda text: session.tell([text])},
    )


class _AcquisitionJoint:
    """What acquisition programs say, for the session's log, journal and terminal."""

    def __init__(self, session: SessionState) -> None:
        self._session = session

    def take_output(self, source: str, lines: Sequence[bytes], raw_from: int, raw_to: int) -> int:
        if lines:
            self._session.last_output = (source, lines[-1])
        return self._session.log.write_output(f"acquisition.{source}", lines)

    def take_event(self, event: str, **fields: Any) -> None:
        session = self._session
        if event == "acquisition_finished":
            session.last_output = None
        if event == "acquisition_batch":
            fields["log_size"] = session.log.size
        elif event in ("acquisition_starting", "acquisition_started"):
            fields["command"] = mask_json(fields["command"], session.secrets)
        session.journal.write(event, **fields)

    def ask(self, question: str, choices: Sequence[str], default: str) -> str | None:
        """Return what the operator chooses, by a word or its first letter; None when nobody can be asked."""
        operator = self._session.operator
        if not operator.available:
            return None
        try:
            return operator.ask(question, default, choices=choices)
        except EOFError:
            return None

    def save(self, name: str, content: Any) -> None:
        """Write a JSON file beside the session's own; another one of that name is not written over by another acquisition."""
        session = self._session
        session.guard(f"writing {name}", lambda: session.save(name, mask_json(content, session.secrets)))

    def echo(self, stream: str, lines: Sequence[bytes]) -> None:
        with contextlib.suppress(OSError):
            os.write(real_descriptor(self._session.config, 1), b"\n".join([*lines, b""]))


def _make_devices(session: SessionState) -> Devices:
    rig = session.rig
    from ..devices import Devices, build_specs, parse_injections

    faults, _ = parse_injections(session.options.device_faults, list(rig.devices))
    return Devices(
        build_specs(rig.devices),
        rig_dir=rig.path.parent,
        dry_run=session.dry_run,
        injections=faults if session.dry_run else (),
        on_event=session.journal.write,
        on_open=session.rig_watch.devices_opened if session.rig_watch is not None else None,
        watch=session.watchdog,
    )


def own_steps_of(session: SessionState) -> OwnSteps:
    """Return the steps that the rig names itself, looked for once in a session."""
    if session.own_steps is None:
        from ..modules import OwnSteps

        session.own_steps = OwnSteps(session.rig.modules, session.rig.path.parent)
    found: OwnSteps = session.own_steps
    return found


def steps_of(session: SessionState) -> Steps:
    """Return the ready-made steps of the session, for steps and fixtures in Python."""

    def phase() -> Phase:
        now = session.record.steps[-1].phase if session.record.steps else Phase.PRE_ACQUISITION
        return Phase.PRE_ACQUISITION if now is Phase.ACQUISITION else now

    from ..modules import Steps

    return Steps(
        partial(module_context_of, session),
        phase=phase,
        own_steps=own_steps_of(session),
        expand=session.configuration.expander(session.record.session_uuid, session.folder),
        on_simulated=partial(session.keep, "simulated"),
    )


def module_context_of(session: SessionState, entry: PipelineEntry) -> ModuleContext:
    """Return what a pipeline step may use; the placeholders of its entry are replaced already."""
    if session.scripts is None:
        from ..modules import ScriptImports

        session.scripts = ScriptImports()

    def record(name: str, value: Any, unit: str = "", **limits: Any) -> None:
        session.measured(Measurement(name, value, unit, **limits))

    from ..modules import ModuleContext

    return ModuleContext(
        parameters={**session.parameters, **entry.module_parameters},
        session_folder=session.folder,
        repository=session.repository,
        folders=tuple(session.configuration.script_folders),
        dry_run=session.dry_run,
        no_input=not session.operator.available,
        operator=session.operator,
        logger=logging.getLogger(f"pytest_openscope.modules.{entry.name}"),
        note=session.note,
        record=record,
        attach=session.attach,
        progress=session.show_progress,
        set_experiment_notes=partial(session.keep, "operator_notes"),
        own_steps=own_steps_of(session),
        scripts=session.scripts,
    )
