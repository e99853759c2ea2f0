"""Plain data: what a session did. Filled by the session, read by everything that reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from .phases import OnFailure, Outcome, Phase


@dataclass
class ChainedException:
    """One exception of a chain, without references to live objects.

    Attributes:
        type: qualified type name (``my_lab.errors.ShutterStuck``; builtins without module).
        message: ``str(exception)``.
        relation: how it leads to the one before it in the list: ``root``, ``cause``, ``context`` or ``group``.
        frames: ``[{"file", "line", "function", "module"}]``, outermost first.
        notes: the exception's ``__notes__``.
    """

    type: str
    message: str
    relation: str = "root"
    frames: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class AcquisitionFacts:
    """What is known of one acquisition process once it has ended (or was found dead).

    ``returncode`` is negative for a POSIX signal. ``stderr_tail``/``stdout_tail`` are the last decoded lines.
    ``peak_memory_mb`` is the larger of the main process's peak as the system counts it and the largest sum that samples of the
    tree saw; ``cpu_s`` likewise of the time that the system counted and that the samples saw.
    """

    name: str
    command: list[str] = field(default_factory=list)
    pid: int | None = None
    returncode: int | None = None
    duration_s: float | None = None
    peak_memory_mb: float | None = None
    peak_memory_main_mb: float | None = None
    peak_memory_tree_mb: float | None = None
    cpu_s: float | None = None
    cpu_counted_s: float | None = None
    cpu_sampled_s: float | None = None
    stdout_tail: list[str] = field(default_factory=list)
    stderr_tail: list[str] = field(default_factory=list)
    stop_reason: str = ""
    survivors: list[str] = field(default_factory=list)


@dataclass
class Failure:
    """One failure, JSON-safe.

    ``kind`` is ``exception`` (a step or fixture raised), ``step`` (a module reported failure without exception),
    ``acquisition`` (the acquisition process failed), ``timeout``, ``crash``, ``internal``, ``collection``, ``usage``
    (no step ran) or ``interrupt``.
    ``when`` is ``setup``, ``call`` or ``teardown`` ("" where no step was running). ``chain`` runs from the root cause to the
    exception that reached pytest. ``fingerprint`` is the one given by the user (exception note or hook), else "".
    """

    kind: str
    outcome: Outcome
    message: str
    exception_type: str = ""
    traceback: str = ""
    phase: Phase | None = None
    step: str = ""
    nodeid: str = ""
    when: str = ""
    at: str = ""
    chain: list[ChainedException] = field(default_factory=list)
    locals: list[dict[str, Any]] = field(default_factory=list)
    acquisition: AcquisitionFacts | None = None
    signal: str = ""
    faulthandler: str = ""
    fingerprint: str = ""


@dataclass
class StepRecord:
    """One step: a test, a pipeline entry, the acquisition, or a fixture's part before or after its ``yield``.

    ``attempts`` are those before the last one, which decides: ``attempt``, ``outcome``, ``message``, ``started``, ``ended``
    (ISO 8601), ``duration_s``.
    """

    name: str
    nodeid: str
    phase: Phase
    on_failure: OnFailure = OnFailure.ABORT
    kind: str = "test"
    outcome: Outcome | None = None
    skipped: str = ""
    started: str = ""
    duration_s: float = 0.0
    attempts: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Measurement:
    """A value with its limits; ``passed`` is False outside ``[minimum, maximum]``."""

    name: str
    value: Any
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    passed: bool = True
    step: str = ""

    @property
    def limits(self) -> str:
        """The limits, as a message shows them: ``[4.5, 5.5]``, ``at least 50``."""
        if self.maximum is None:
            return "" if self.minimum is None else f"at least {self.minimum}"
        return f"at most {self.maximum}" if self.minimum is None else f"[{self.minimum}, {self.maximum}]"

    @property
    def exceeded(self) -> str:
        """What is said of a value that did not pass: ``lamp_power = 2.5 mW is outside [4.5, 5.5]``."""
        how = "is not" if self.minimum is None or self.maximum is None else "is outside"
        return f"{self.name} = {self.value} {self.unit}".rstrip() + f" {how} {self.limits}"


@dataclass
class SessionRecord:
    """All that a session knows of itself; ``started``/``stopped`` are ISO 8601 with UTC offset.

    ``duration_s`` is measured, not their difference: the clock may have been set in between. ``clock_changes`` tells when it
    was: ``at``, ``set_by_s``, ``slept_s`` (the computer slept), ``text``.

    ``not_checked`` is what a dry run simulates because this computer cannot know it. ``session_sync`` is this node's part in a
    session over several PCs: ``role``, ``node`` (its name), ``bypassed``, and ``nodes``, what is known of each.
    """

    session_uuid: str
    subject_id: str | None
    user_id: str | None
    rig_id: str
    started: str
    dry_run: bool = False
    stopped: str | None = None
    duration_s: float | None = None
    steps: list[StepRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    attachments: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    operator_notes: str = ""
    acquisitions: list[AcquisitionFacts] = field(default_factory=list)
    deselected: list[str] = field(default_factory=list)
    simulated: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    helper_failures: list[str] = field(default_factory=list)
    clock_changes: list[dict[str, Any]] = field(default_factory=list)
    lost_records: int = 0
    exit_code: int | None = None
    readiness_override: dict[str, Any] | None = None
    continues: dict[str, Any] | None = None
    session_sync: dict[str, Any] | None = None

    def take(self, field: str, values: Iterable[Any]) -> None:
        """Add ``values`` to a list, or set another field to the last of them.

        Raises:
            AttributeError: there is no such field.
        """
        values = list(values)
        if isinstance(kept := getattr(self, field), list):
            kept.extend(values)
        elif values:
            setattr(self, field, values[-1])

    def take_attempt_back(self, step: StepRecord, attempt: dict[str, Any]) -> None:
        """Turn what a step did so far into one of its attempts: its failures are not the session's."""
        step.attempts.append(attempt)
        step.outcome, step.skipped = None, ""
        self.failures = [failure for failure in self.failures if failure.nodeid != step.nodeid]

    @property
    def outcome(self) -> Outcome:
        """The worst of the session: a failure's, or ``error`` when log records were lost or nothing ran."""
        worst = Outcome.PASSED
        for failure in self.failures:
            worst = worst.worse(failure.outcome)
        if self.lost_records or not any(step.outcome for step in self.steps):
            worst = worst.worse(Outcome.ERROR)
        return worst


_KINDS: dict[str, Any] = {"failures": Failure, "measurements": Measurement, "acquisitions": AcquisitionFacts}


def to_json(value: Any) -> Any:
    """Return a value of a field of :class:`SessionRecord` as the files have it; see :func:`from_json`."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def from_json(field: str, value: Any) -> Any:
    """Rebuild a value of a field of :class:`SessionRecord` from :func:`to_json`; unknown keys (a newer version's) are left out.

    Raises:
        TypeError, ValueError, KeyError: it is damaged.
    """
    kind = _KINDS.get(field)
    if kind is None:
        return value
    known = {one.name: value[one.name] for one in fields(kind) if one.name in value}
    if kind is Failure:
        facts = known.get("acquisition")
        known["outcome"] = Outcome(known.get("outcome", Outcome.ERROR))
        known["phase"] = Phase(known["phase"]) if known.get("phase") else None
        known["chain"] = [ChainedException(**link) for link in known.get("chain", [])]
        known["acquisition"] = AcquisitionFacts(**facts) if facts else None
    return kind(**known)


def failures_in(debug_state: Mapping[str, Any]) -> list[Failure]:
    """Rebuild the failures that a ``debug_state.json`` describes, the first one first; damaged ones are left out."""
    found = []
    for data in [debug_state.get("failure"), *(debug_state.get("other_failures") or [])]:
        try:
            found.append(from_json("failures", data))
        except (TypeError, ValueError, KeyError, AttributeError):
            continue
    return found
