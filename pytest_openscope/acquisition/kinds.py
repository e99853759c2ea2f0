"""The kinds of acquisition: which adapter a ``launcher`` names, and what can be said of it before a session starts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..config import ADAPTERS, Settings
from ..records import ConfigurationError, Mistake
from ..system import StopPolicy
from .adapter import Adapter, Task, mistake
from .spec import AcquisitionSpec

Parameters = Mapping[str, Any]

#: Our own kinds; others come from the entry point group :data:`.ADAPTERS`.
_OWN = {
    "python": ("commands", "PythonAdapter"),
    "command": ("commands", "CommandAdapter"),
    "bonsai": ("bonsai", "BonsaiAdapter"),
    "matlab": ("matlab", "MatlabAdapter"),
}


def default_spec(settings: Settings) -> AcquisitionSpec:
    """Return the limits, the stop policy and the like that the parameters set, for every acquisition of the session."""
    return AcquisitionSpec(
        timeout_s=settings.acquisition_timeout_s,
        process_start_timeout_s=settings.process_start_timeout_sec,
        stderr_fails=settings.acquisition_error_terminate,
        stderr_grace_s=settings.acquisition_error_grace_period_sec,
        fatal_grace_s=settings.acquisition_error_grace_period_sec,
        stop=StopPolicy(settings.stop_graceful_s, settings.stop_terminate_s, settings.stop_kill_s),
        echo=settings.acquisition_echo,
    )


def kind_of(parameters: Parameters) -> str:
    """Return the kind that the parameters name; ``base`` when they name none."""
    return str(parameters.get("launcher") or "base").strip().lower()


def adapter_of(task: Task) -> Adapter | None:
    """Return the adapter of the task's kind; None for ``base``, which runs nothing.

    Raises:
        ConfigurationError: there is no such kind, or its package cannot be loaded.
    """
    kind = kind_of(task.parameters)
    if kind == "base":
        return None
    if kind in _OWN:
        module, name = _OWN[kind]
        return _made(getattr(import_module(f".{module}", __package__), name), task)
    for point in entry_points(group=ADAPTERS):
        if point.name.lower() == kind:
            try:
                found = point.load()
            except Exception as error:
                problem = f"the adapter of launcher {kind!r}, {point.value}, cannot be loaded: {type(error).__name__}: {error}"
                raise mistake("launcher", problem, "mend or reinstall the package that brings it") from error
            if not (isinstance(found, type) and issubclass(found, Adapter)):
                raise mistake("launcher", f"{point.value} is no Adapter", "derive it from pytest_openscope.Adapter")
            return _made(found, task)
    raise mistake("launcher", f"there is no launcher {kind!r}", "install the package that brings it, or use another one")


def _made(adapter: type[Adapter], task: Task) -> Adapter:
    return adapter(task)


def build_spec(parameters: Parameters, session_folder: Path, defaults: AcquisitionSpec | None = None) -> AcquisitionSpec | None:
    """Return what to run for the merged and expanded parameters; None when the launcher kind runs nothing.

    Raises:
        ConfigurationError: the key that says what to run is missing, or has a form that cannot be used.
    """
    adapter = adapter_of(Task(parameters, session_folder, defaults or AcquisitionSpec()))
    return None if adapter is None else adapter.spec()


def describe_command(parameters: Parameters, session_folder: Path) -> str:
    """Return in one line what would run, for the log of a dry run.

    Raises:
        ConfigurationError: see :func:`build_spec`.
    """
    adapter = adapter_of(Task(parameters, session_folder))
    return "nothing (launcher: base)" if adapter is None else adapter.describe()


def check_parameters(
    parameters: Parameters,
    dry_run: bool,
    where: str = "parameters",
    unknown: list[Mistake] | None = None,
    warnings: list[Mistake] | None = None,
) -> list[Mistake]:
    """Return what would keep the acquisition from starting: a script, an interpreter or a program that is not there.

    A dry run needs no programs; what is the experiment's own is looked at in it too.

    Args:
        parameters: merged; placeholders of the session may still be in them.
        dry_run: nothing will be started.
        where: what gave the parameters, for the mistakes.
        unknown: gets what a dry run cannot know, since a repository that is not here or a drive of the rig has it.
        warnings: gets what is told and keeps nothing from starting.
    """
    try:
        adapter = adapter_of(Task(parameters))
        if adapter is None:
            return []
        adapter.spec()
        findings = list(adapter.check(dry_run))
    except ConfigurationError as error:
        return [Mistake(where, one.problem, one.remedy, one.key) for one in error.mistakes]
    targets: dict[str, list[Mistake]] = {"error": []}
    targets["unknown"] = targets["error"] if unknown is None else unknown
    targets["warning"] = [] if warnings is None else warnings
    for one in findings:
        targets[one.severity].append(Mistake(where, one.problem, one.remedy, one.key))
    return targets["error"]
