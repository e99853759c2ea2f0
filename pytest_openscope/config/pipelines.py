"""Pipeline entries of a parameter file, older spellings included, as :class:`.model.PipelineEntry`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ..records import Mistake, OnFailure, Phase
from .coerce import check_section, show
from .merge import source_of
from .model import PipelineEntry
from .reading import kind_of
from .schema import ENTRY_KEYS

_PHASES = {"pre_acquisition_pipeline": Phase.PRE_ACQUISITION, "post_acquisition_pipeline": Phase.POST_ACQUISITION}
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


def _read_entry(
    raw: Any, phase: Phase, path: str, where: str, mistakes: list[Mistake], taken: set[str]
) -> PipelineEntry | None:
    if isinstance(raw, str):
        written: dict[str, Any] = {"module_type": "launcher_module", "module_path": raw}
    elif isinstance(raw, dict):
        written = raw
    else:
        mistakes.append(Mistake(where, f"a module name or an object expected, not {kind_of(raw)}", 'write "name" or {…}', path))
        return None
    values, found, _ = check_section(where, path, written, ENTRY_KEYS, "allowed")
    module_type, module_path = values.get("module_type"), values.get("module_path")
    if values.get("type") is not None:
        module_type = "script_module" if values["type"] == "repo_module" else values["type"]
        module_path = module_path or values.get("repo_relative_path")
    misspelt = any("did you mean" in mistake.remedy for mistake in found)
    if not (module_path or "").strip() and not misspelt and not any("path" in mistake.key for mistake in found):
        key = "repo_relative_path" if "type" in written else "module_path"
        found.append(Mistake(where, "is missing", "name the module, or the path of its file", f"{path}.{key}"))
    name, problem = _name(values, module_type, module_path or "")
    if problem:
        found.append(Mistake(where, problem, "rename it, or give the entry a name", path))
    if found:
        mistakes.extend(found)
        return None
    given = values.get("module_parameters") or {}
    arguments = values.get("function_args") or values.get("kwargs") or given.get("function_args")
    return PipelineEntry(
        name=_unique(name, taken),
        phase=phase,
        module_type=str(module_type),
        module_path=str(module_path).strip(),
        parameters=dict(given),
        on_failure=_policy(written, values),
        function=values.get("function") or given.get("function"),
        function_args=dict(arguments) if isinstance(arguments, Mapping) else None,
        timeout_s=values.get("timeout_s"),
        attempts=int(values.get("attempts") or 1),
        retry_delay_s=float(values.get("retry_delay_s") or 0.0),
        raw=raw,
        where=f"{where}: {path}",
    )


def _policy(written: Mapping[str, Any], values: Mapping[str, Any]) -> OnFailure:
    if values.get("abort_on_fail"):
        return OnFailure.ABORT
    for key in _POLICIES:
        if written.get(key) is not None:
            return OnFailure(values[key])
    return OnFailure.CONTINUE


def _name(values: Mapping[str, Any], module_type: Any, module_path: str) -> tuple[str, str]:
    """Return the step's name and what is wrong with it."""
    name = values.get("name") or module_path.strip()
    if not values.get("name") and module_type == "script_module":
        name = PurePosixPath(name.replace("\\", "/")).stem
    if "::" in name or any(ord(char) < 32 or ord(char) == 127 for char in name):
        return name, f"the step's name {show(name)} holds '::' or a control character"
    return name, ""


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}[{number}]", number + 1
    taken.add(candidate)
    return candidate
