"""The kinds of acquisition: which adapter a ``launcher`` names, and what can be said of it before a session starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..config import ADAPTERS, Settings
from ..records import ConfigurationError, Mistake
from .adapter import Adapter, Finding, Given, Task, mistake, typed
from .bonsai import BonsaiAdapter
from .commands import CommandAdapter, PythonAdapter
from .matlab import MatlabAdapter
from .spec import AcquisitionSpec

Parameters = Mapping[str, Any]

#: Our own kinds; others come from the entry point group :data:`.ADAPTERS`.
_OWN: dict[str, type[Adapter]] = {
    adapter.kind: adapter for adapter in (PythonAdapter, CommandAdapter, BonsaiAdapter, MatlabAdapter)
}
#: Limits, which each of several acquisitions may have for itself, too: key, and the fields that it sets.
_LIMITS = {
    "acquisition_timeout_s": ("timeout_s",),
    "process_start_timeout_sec": ("process_start_timeout_s",),
    "acquisition_error_terminate": ("stderr_fails",),
    "acquisition_error_grace_period_sec": ("stderr_grace_s", "fatal_grace_s"),
    "acquisition_echo": ("echo",),
    "stop_graceful_s": ("graceful_s",),
    "stop_terminate_s": ("terminate_s",),
    "stop_kill_s": ("kill_s",),
}


def default_spec(settings: Settings) -> AcquisitionSpec:
    """Return the limits, the stop policy and the like that the parameters set, for every acquisition of the session."""
    return _limited(AcquisitionSpec(), settings, _LIMITS)


def _limited(base: AcquisitionSpec, settings: Settings, keys: Iterable[str]) -> AcquisitionSpec:
    fields = {field: getattr(settings, key) for key in keys for field in _LIMITS[key]}
    stop = {field: fields.pop(field) for field in vars(base.stop) if field in fields}
    return replace(base, stop=replace(base.stop, **stop), **fields)


def kind_of(parameters: Parameters) -> str:
    """Return the kind that the parameters name; ``base`` when they name none."""
    return str(parameters.get("launcher") or "base").strip().lower()


def adapter_of(task: Task) -> Adapter:
    """Return the adapter of the task's kind.

    Raises:
        ConfigurationError: there is no such kind, or its package cannot be loaded.
    """
    kind = kind_of(task.parameters)
    if kind == "base":
        return Given(None)
    if kind in _OWN:
        return _OWN[kind](task)
    for point in entry_points(group=ADAPTERS):
        if point.name.lower() == kind:
            try:
                found = point.load()
            except Exception as error:
                problem = f"the adapter of launcher {kind!r}, {point.value}, cannot be loaded: {type(error).__name__}: {error}"
                raise mistake("launcher", problem, "mend or reinstall the package that brings it") from error
            if not (isinstance(found, type) and issubclass(found, Adapter)):
                raise mistake("launcher", f"{point.value} is no Adapter", "derive it from pytest_openscope.Adapter")
            return found(task)
    raise mistake("launcher", f"there is no launcher {kind!r}", "install the package that brings it, or use another one")


@dataclass(frozen=True)
class Described:
    """One acquisition that parameters describe: they alone, or one entry of ``acquisitions`` laid over them.

    ``path`` stands before its keys in messages.
    """

    parameters: Parameters
    own: Parameters = field(default_factory=dict)
    name: str = ""
    background: bool = False
    path: str = ""


def acquisitions_of(parameters: Parameters) -> list[Described]:
    """Return the acquisitions that parameters describe, in the order of their start."""
    entries = parameters.get("acquisitions")
    if not entries:
        return [Described(parameters)]
    common = {key: value for key, value in parameters.items() if key not in ("acquisitions", "acquisition_stop_order")}
    return [described(entry, common, f"acquisitions.{index}.") for index, entry in enumerate(entries)]


def described(entry: Parameters, common: Parameters | None = None, path: str = "") -> Described:
    """Return what one entry describes."""
    own = {key: value for key, value in entry.items() if key not in ("name", "background")}
    return Described({**(common or {}), **own}, own, str(entry.get("name") or ""), entry.get("background") is True, path)


def limits(own: Parameters, defaults: AcquisitionSpec) -> AcquisitionSpec:
    """Return the defaults with the limits that an entry sets for itself.

    Raises:
        ConfigurationError: a limit does not fit.
    """
    given = {key: own[key] for key in _LIMITS if own.get(key) is not None}
    return _limited(defaults, typed(given), given)


def describe_command(parameters: Parameters, session_folder: Path) -> str:
    """Return in one line what would run, for the log of a dry run.

    Raises:
        ConfigurationError: the key that says what to run is missing, or has a form that cannot be used.
    """
    return "; ".join(adapter_of(Task(one.parameters, session_folder)).describe() for one in acquisitions_of(parameters))


def runs_nothing(parameters: Parameters) -> bool:
    """Tell whether no acquisition is described at all."""
    return all(kind_of(one.parameters) == "base" for one in acquisitions_of(parameters))


def check_parameters(
    parameters: Parameters,
    dry_run: bool,
    where: str = "parameters",
    unknown: list[Mistake] | None = None,
    warnings: list[Mistake] | None = None,
) -> list[Mistake]:
    """Return what would keep the acquisition from starting: a script, an interpreter or a program that is not there.

    Args:
        parameters: merged; placeholders of the session may still be in them.
        dry_run: no programs are needed; what is the experiment's own is looked at all the same.
        where: what gave the parameters, for the mistakes.
        unknown, warnings: get the findings of these severities (:class:`.Finding`).
    """
    targets: dict[str, list[Mistake]] = {"error": []}
    targets["unknown"] = targets["error"] if unknown is None else unknown
    targets["warning"] = [] if warnings is None else warnings
    for one in acquisitions_of(parameters):
        for finding in _findings(one, dry_run):
            # What stands above the list is named as it stands there.
            key = f"{one.path}{finding.key}" if finding.key in one.own or finding.key not in parameters else finding.key
            targets[finding.severity].append(Mistake(where, finding.problem, finding.remedy, key))
    return targets["error"]


def _findings(one: Described, dry_run: bool) -> list[Finding]:
    try:
        adapter = adapter_of(Task(one.parameters, defaults=limits(one.own, AcquisitionSpec())))
        adapter.spec()
        return list(adapter.check(dry_run))
    except ConfigurationError as error:
        return [Finding(wrong.problem, wrong.remedy, wrong.key) for wrong in error.mistakes]
