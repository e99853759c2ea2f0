"""Running the entries of a parameter file's pipelines, and finding their mistakes before anything runs.

The module contract stands in ``docs/reference/modules.md``. The session uses :func:`check_entries` while it is configured,
and :func:`simulates` and :func:`run_entry` for each step.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PureWindowsPath
from types import ModuleType
from typing import Any

from ..records import Mistake
from .calls import call, call_with
from .context import Entry, ModuleContext, ModuleFailed, Operator
from .scripts import ScriptImports, ScriptNotFound, find_script

__all__ = [
    "READY_MADE",
    "Entry",
    "ModuleContext",
    "ModuleFailed",
    "Operator",
    "ScriptImports",
    "check_entries",
    "run_entry",
    "simulates",
]

#: The modules beside this one that a pipeline can name as ``launcher_module``.
READY_MADE = (
    "disk_space_check",
    "example_post_acquisition_module",
    "example_pre_acquisition_module",
    "experiment_notes_editor",
    "experiment_notes_finalize",
    "experiment_notes_post_prompt",
    "mouse_weight_post_prompt",
    "mouse_weight_pre_prompt",
    "wait_for_user_input",
)
_SCRIPT_TYPES = ("script_module", "repo_module")
_TYPES = ("launcher_module", *_SCRIPT_TYPES)


def check_entries(
    entries: Iterable[Entry],
    *,
    repository: Path | None = None,
    folders: Sequence[Path] = (),
    dry_run: bool = False,
    elsewhere: bool = False,
    unknown: list[Mistake] | None = None,
) -> list[Mistake]:
    """Return what is wrong with the entries: unknown types and modules, missing scripts and functions.

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
        if entry.module_type not in _TYPES:
            mistakes.append(
                Mistake(
                    entry.where, f"unknown module_type {entry.module_type!r}", _guess(entry.module_type, _TYPES), "module_type"
                )
            )
        elif entry.module_type == "launcher_module":
            if entry.module_path not in READY_MADE:
                problem = f"there is no ready-made module {entry.module_path!r} in this version"
                mistake = Mistake(entry.where, problem, _guess(entry.module_path, READY_MADE), "module_path")
                (unknown if dry_run and not _is_slip(entry.module_path) else mistakes).append(mistake)
        elif dry_run and (elsewhere or _is_foreign(entry.module_path)) and _is_missing(entry, repository, folders):
            problem = f"{entry.module_path} is not on this computer"
            unknown.append(Mistake(entry.where, problem, "clone the repository to local_repository_path", "module_path"))
        elif not elsewhere or (repository is not None and repository.is_dir()):
            mistakes.extend(_check_script(entry, repository, folders))
    return mistakes


def _is_missing(entry: Entry, repository: Path | None, folders: Sequence[Path]) -> bool:
    try:
        find_script(entry.module_path, repository, folders)
    except ScriptNotFound:
        return True
    return False


def _is_foreign(path: str) -> bool:
    """Tell whether a path is one of a Windows computer, and this is none."""
    return sys.platform != "win32" and bool(PureWindowsPath(path).drive)


def _is_slip(name: str) -> bool:
    """Tell whether a name is a slip of the pen away from that of a ready-made module."""
    return bool(difflib.get_close_matches(name, READY_MADE, n=1, cutoff=0.9))


def simulates(entry: Entry, context: ModuleContext | None = None) -> str | None:
    """Return what a step of a dry run would have done, or None when the step runs as it is.

    Simulated are: ready-made modules that need an operator, an editor, the network or free disk space; modules that this
    version does not have; scripts that are not there; and entries with ``simulate_in_dry_run: true``.
    """
    parameters = {**(context.full_parameters if context else {}), **({} if context else entry.parameters)}
    if entry.module_type == "launcher_module":
        if entry.module_path not in READY_MADE:
            guess = _guess(entry.module_path, READY_MADE)
            remark = f" ({guess})" if guess.startswith("did you mean") else ""
            return f"run the ready-made module {entry.module_path!r}, which this version does not have{remark}"
        would: Callable[[dict[str, Any]], str] | None = getattr(_ready_made(entry.module_path), "would", None)
        return would(parameters) if would else None
    function = _function_name(entry) or f"run_{entry.phase}"
    if parameters.get("simulate_in_dry_run"):
        return f"call {function} of {entry.module_path}"
    if context is not None:
        try:
            find_script(_script_path(entry, context), context.repository, context.folders)
        except ScriptNotFound as missing:
            return f"call {function} of {entry.module_path} ({missing})"
    return None


def run_entry(entry: Entry, context: ModuleContext) -> None:
    """Run one step.

    In a dry run a step that :func:`simulates` describes is logged instead.

    Raises:
        ModuleFailed: the step failed without an exception of its own.
        Exception: whatever the module raises, as it is.
    """
    if context.dry_run:
        simulated = simulates(entry, context)
        if simulated is not None:
            context.logger.info("dry run: would %s", simulated)
            return
    if entry.module_type == "launcher_module":
        if entry.module_path not in READY_MADE:
            raise ModuleFailed(f"there is no ready-made module {entry.module_path!r} ({_guess(entry.module_path, READY_MADE)})")
        module = _ready_made(entry.module_path)
        call(_find_function(module, _candidates(entry, lenient=True), entry.module_path), context, entry.name, ready_made=True)
    elif entry.module_type in _SCRIPT_TYPES:
        _run_script(entry, context)
    else:
        raise ModuleFailed(f"unknown module_type {entry.module_type!r} ({_guess(entry.module_type, _TYPES)})")


def _run_script(entry: Entry, context: ModuleContext) -> None:
    try:
        script, remark = find_script(_script_path(entry, context), context.repository, context.folders)
    except ScriptNotFound as missing:
        raise ModuleFailed(str(missing)) from missing
    if remark:
        context.logger.warning("%s", remark)
    try:
        with context.scripts.running(script) as module:
            function = _find_function(module, _candidates(entry), str(script))
            given = _given(entry, context)
            context.logger.info("calling %s of %s", getattr(function, "__name__", "function"), script)
            if given:
                call_with(function, given, context, _output_filename(entry, context))
            else:
                call(function, context, entry.name, ready_made=False)
    except SystemExit as leaving:  # while it was imported; a call's own is judged by call()
        raise ModuleFailed(f"{script} called sys.exit({leaving.code!r}) while it was imported") from leaving


def _ready_made(name: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{name}")


def _script_path(entry: Entry, context: ModuleContext) -> str:
    return str(context.expand(entry.module_path))


def _function_name(entry: Entry) -> str | None:
    name = getattr(entry, "function", None) or entry.parameters.get("function")
    return str(name) if name else None


def _candidates(entry: Entry, *, lenient: bool = False) -> list[str]:
    """Names of the function, best first; a ready-made module also runs in the phase that it was not made for."""
    name = _function_name(entry)
    if name and not lenient:
        return [name]
    usual = [f"run_{entry.phase}", "run"]
    return [*usual, "run_pre_acquisition", "run_post_acquisition"] if lenient else usual


def _find_function(module: ModuleType, candidates: Sequence[str], where: str) -> Callable[..., Any]:
    for name in candidates:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    raise ModuleFailed(f"{where} has no function {' or '.join(candidates)}")


def _given(entry: Entry, context: ModuleContext) -> dict[str, Any]:
    """The keyword arguments that the entry names, expanded; empty when it names none.

    Raises:
        ModuleFailed: they are no mapping.
    """
    for key in ("function_args", "kwargs"):
        if key in entry.parameters:
            given = context.parameters.get(key, context.expand(entry.parameters[key]))
            break
    else:
        given = context.expand(getattr(entry, "function_args", None) or getattr(entry, "kwargs", None) or {})
    if not isinstance(given, dict):
        raise ModuleFailed(f"function_args must be name/value pairs, not {given!r}")
    return given


def _output_filename(entry: Entry, context: ModuleContext) -> str | None:
    value = context.parameters.get("output_filename")
    return str(value) if value else None


def _check_script(entry: Entry, repository: Path | None, folders: Sequence[Path]) -> list[Mistake]:
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
    import ast

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


def _guess(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
