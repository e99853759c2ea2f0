"""Ready-made step: add Bonsai's workflow to the file that ``session_creator`` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..config import PathText, key
from ..records import METADATA
from ..system import json_bytes, read_json, write_atomic
from .context import ModuleContext
from .failures import ModuleFailed
from .parameters import StepParameters, within
from .session_creator import ACQUISITION_FILE, SESSION_FILE, acquisition_json, schema_is_installed, validated
from .session_facts import SessionFacts

#: Types that say nothing of the session, which the launcher replaces too.
_VAGUE_TYPES = ("Behavior", "Generic", "Unknown")
_TYPE = "Bonsai"


class SessionEnhancerBonsai(StepParameters):
    """Parameters of ``session_enhancer_bonsai``."""

    output_session_folder: PathText | None = key(None, "the session's folder; default: this session's")
    script_path: PathText | None = key(None, "the workflow; default: the session's")

    def would(self) -> str:
        return f"add workflow {self.script_path or 'of the session'} to the session's description"


def session_enhancer_bonsai(context: ModuleContext, parameters: SessionEnhancerBonsai) -> Path:
    """Add the workflow, its commit and its parameters to the data streams, and what ``bonsai_provenance.json`` says of it.

    In ``acquisition.json`` it becomes a ``Code`` of each data stream, with Bonsai as its core dependency; the schema checks the
    result. In ``session.json`` it becomes an entry of ``software``. A second run changes nothing. The session's type becomes
    ``Bonsai`` where it says nothing more.

    Returns:
        The file.

    Raises:
        ModuleFailed: ``session_creator`` has not run, there is no workflow, or the schema does not accept the result.
    """
    folder = context.path(parameters.output_session_folder or "")
    facts = SessionFacts.read(folder)
    workflow = _Workflow(facts, parameters.script_path)
    path = next((folder / name for name in (ACQUISITION_FILE, SESSION_FILE) if (folder / name).is_file()), None)
    if path is None:
        raise ModuleFailed(f"there is no {ACQUISITION_FILE} or {SESSION_FILE} in {folder} -> run session_creator before")
    content = read_json(path)
    if content is None:
        raise ModuleFailed(f"{path} is no JSON object")
    enhance = _enhance_acquisition if path.name == ACQUISITION_FILE else _enhance_session
    write_atomic(path, within(parameters.timeout_s, f"adding to {path.name}", lambda: enhance(content, workflow)))
    context.logger.info("added workflow %s to %s", workflow.path, path)
    return path


class _Workflow:
    """A workflow that ran.

    Raises:
        ModuleFailed: nothing says which one.
    """

    def __init__(self, facts: SessionFacts, given: str | None) -> None:
        path = given or facts.end_state.get("script_path") or facts.parameters.get("script_path")
        if not path:
            raise ModuleFailed("nothing says which workflow ran -> give script_path")
        self.path = str(path).replace("\\", "/")
        self.name = PurePosixPath(self.path).name
        self.commit = facts.repository.get("commit")
        self.url = str(facts.repository.get("repository_url") or facts.parameters.get("repository_url") or self.path)
        provenance = read_json(facts.folder / METADATA / "bonsai_provenance.json") or {}
        packages = provenance.get("package_versions")
        bonsai = packages.get("Bonsai") if isinstance(packages, Mapping) else None
        installed = bonsai.get("installed") or bonsai.get("wanted") if isinstance(bonsai, Mapping) else bonsai
        self.bonsai_version = str(installed or provenance.get("bonsai_version") or "") or None
        self.fingerprint = str(provenance.get("fingerprint") or "") or None
        parameters = facts.parameters.get("script_parameters")
        self.parameters = dict(parameters) if isinstance(parameters, Mapping) else {}


def _enhance_acquisition(content: dict[str, Any], workflow: _Workflow) -> bytes:
    if not schema_is_installed():
        raise ModuleFailed(
            f'{ACQUISITION_FILE} cannot be changed without aind-data-schema: pip install "pytest-openscope[aind]"'
        )
    code: dict[str, Any] = {
        "object_type": "Code",
        "url": workflow.url,
        "name": f"Bonsai workflow: {workflow.name}",
        "version": workflow.fingerprint,
        "commit_hash": workflow.commit,
        "run_script": workflow.path,
        "language": "Bonsai",
        "language_version": workflow.bonsai_version,
        "parameters": workflow.parameters or None,
        "core_dependency": {"object_type": "Software", "name": "Bonsai", "version": workflow.bonsai_version},
    }
    for stream in content.get("data_streams") or ():
        if stream.get("object_type") == "External data stream":
            continue  # it has no place for code
        others = [one for one in stream.get("code") or () if str(one.get("run_script")).replace("\\", "/") != workflow.path]
        stream["code"] = [*others, code]
    if content.get("acquisition_type") in _VAGUE_TYPES:
        content["acquisition_type"] = _TYPE

    def build() -> Any:
        from aind_data_schema.core.acquisition import Acquisition

        return Acquisition.model_validate_json(json.dumps(content))

    return acquisition_json(validated(build, ACQUISITION_FILE))


def _enhance_session(content: dict[str, Any], workflow: _Workflow) -> bytes:
    software = {
        "name": f"Bonsai workflow: {workflow.name}",
        "version": workflow.fingerprint or workflow.commit,
        "url": workflow.url,
        "path": workflow.path,
        "parameters": workflow.parameters,
        "bonsai_version": workflow.bonsai_version,
    }
    for stream in content.get("data_streams") or ():
        others = [one for one in stream.get("software") or () if one.get("path") != workflow.path]
        stream["software"] = [*others, software]
    if content.get("session_type") in _VAGUE_TYPES:
        content["session_type"] = _TYPE
    return json_bytes(content)
