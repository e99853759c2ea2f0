"""Running the entries of a parameter file's pipelines, and finding their mistakes before anything runs.

The module contract stands in ``docs/reference/modules.md``. The session uses :func:`check_entries` while it is configured,
and :func:`run_entry` for each step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from ..config import PipelineEntry, has_placeholder, nearest
from ..records import Mistake
from .calls import call, call_with
from .context import ModuleContext
from .failures import ModuleFailed
from .other_steps import OtherStep, OwnSteps, guess
from .parameters import limit_s, parameters_of, read_parameters, unused
from .ready_made import READY_MADE, find_step, known_names
from .scripts import ScriptNotFound, find_script

#: What watches a step from outside waits a little longer than the step, which knows better what it waited for.
_LIMIT_MARGIN_S = 1.0


def check_entries(
    entries: Iterable[PipelineEntry],
    *,
    repository: Path | None = None,
    folders: Sequence[Path] = (),
    parameters: Mapping[str, Any] | None = None,
    own_steps: OwnSteps | None = None,
    dry_run: bool = False,
    elsewhere: bool = False,
    unknown: list[Mistake] | None = None,
) -> list[Mistake]:
    """Return what is wrong with the entries: unknown modules, wrong parameters, missing scripts and functions.

    A script is looked for where ``repository`` is a folder that exists or ``folders`` are given: a repository that is yet to
    be fetched cannot be checked.

    Args:
        parameters: of the session; a ready-made step takes from them what its entry does not give.
        own_steps: the steps that the rig names itself.
        elsewhere: the scripts come from a repository that a dry run need not have.
        unknown: gets what a dry run simulates because it cannot be known here: modules that this version does not have, and
            whose names are not one slip away from a ready-made one; what only the rig can give; scripts from elsewhere.
    """
    mistakes: list[Mistake] = []
    unknown = [] if unknown is None else unknown
    own_steps = own_steps or OwnSteps()
    for entry in entries:
        if entry.module_type == "launcher_module":
            _check_step(entry, own_steps, parameters or {}, mistakes, unknown if dry_run else mistakes)
        else:
            may_lack = dry_run and (elsewhere or _is_foreign(entry.module_path))
            is_at_hand = not elsewhere or (repository is not None and repository.is_dir())
            _check_script(entry, repository, folders, mistakes if is_at_hand else [], unknown if may_lack else None)
    return mistakes


def _check_script(
    entry: PipelineEntry,
    repository: Path | None,
    folders: Sequence[Path],
    mistakes: list[Mistake],
    unknown: list[Mistake] | None,
) -> None:
    """Add what is wrong with an entry's script; ``unknown`` gets one that is missing and may be."""
    if has_placeholder(entry.module_path):
        return  # known once the session has its name
    try:
        script, _ = _script_of(entry, repository, folders)
    except ScriptNotFound as missing:
        if unknown is not None:
            problem = f"{entry.module_path} is not on this computer"
            unknown.append(Mistake(entry.where, problem, "clone the repository to local_repository_path", "module_path"))
        else:
            remedy = "mend the path" if repository is None else "mend the path, or the repository and its commit"
            mistakes.append(Mistake(entry.where, str(missing), remedy, "module_path"))
    else:
        if problem := script.problem(entry.phase):
            mistakes.append(Mistake(entry.where, problem, "mend the script", "module_path"))


def _check_step(
    entry: PipelineEntry,
    own_steps: OwnSteps,
    parameters: Mapping[str, Any],
    mistakes: list[Mistake],
    unknown: list[Mistake],
) -> None:
    """Add what is wrong with an entry that names a step; ``unknown`` gets what cannot be known in a dry run."""
    name = entry.module_path
    step = find_step(name, entry.phase, own_steps)
    if step is None:
        known = known_names(own_steps)
        remedy = f"{guess(name, known)}; steps of the lab's own are named in modules of the rig file"
        mistake = Mistake(entry.where, f"there is no step {name!r} in this version", remedy, "module_path")
        (mistakes if nearest(name, known) else unknown).append(mistake)
    elif isinstance(step, OtherStep):
        if problem := step.problem(entry.phase):
            mistakes.append(Mistake(entry.where, f"{name}: {problem}", f"mend {step.origin}", "module_path"))
    else:
        read, found = read_parameters(step.model, parameters, entry.module_parameters)
        for one in found:
            # In its entry, or among the session's parameters.
            place = "module_parameters." if one.key.partition(".")[0] in entry.module_parameters else "(parameters) "
            mistakes.append(Mistake(entry.where, one.problem, one.remedy, place + one.key))
        told = [one.key for one in found] + [one.remedy.removeprefix("did you mean ").rstrip("?") for one in found]
        for key, remedy in read.missing():
            if key not in told:
                target = unknown if key in step.model.of_the_rig else mistakes
                target.append(Mistake(entry.where, "is missing", remedy, f"module_parameters.{key}"))


def limit_of(entry: PipelineEntry) -> float | None:
    """Return the longest run of a step, in s: ``timeout_s`` of the entry, or of a ready-made step's parameters."""
    step = READY_MADE.get(entry.module_path) if entry.module_type == "launcher_module" else None
    if entry.timeout_s is not None or step is None:
        return entry.timeout_s
    given_s = limit_s(step.model, entry.module_parameters)
    return None if given_s is None else given_s + _LIMIT_MARGIN_S


def _script_of(entry: PipelineEntry, repository: Path | None, folders: Sequence[Path]) -> tuple[OtherStep, str]:
    """Return the step that an entry's script is and, when it was not at its path, a sentence that says so.

    Raises:
        ScriptNotFound: it is nowhere.
    """
    script, remark = find_script(entry.module_path, repository, folders)
    return OtherStep("the repository", script, entry.function), remark


def _is_foreign(path: str) -> bool:
    """Tell whether a path is one of a Windows computer, and this is none."""
    return sys.platform != "win32" and bool(PureWindowsPath(path).drive)


def simulates(entry: PipelineEntry, context: ModuleContext) -> bool:
    """Tell whether a dry run leaves this step out, and log what it would have done.

    Left out are: ready-made steps; those that this version does not have; those of the launcher; scripts that are not there;
    and entries with ``simulate_in_dry_run: true``.
    """
    words = _simulated(entry, context) if context.dry_run else ""
    if words:
        context.logger.info("dry run: would %s", words)
    return bool(words)


def _simulated(entry: PipelineEntry, context: ModuleContext) -> str:
    name = entry.module_path
    wanted = bool(context.parameters.get("simulate_in_dry_run"))
    if entry.module_type != "launcher_module":
        calling = f"call {entry.function or f'run_{entry.phase}'} of {name}"
        try:
            find_script(name, context.repository, context.folders)
        except ScriptNotFound as missing:
            return calling if wanted else f"{calling} ({missing})"
        return calling if wanted else ""
    step = find_step(name, entry.phase, context.own_steps)
    if step is None:
        near = nearest(name, known_names(context.own_steps), 2)
        remark = f" (did you mean {near!r}?)" if near else ""
        return f"run the ready-made module {name!r}, which this version does not have{remark}"
    if isinstance(step, OtherStep):
        return f"run {name!r} of {step.origin}" if wanted or not step.runs_dry else ""
    return read_parameters(step.model, context.full_parameters, entry.module_parameters)[0].would()


def run_entry(entry: PipelineEntry, context: ModuleContext) -> bool:
    """Run one step; False for one that a dry run simulates, which is logged instead.

    Raises:
        ModuleFailed: the step failed without an exception of its own.
        Exception: whatever the module raises, as it is.
    """
    if simulates(entry, context):
        return False
    if entry.module_type == "launcher_module":
        run_step(entry, context)
    else:
        _run_script(entry, context)
    return True


def run_step(entry: PipelineEntry, context: ModuleContext) -> Any:
    """Run a step that is named, and return what it returns.

    Raises:
        ModuleFailed: there is no such step, its parameters are wrong, or it failed.
        Exception: whatever it raises, as it is.
    """
    name = entry.module_path
    step = find_step(name, entry.phase, context.own_steps)
    if step is None:
        raise ModuleFailed(f"there is no step {name!r} ({guess(name, known_names(context.own_steps))})")
    if isinstance(step, OtherStep):
        context.logger.info("%s is a step of %s", name, step.origin)
        with step.loaded(entry.phase, context.scripts) as function:
            return call(function, context, entry.name, ready_made=True)
    for key in unused(step.model, entry.module_parameters):
        context.logger.warning("module_parameters.%s: %s does not know it", key, name)
    return step.run(context, parameters_of(step.model, context.full_parameters, entry.module_parameters))


def _run_script(entry: PipelineEntry, context: ModuleContext) -> None:
    script, remark = _script_of(entry, context.repository, context.folders)
    if remark:
        context.logger.warning("%s", remark)
    with script.loaded(entry.phase, context.scripts) as function:
        context.logger.info("calling %s of %s", getattr(function, "__name__", "function"), script.place)
        if entry.function_args:
            call_with(function, entry.function_args, context)
        else:
            call(function, context, entry.name, ready_made=False)
