"""Running the entries of a parameter file's pipelines, and finding their mistakes before anything runs.

The module contract stands in ``docs/reference/modules.md``. The session uses :func:`check_entries` while it is configured,
and :func:`run_entry` for each step.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from ..config import PipelineEntry
from ..records import Mistake
from .calls import call, call_with
from .context import ModuleContext
from .failures import ModuleFailed
from .other_steps import OtherStep, OwnSteps, defined_names, find_function
from .parameters import limit_s, parameters_of, read_parameters, unused
from .ready_made import READY_MADE, find_step
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
        elif dry_run and (elsewhere or _is_foreign(entry.module_path)) and _why_missing(entry, repository, folders):
            problem = f"{entry.module_path} is not on this computer"
            unknown.append(Mistake(entry.where, problem, "clone the repository to local_repository_path", "module_path"))
        elif not elsewhere or (repository is not None and repository.is_dir()):
            mistakes.extend(_check_script(entry, repository, folders))
    return mistakes


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
        known = [*READY_MADE, *own_steps.names()]
        remedy = f"{_guess(name, known)}; steps of the lab's own are named in modules of the rig file"
        mistake = Mistake(entry.where, f"there is no step {name!r} in this version", remedy, "module_path")
        (mistakes if _is_slip(name, known) else unknown).append(mistake)
    elif isinstance(step, OtherStep):
        if problem := step.problem(entry.phase):
            mistakes.append(Mistake(entry.where, f"{name}: {problem}", f"mend {step.origin}", "module_path"))
    elif step.model is not None:
        read, found = read_parameters(step.model, parameters, entry.parameters)
        for one in found:
            mistakes.append(Mistake(entry.where, one.problem, one.remedy, _key_of(entry, one.key)))
        told = [one.key for one in found] + [one.remedy.removeprefix("did you mean ").rstrip("?") for one in found]
        for key, remedy in read.missing():
            if key not in told:
                target = unknown if key in step.model.of_the_rig else mistakes
                target.append(Mistake(entry.where, "is missing", remedy, f"module_parameters.{key}"))
    elif step.problems is not None:
        remedy = f"see {name} in the reference of ready-made modules"
        for key, problem in step.problems(entry.parameters):
            mistakes.append(Mistake(entry.where, problem, remedy, f"module_parameters.{key}"))


def _key_of(entry: PipelineEntry, key: str) -> str:
    """Return the place of a step's parameter: in its entry, or among the session's parameters."""
    return f"module_parameters.{key}" if key.partition(".")[0] in entry.parameters else f"(parameters) {key}"


def limit_of(entry: PipelineEntry) -> float | None:
    """Return the longest run of a step, in s: ``timeout_s`` of the entry, or of a ready-made step's parameters."""
    step = READY_MADE.get(entry.module_path) if entry.module_type == "launcher_module" else None
    if entry.timeout_s is not None or step is None or step.model is None:
        return entry.timeout_s
    given_s = limit_s(step.model, entry.parameters)
    return None if given_s is None else given_s + _LIMIT_MARGIN_S


def _why_missing(entry: PipelineEntry, repository: Path | None, folders: Sequence[Path]) -> str:
    """Return where a script was looked for in vain; "" where it was found."""
    try:
        find_script(entry.module_path, repository, folders)
    except ScriptNotFound as missing:
        return str(missing)
    return ""


def _is_foreign(path: str) -> bool:
    """Tell whether a path is one of a Windows computer, and this is none."""
    return sys.platform != "win32" and bool(PureWindowsPath(path).drive)


def _is_slip(name: str, known: Iterable[str]) -> bool:
    """Tell whether a name is a slip of the pen away from that of a known step."""
    return bool(difflib.get_close_matches(name, known, n=1, cutoff=0.9))


def simulates(entry: PipelineEntry, context: ModuleContext) -> str | None:
    """Return what a step of a dry run would have done, or None when the step runs as it is.

    Simulated are: ready-made modules that need an operator, an editor, the network or free disk space; modules that this
    version does not have; those of the launcher; scripts that are not there; and entries with ``simulate_in_dry_run: true``.
    """
    if entry.module_type == "launcher_module":
        return _simulated_step(entry, context)
    calling = f"call {entry.function or f'run_{entry.phase}'} of {entry.module_path}"
    if context.parameters.get("simulate_in_dry_run"):
        return calling
    missing = _why_missing(entry, context.repository, context.folders)
    return f"{calling} ({missing})" if missing else None


def _simulated_step(entry: PipelineEntry, context: ModuleContext) -> str | None:
    name = entry.module_path
    step = find_step(name, entry.phase, context.own_steps)
    if step is None:
        guess = _guess(name, [*READY_MADE, *context.own_steps.names()])
        remark = f" ({guess})" if guess.startswith("did you mean") else ""
        return f"run the ready-made module {name!r}, which this version does not have{remark}"
    if isinstance(step, OtherStep):
        runs = step.runs_dry and not context.parameters.get("simulate_in_dry_run")
        return None if runs else f"run {name!r} of {step.origin}"
    if step.would is None:
        return None
    if step.model is None:
        return step.would(context.full_parameters)
    return step.would(read_parameters(step.model, context.full_parameters, entry.parameters)[0])


def run_entry(entry: PipelineEntry, context: ModuleContext) -> bool:
    """Run one step; False for one that a dry run simulates, which is logged instead.

    Raises:
        ModuleFailed: the step failed without an exception of its own.
        Exception: whatever the module raises, as it is.
    """
    simulated = simulates(entry, context) if context.dry_run else None
    if simulated is not None:
        context.logger.info("dry run: would %s", simulated)
        return False
    if entry.module_type != "launcher_module":
        _run_script(entry, context)
    else:
        run_step(entry, context)
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
        raise ModuleFailed(f"there is no step {name!r} ({_guess(name, [*READY_MADE, *context.own_steps.names()])})")
    if isinstance(step, OtherStep):
        context.logger.info("%s is a step of %s", name, step.origin)
        with step.loaded(entry.phase, context.scripts) as function:
            return call(function, context, entry.name, ready_made=True)
    if step.model is None:
        return call(step.run, context, entry.name, ready_made=True)
    for key in unused(step.model, entry.parameters):
        context.logger.warning("module_parameters.%s: %s does not know it", key, name)
    return step.run(context, parameters_of(step.model, context.full_parameters, entry.parameters))


def _run_script(entry: PipelineEntry, context: ModuleContext) -> None:
    try:
        script, remark = find_script(entry.module_path, context.repository, context.folders)
    except ScriptNotFound as missing:
        raise ModuleFailed(str(missing)) from missing
    if remark:
        context.logger.warning("%s", remark)
    try:
        with context.scripts.running(script) as module:
            function = find_function(module, _candidates(entry), str(script))
            context.logger.info("calling %s of %s", getattr(function, "__name__", "function"), script)
            if entry.function_args:
                call_with(function, entry.function_args, context)
            else:
                call(function, context, entry.name, ready_made=False)
    except SystemExit as leaving:  # while it was imported; a call's own is judged by call()
        raise ModuleFailed(f"{script} called sys.exit({leaving.code!r}) while it was imported") from leaving


def _candidates(entry: PipelineEntry) -> list[str]:
    """Names of a script's function, best first."""
    return [entry.function] if entry.function else [f"run_{entry.phase}", "run"]


def _check_script(entry: PipelineEntry, repository: Path | None, folders: Sequence[Path]) -> list[Mistake]:
    if "{" in entry.module_path or "$" in entry.module_path:
        return []  # known once the session has its name
    try:
        script, _ = find_script(entry.module_path, repository, folders)
    except ScriptNotFound as missing:
        remedy = "mend the path" if repository is None else "mend the path, or the repository and its commit"
        return [Mistake(entry.where, str(missing), remedy, "module_path")]
    try:
        names = defined_names(script)
    except (SyntaxError, ValueError, OSError) as error:
        return [Mistake(entry.where, f"{script} cannot be read as Python: {error}", "mend the script", "module_path")]
    wanted = _candidates(entry)
    if names is None or any(name.partition(".")[0] in names for name in wanted):
        return []
    remedy = _guess(wanted[0], sorted(names)) if names else "the script defines nothing"
    return [Mistake(entry.where, f"{script} has no function {' or '.join(wanted)}", remedy, "function")]


def _guess(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
