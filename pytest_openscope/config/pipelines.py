"""Pipeline entries of a parameter file, older spellings included, as :class:`.models.PipelineEntry`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ..records import Mistake, Phase
from .fields import check, did_you_mean, show
from .files import kind_of
from .layers import source_of
from .models import ACQUISITION_KEYS, PARAMETERS, PIPELINES, AcquisitionEntry, PipelineEntry

_PHASES = dict(zip(PIPELINES, (Phase.PRE_ACQUISITION, Phase.POST_ACQUISITION), strict=True))
#: What says what a failure of a step does, the newest spelling first.
_POLICIES = ("on_failure", "failure_policy", "fail_policy", "fail_action")


def read_pipelines(
    parameters: Mapping[str, Any], sources: Mapping[str, str]
) -> tuple[dict[Phase, tuple[PipelineEntry, ...]], list[Mistake]]:
    """Return the entries of both pipelines, and all that is wrong with them."""
    pipelines: dict[Phase, tuple[PipelineEntry, ...]] = {}
    mistakes: list[Mistake] = []
    for key, phase in _PHASES.items():
        entries: list[PipelineEntry] = []
        written = parameters.get(key)
        where = source_of(sources, key)
        if written is not None and not isinstance(written, list):
            mistakes.append(Mistake(where, f"a list expected, not {show(written)}", 'write ["name", …]', key))
            written = None
        taken: set[str] = set()
        for index, raw in enumerate(written or ()):
            entry = _read_entry(raw, phase, f"{key}[{index}]", source_of(sources, f"{key}.{index}", where), mistakes, taken)
            if entry is not None:
                entries.append(entry)
        pipelines[phase] = tuple(entries)
    return pipelines, mistakes


def check_acquisitions(parameters: Mapping[str, Any], sources: Mapping[str, str]) -> list[Mistake]:
    """Return what is wrong with the list ``acquisitions``, and with the order in which they are stopped."""
    entries, where = parameters.get("acquisitions"), source_of(sources, "acquisitions")
    if entries is None or entries == []:
        return []
    if not isinstance(entries, list):
        return [Mistake(where, f"a list expected, not {show(entries)}", "write [{…}, {…}]", "acquisitions")]
    mistakes: list[Mistake] = []
    names: list[str] = []
    for index, entry in enumerate(entries):
        path = f"acquisitions.{index}"
        place = source_of(sources, path, where)
        if not isinstance(entry, dict):
            mistakes.append(Mistake(place, f"an object expected, not {kind_of(entry)}", 'write {"launcher": …}', path))
            continue
        mistakes += _check_acquisition(entry, parameters, place, path)
        name = entry.get("name")
        if isinstance(name, str) and name:
            if name in names:
                mistakes.append(Mistake(place, f"{show(name)} is the name of two acquisitions", "rename one", f"{path}.name"))
            names.append(name)
    if all(isinstance(entry, dict) and entry.get("background") is True for entry in entries):
        remedy = "leave background out of the one that says how long it takes"
        mistakes.append(Mistake(where, "all run in the background, so none says when they end", remedy, "acquisitions"))
    order, place = parameters.get("acquisition_stop_order"), source_of(sources, "acquisition_stop_order")
    for name in order if isinstance(order, list) else ():
        if name not in names:
            remedy = did_you_mean(name, names) or "give its entry this name"
            problem = f"none of the acquisitions is called {show(name)}"
            mistakes.append(Mistake(place, problem, remedy, "acquisition_stop_order"))
    return mistakes


def _check_acquisition(entry: dict[str, Any], parameters: Mapping[str, Any], where: str, path: str) -> list[Mistake]:
    _, mistakes = check(AcquisitionEntry, entry, where, path)
    misspelt = {mistake.key for mistake in mistakes}
    for key in entry:
        if key in PARAMETERS and key not in ACQUISITION_KEYS and f"{path}.{key}" not in misspelt:
            mistakes.append(Mistake(where, "is no setting of one acquisition", "write it above the list", f"{path}.{key}"))
    kind = str(entry.get("launcher") or parameters.get("launcher") or "base").strip().lower()
    if kind == "base" and not any("launcher" in key for key in (*misspelt, *(one.remedy for one in mistakes))):
        mistakes.append(Mistake(where, "is missing", "say what runs it: python, command, bonsai, matlab", f"{path}.launcher"))
    return mistakes


def _read_entry(
    raw: Any, phase: Phase, path: str, where: str, mistakes: list[Mistake], taken: set[str]
) -> PipelineEntry | None:
    written = {"module_type": "launcher_module", "module_path": raw} if isinstance(raw, str) else raw
    if not isinstance(written, dict):
        mistakes.append(Mistake(where, f"a module name or an object expected, not {kind_of(raw)}", 'write "name" or {…}', path))
        return None
    entry, found = check(PipelineEntry, written, where, path)
    module_type, module_path = entry.module_type, entry.module_path or ""
    if entry.type is not None:
        module_type = "script_module" if entry.type == "repo_module" else entry.type
        module_path = module_path or entry.repo_relative_path or ""
    module_path = module_path.strip()
    misspelt = any("did you mean" in mistake.remedy for mistake in found)
    if not module_path and not misspelt and not any("path" in mistake.key for mistake in found):
        key = "repo_relative_path" if "type" in written else "module_path"
        found.append(Mistake(where, "is missing", "name the module, or the path of its file", f"{path}.{key}"))
    of_a_script = PurePosixPath(module_path.replace("\\", "/")).stem
    name = entry.name or (of_a_script if module_type == "script_module" else module_path)
    if "::" in name or any(ord(char) < 32 or ord(char) == 127 for char in name):
        problem = f"the step's name {show(name)} holds '::' or a control character"
        found.append(Mistake(where, problem, "rename it, or give the entry a name", path))
    given = entry.module_parameters
    arguments = entry.function_args or entry.kwargs or given.get("function_args") or given.get("kwargs") or {}
    if not isinstance(arguments, Mapping):
        problem = f"function_args must be name/value pairs, not {show(arguments)}"
        found.append(Mistake(where, problem, "write {name: value}", f"{path}.module_parameters.function_args"))
    if found:
        mistakes.extend(found)
        return None
    policy = next((getattr(entry, key) for key in _POLICIES if key in entry.model_fields_set), entry.on_failure)
    today = {
        "name": _unique(name, taken),
        "phase": phase,
        "where": f"{where}: {path}",
        "module_type": module_type,
        "module_path": module_path,
        "on_failure": "abort" if entry.abort_on_fail else policy,
        "function": entry.function or given.get("function"),
        "function_args": dict(arguments),
    }
    return entry.model_copy(update=today)


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}[{number}]", number + 1
    taken.add(candidate)
    return candidate
