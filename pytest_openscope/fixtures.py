"""What an experimenter may ask for: ``rig``, ``experiment``, ``acquisition``, ``devices``, ``operator``,
``steps``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, cast

import pytest
from typing_extensions import TypeVar

from .records import Failure, Measurement, Outcome
from .session import acquisition_of, devices_of, session_of, steps_of

if TYPE_CHECKING:
    from .acquisition import Acquisition
    from .config import Rig
    from .devices import Devices
    from .modules import Steps
    from .session import ExperimentSession, Operator


class LimitsExceeded(AssertionError):  # noqa: N818 - it says what happened
    """A measured value lies outside its limits."""


ParametersT = TypeVar("ParametersT", default=dict[str, Any])


class Experiment(Generic[ParametersT]):
    """The running session, for steps.

    With ``parameters_model`` in the parameter file, ``experiment.parameters`` is the lab's own model; annotate
    ``experiment: Experiment[MyParameters]`` to have it typed.

    Attributes:
        session_folder: where the data go.
        session_uuid, subject_id, user_id, rig_id: the ids; ``session_uuid`` is the folder's name.
        parameters: merged and expanded parameters; with ``parameters_model`` the experiment's own ones as that model.
        dry_run: True when nothing real may be touched.
    """

    def __init__(self, session: ExperimentSession) -> None:
        self._session = session
        record = session.record
        self.session_folder: Path = session.folder
        self.session_uuid = record.session_uuid
        self.subject_id = record.subject_id
        self.user_id = record.user_id
        self.rig_id = record.rig_id
        own = session.own_parameters
        self.parameters = cast("ParametersT", session.parameters if own is None else own)
        self.dry_run = session.dry_run

    def __repr__(self) -> str:
        return f"<Experiment {self.session_uuid}>"

    @property
    def outcome(self) -> Outcome:
        """The worst that has happened so far; ``passed`` while all is well."""
        worst = Outcome.PASSED
        for failure in self._session.record.failures:
            worst = worst.worse(failure.outcome)
        return worst

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What has failed so far, first failure first."""
        return tuple(self._session.record.failures)

    def note(self, text: str) -> None:
        """Keep a note in the session log and in ``end_state.json``."""
        self._session.note(text)

    def attach(self, path: str | Path) -> Path:
        """Register a file of the session folder as one of its results; one from elsewhere is copied to ``attachments/``.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self._session.attach(Path(path))

    def progress(self, done: float, total: float | None = None, unit: str = "") -> None:
        """Show on the terminal how far the running step is; cheap enough for every frame.

        Args:
            done: how much is done.
            total: how much there is to do; without, no bar is drawn.
            unit: what is counted: ``"frames"``; ``"bytes"`` are shown as kB, MB, GB.
        """
        self._session.show_progress(done, total, unit)

    def measure(self, name: str, value: Any, unit: str = "", minimum: float | None = None, maximum: float | None = None) -> Any:
        """Record a value; outside ``[minimum, maximum]`` the step fails. Returns the value.

        Raises:
            LimitsExceeded: the value lies outside its limits, or is not a number where limits are given.
        """
        comparable = passed = True
        if minimum is not None or maximum is not None:
            try:
                passed = (minimum is None or value >= minimum) and (maximum is None or value <= maximum)
            except TypeError:
                comparable = passed = False
        measurement = Measurement(name, value, unit, minimum, maximum, passed)
        self._session.measured(measurement)
        if not comparable:
            raise LimitsExceeded(f"{name} is {value!r}, not a number (allowed: {measurement.limits})")
        if not passed:
            raise LimitsExceeded(measurement.exceeded)
        return value


@pytest.fixture(scope="session")
def rig(request: pytest.FixtureRequest) -> Rig:
    """The rig's validated configuration; the lab's own values by key: ``rig["COM_port"]``, ``rig["camera.exposure_time"]``."""
    return session_of(request.config).rig


@pytest.fixture(scope="session")
def experiment(request: pytest.FixtureRequest) -> Experiment:
    """The running session: folder, ids, parameters, ``note``, ``attach``, ``measure``, ``progress``, ``outcome`` and more."""
    return Experiment(session_of(request.config))


@pytest.fixture(scope="session")
def acquisition(request: pytest.FixtureRequest) -> Acquisition:
    """Runs the acquisition program: ``acquisition.run(command=[...])`` or ``with acquisition.running(command=[...])``."""
    return acquisition_of(session_of(request.config))


@pytest.fixture(scope="session")
def operator(request: pytest.FixtureRequest) -> Operator:
    """The person at the rig: ``operator.ask("Weight in g?")``, ``operator.confirm("Shutter closed?")``."""
    return session_of(request.config).operator


@pytest.fixture(scope="session")
def devices(request: pytest.FixtureRequest) -> Devices:
    """The rig's devices by name, each opened when first asked for: ``devices["laser"]``; simulated in a dry run."""
    return devices_of(session_of(request.config))


@pytest.fixture(scope="session")
def steps(request: pytest.FixtureRequest) -> Steps:
    """The ready-made steps by name: ``steps.disk_space_check(required_free_gb=10)``; simulated in a dry run."""
    return steps_of(session_of(request.config))
