"""Running the entries of a parameter file's pipelines, and finding their mistakes before anything runs.

The module contract stands in ``docs/reference/modules.md``. The session uses :func:`check_entries` while it is configured,
and :func:`run_entry` for each step.
"""

from __future__ import annotations

import ast
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from types import ModuleType
from typing import Any

from ..config import PipelineEntry
from ..records import Mistake
from . import disk_space_check, examples, mouse_weight, notes, session_archiver, wait_for_user_input
from .calls import call, call_with
from .context import ModuleContext, ModuleFailed, ReadyMade
from .scripts import ScriptNotFound, find_script

#: What a pipeline can name as ``launcher_module``.
READY_MADE: Mapping[str, ReadyMade] = {
    **disk_space_check.STEPS,
    **examples.STEPS,
    **mouse_weight.STEPS,
    **notes.STEPS,
    **session_archiver.STEPS,
    **wait_for_user_input.STEPS,
}


def check_entries(
    entries: Iterable[PipelineEntry],
    *,
    repository: Path | None = None,
    folders: Sequence[Path] = (),
    dry_run: bool = False,
    elsewhere: bool = False,
    unknown: list[Mistake] | None = None,
) -> list[Mistake]:
    """Return what is wrong with the entries: unknown modules, missing scripts and functions.

    A script is looked for where ``repository`` is a folder that exists or ``folders`` are given: a repository that is yet to
    be fetched cannot be checked.

    Args:
        elsewhere: the scripts come from a repository that a dry run need not have.
        unknown: gets what a dry run simulates because it cannot be known here: modules that this version does not have, and
            whose names are not one slip away from a ready-made one; scripts from elsewhere.
    """
    mistakes: list[Mistake] = []
    unknown = [] if unknown is None else unknown
    for entry in entries:
        if entry.module_type == "launcher_module":
            if entry.module_path not in READY_MADE:
                problem = f"there is no ready-made module {entry.module_path!r} in this version"
                mistake = Mistake(entry.where, problem, _guess(entry.module_path, READY_MADE), "module_path")
                (unknown if dry_run and not _is_slip(entry.module_path) else mistakes).append(mistake)
            elif (find := READY_MADE[entry.module_path].problems) is not None:
                remedy = f"see {entry.module_path} in the reference of ready-made modules"
                for key, problem in find(entry.parameters):
                    mistakes.append(Mistake(entry.where, problem, remedy, f"module_parameters.{key}"))
        elif dry_run and (elsewhere or _is_foreign(entry.module_path)) and _why_missing(entry, repository, folders):
            problem = f"{entry.module_path} is not on this computer"
            unknown.append(Mistake(entry.where, problem, "clone the repository to local_repository_path", "module_path"))
        elif not elsewhere or (repository is not None and repository.is_dir()):
            mistakes.extend(_check_script(entry, repository, folders))
    return mistakes


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


def _is_slip(name: str) -> bool:
    """Tell whether a name is a slip of the pen away from that of a ready-made module."""
    return bool(difflib.get_close_matches(name, READY_MADE, n=1, cutoff=0.9))


def simulates(entry: PipelineEntry, context: ModuleContext) -> str | None:
    """Return what a step of a dry run would have done, or None when the step runs as it is.

    Simulated are: ready-made modules that need an operator, an editor, the network or free disk space; modules that this
    version does not have; scripts that are not there; and entries with ``simulate_in_dry_run: true``.
    """
    if entry.module_type == "launcher_module":
        if entry.module_path not in READY_MADE:
            guess = _guess(entry.module_path, READY_MADE)
            remark = f" ({guess})" if guess.startswith("did you mean") else ""
            return f"run the ready-made module {entry.module_path!r}, which this version does not have{remark}"
        would = READY_MADE[entry.module_path].would
        return would(context.full_parameters) if would else None
    calling = f"call {entry.function or f'run_{entry.phase}'} of {entry.module_path}"
    if context.parameters.get("simulate_in_dry_run"):
        return calling
    missing = _why_missing(entry, context.repository, context.folders)
    return f"{calling} ({missing})" if missing else None


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
    elif entry.module_path in READY_MADE:
        call(READY_MADE[entry.module_path].run, context, entry.name, ready_made=True)
    else:
        raise ModuleFailed(f"there is no ready-made module {entry.module_path!r} ({_guess(entry.module_path, READY_MADE)})")
    return True


def _run_script(entry: PipelineEntry, context: ModuleContext) -> None:
    try:
        script, remark = find_script(entry.module_path, context.repository, context.folders)
    except ScriptNotFound as missing:
        raise ModuleFailed(str(missing)) from missing
    if remark:
        context.logger.warning("%s", remark)
    try:
        with context.scripts.running(script) as module:
            function = _find_function(module, _candidates(entry), str(script))
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


def _find_function(module: ModuleType, candidates: Sequence[str], where: str) -> Callable[..., Any]:
    for name in candidates:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    raise ModuleFailed(f"{where} has no function {' or '.join(candidates)}")


def _check_script(entry: PipelineEntry, repository: Path | None, folders: Sequence[Path]) -> list[Mistake]:
    if "{" in entry.module_path or "$" in entry.module_path:
        return []  # known once the session has its name
    try:
        script, _ = find_script(entry.module_path, repository, folders)
    except ScriptNotFound as missing:
        remedy = "mend the path" if repository is None else "mend the path, or the repository and its commit"
        return [Mistake(entry.where, str(missing), remedy, "module_path")]
    try:
        names = _defined_names(script)
    except (SyntaxError, ValueError, OSError) as error:
        return [Mistake(entry.where, f"{script} cannot be read as Python: {error}", "mend the script", "module_path")]
    wanted = _candidates(entry)
    if names is None or any(name.partition(".")[0] in names for name in wanted):
        return []
    remedy = _guess(wanted[0], sorted(names)) if names else "the script defines nothing"
    return [Mistake(entry.where, f"{script} has no function {' or '.join(wanted)}", remedy, "function")]


def _defined_names(script: Path) -> set[str] | None:
    """Names that a script binds at its top level, or None when that cannot be told without running it."""
    names: set[str] = set()
    stack: list[ast.AST] = list(ast.parse(script.read_bytes(), os.fspath(script)).body)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            if node.name == "__getattr__":
                return None
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
            if "*" in names:
                return None
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("globals", "exec", "setattr"):
            return None
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            stack.extend(ast.iter_child_nodes(node))
    return names


def _guess(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
