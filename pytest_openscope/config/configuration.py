"""The configuration of one session, before and after its placeholders are replaced."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from ..log import collect_secrets
from ..records import ConfigurationError, Mistake
from .fields import TEXT_KINDS, Section, Wrong, check, has_placeholder, keys_of, kind_name, show, validate
from .lab_models import load_model, model_keys, read_values
from .layers import source_of
from .models import (
    KNOWN_PARAMETERS,
    PARAMETERS,
    PIPELINES,
    AlertSettings,
    GithubIssueSettings,
    OtelSettings,
    PipelineEntry,
    Readiness,
    Requirements,
    Rig,
    Settings,
    look_up,
)
from .placeholders import Expander
from .roots import foreign_path, is_relative, output_root
from .yaml_rules import load_yaml

#: Blocks that are checked on their own: model, the key that one must have, and whether an unknown key is a mistake.
_BLOCKS: dict[str, tuple[type[Section], str, bool]] = {
    "github_issue": (GithubIssueSettings, "repo", False),
    "otel": (OtelSettings, "endpoint", True),
    "alerts": (AlertSettings, "to", True),
}


@dataclass(frozen=True)
class Expanded:
    """The configuration with every placeholder replaced, the session's among them.

    ``own_parameters`` are the experiment's own, as ``parameters_model`` has them (None without).
    """

    parameters: dict[str, Any]
    settings: Settings
    rig: Rig
    pre_pipeline: tuple[PipelineEntry, ...]
    post_pipeline: tuple[PipelineEntry, ...]
    own_parameters: BaseModel | None = None


@dataclass(frozen=True)
class Configuration:
    """Everything that a session needs to know before it starts.

    Attributes:
        rig: the rig, as written.
        rig_file, parameter_file: where it all came from.
        parameters: rig defaults, the lab's values, parameter file and all overrides, merged, before expansion; JSON-safe.
        sources: dotted key to what set it.
        secrets: values that must appear nowhere.
        settings: typed values; session placeholders in them are not replaced yet (:meth:`expanded` does).
        pre_pipeline, post_pipeline: the steps of the parameter file, before expansion.
        dry_run, cwd, environ, validating: as requested.
    """

    rig: Rig
    rig_file: Path
    parameter_file: Path | None
    parameters: dict[str, Any]
    sources: dict[str, str]
    secrets: frozenset[str]
    settings: Settings
    pre_pipeline: tuple[PipelineEntry, ...]
    post_pipeline: tuple[PipelineEntry, ...]
    dry_run: bool
    cwd: Path
    environ: Mapping[str, str]
    validating: bool = False

    def __repr__(self) -> str:
        """Name the files only: the values hold secrets."""
        return f"Configuration({self.rig_file.name!r}, {self.parameter_file.name if self.parameter_file else None!r})"

    @property
    def script_folders(self) -> list[Path]:
        """Where relative paths of scripts are looked for: beside the parameter file first."""
        return [*([self.parameter_file.parent] if self.parameter_file is not None else []), self.cwd]

    def with_answers(self, answers: Mapping[str, str]) -> Configuration:
        """Return the configuration with what the operator answered, above all other sources.

        Raises:
            ConfigurationError: with an answer in it the configuration is no longer good (an output root made of it, say).
        """
        parameters = {**self.parameters, **{name: str(answer).strip() for name, answer in answers.items()}}
        sources = {**self.sources, **dict.fromkeys(answers, "the operator")}
        answered = dataclasses.replace(self, parameters=parameters, sources=sources)
        return dataclasses.replace(answered, settings=answered._settings(answered.expander()))

    def expander(self, session_uuid: str | None = None, session_folder: Path | None = None) -> Expander:
        """Return what replaces placeholders in any value; without arguments the session's own ones stay."""
        return make_expander(self.parameters, self.rig, self.environ, session_uuid, session_folder)

    def expanded(self, session_uuid: str, session_folder: Path) -> Expanded:
        """Return parameters, settings, rig and pipelines with every placeholder replaced.

        Raises:
            ConfigurationError: a value that only the session's name completes is no good (a number made of it, say).
        """
        expander = self.expander(session_uuid, session_folder)
        settings = self._settings(expander)
        own, mistakes = read_own_parameters(self.parameters, self.sources, self.rig, expander)
        if mistakes:
            raise ConfigurationError(mistakes)
        return Expanded(
            parameters=expander.all(self.parameters),
            settings=settings.model_copy(update={"session_uuid": session_uuid, "output_root": self.settings.output_root}),
            rig=expand_rig(self.rig, expander),
            pre_pipeline=tuple(expand_entry(entry, expander) for entry in self.pre_pipeline),
            post_pipeline=tuple(expand_entry(entry, expander) for entry in self.post_pipeline),
            own_parameters=own,
        )

    def _settings(self, expander: Expander) -> Settings:
        reading = SettingsReading(self.parameters, self.sources, self.rig, expander)
        settings = reading.read(self.cwd, self.dry_run, self.validating)
        if reading.mistakes:
            raise ConfigurationError(reading.mistakes)
        return settings


def expand_entry(entry: PipelineEntry, expander: Expander) -> PipelineEntry:
    """Return a pipeline entry with its placeholders replaced."""
    keys = ("module_path", "module_parameters", "function_args")
    return entry.model_copy(update={key: expander(getattr(entry, key)) for key in keys})


def expand_rig(rig: Rig, expander: Expander) -> Rig:
    """Return a rig with its placeholders replaced, those of its devices among them.

    Raises:
        ConfigurationError: the lab's own model refuses what the placeholders stand for.
    """
    values, model = expander(rig.values_), None
    if rig.model is not None:
        values = expand_typed(rig.values_, expander)
        model, mistakes = read_values(type(rig.model), values, rig.path.name, "values.")
        if mistakes:
            raise ConfigurationError(mistakes)
    return dataclasses.replace(
        rig,
        devices=expand_typed(rig.devices, expander),
        requirements=expand_section(Requirements, rig.requirements, expander),
        readiness=expand_section(Readiness, rig.readiness, expander),
        values_=values,
        model=model,
        raw=expander(rig.raw),
    )


def make_expander(
    parameters: Mapping[str, Any],
    rig: Rig,
    environ: Mapping[str, str],
    session_uuid: str | None = None,
    session_folder: Path | None = None,
) -> Expander:
    """Return an expander over the merged values; ``{rig_param:KEY}`` finds what overrides the rig's value, too."""
    everything = {**rig.raw, **rig.values_, **parameters, "rig_id": rig.rig_id}
    session: dict[str, str] = {}
    if session_uuid is not None:
        session["session_uuid"] = session_uuid
    if session_folder is not None:
        session["output_session_folder"] = session["session_folder"] = str(session_folder)
    return Expander({**parameters, "rig_id": rig.rig_id}, partial(look_up, everything), environ, session)


def expand_typed(value: Any, expander: Expander) -> Any:
    """Expand values; one that is nothing but a placeholder keeps the type of what it stands for."""
    if isinstance(value, Mapping):
        return {name: expand_typed(item, expander) for name, item in value.items()}
    if isinstance(value, list):
        return [expand_typed(item, expander) for item in value]
    found = expander.number(value) if isinstance(value, str) else None
    return expander(value) if found is None else found


def expand_section(model: type[BaseModel], section: Mapping[str, Any], expander: Expander) -> dict[str, Any]:
    """Return a section with its placeholders replaced; a text that one gave becomes the number or list that its key wants."""
    expanded = {name: expander(value, name) for name, value in section.items()}
    for name, value in expanded.items():
        if has_placeholder(section[name]) and isinstance(value, str) and kind_name(model, name) not in TEXT_KINDS:
            with contextlib.suppress(Wrong):  # the model tells of a text that is no YAML
                expanded[name] = load_yaml(value)
    return expanded


def read_own_parameters(
    parameters: Mapping[str, Any], sources: Mapping[str, str], rig: Rig, expander: Expander
) -> tuple[BaseModel | None, list[Mistake]]:
    """Return the experiment's own parameters as ``parameters_model`` has them (None without), and what is wrong with them.

    The model gets the keys that it declares, and all keys that neither this plugin nor the rig's values know.
    """
    reference = parameters.get("parameters_model")
    if not isinstance(reference, str) or not reference.strip():
        return None, []
    where = source_of(sources, "parameters_model")
    try:
        model = load_model(reference, rig.path.parent)
    except Wrong as wrong:
        return None, [wrong.at(where, "parameters_model")]
    known, declared = {*KNOWN_PARAMETERS, *rig.values_, "rig_id"}, model_keys(model)
    own = {name: value for name, value in parameters.items() if name in declared or name not in known}
    found, mistakes = read_values(model, expand_typed(own, expander), where, "")
    return found, [dataclasses.replace(one, where=source_of(sources, one.key, where)) for one in mistakes]


@dataclass
class SettingsReading:
    """Reads the typed settings out of the merged values, and keeps what is wrong with them."""

    parameters: Mapping[str, Any]
    sources: Mapping[str, str]
    rig: Rig
    expander: Expander
    mistakes: list[Mistake] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def read(self, cwd: Path, dry_run: bool, validating: bool) -> Settings:
        """Return the settings; with mistakes they have defaults where a value is wrong."""
        known = {name: value for name, value in self.parameters.items() if name in PARAMETERS and name not in PIPELINES}
        values = expand_section(Settings, known, self.expander)
        for name in _BLOCKS:
            if values.get(name) is not None:
                values[name] = self._block(name, values[name])
        settings, mistakes = validate(Settings, values)
        for one in mistakes:
            self._wrong(one.key, one.problem, one.remedy)
        found: dict[str, Any] = {"rig_id": self.rig.rig_id}
        if not any(one.key == "output_root_folder" for one in mistakes):
            found["output_root"] = self._root(settings.output_root_folder, cwd, dry_run, look=not validating)
        if settings.github_issue is not None and settings.github_issue.report_wait_s is not None:
            found["report_wait_s"] = settings.github_issue.report_wait_s
        mirror = settings.centralized_log_directory
        if mirror and is_relative(mirror, dry_run):
            remedy = r"give a full path (\\server\logs or /mnt/logs)"
            self._wrong("centralized_log_directory", f"{show(mirror)} is a relative path", remedy)
        elif mirror and not dry_run and (problem := foreign_path(mirror)):
            remedy = "give a path of this system, or null for no mirror"
            self._wrong("centralized_log_directory", f"{show(mirror)} {problem}", remedy)
        return settings.model_copy(update=found)

    def _wrong(self, name: str, problem: str, remedy: str) -> None:
        where = source_of(self.sources, name) or source_of(self.sources, name.partition(".")[0], self.rig.path.name)
        self.mistakes.append(Mistake(where, problem, remedy, name))

    def _block(self, name: str, block: Any) -> Section | None:
        if not isinstance(block, dict):
            self._wrong(name, "a mapping expected", "write 'name: value' pairs")  # what stands there may be a secret
            return None
        model, needed, only_known = _BLOCKS[name]
        written = expand_section(model, block, self.expander)
        if isinstance(written.get("to"), str):
            # As a list: a text with a placeholder that nothing replaced would not be looked at.
            written["to"] = [written["to"]]
        read, mistakes = check(model, written, "", name, strict=only_known)
        for one in mistakes:
            self._wrong(one.key, one.problem, one.remedy)
        wrong = {one.key.removeprefix(f"{name}.") for one in mistakes}
        odd = written.keys() - keys_of(model) - wrong
        where = source_of(self.sources, name)
        self.notices += [f"{where}: {name}.{option}: unknown option, not used" for option in sorted(odd)]
        if not getattr(read, needed) and getattr(read, "enabled", True) and needed not in wrong:
            self._wrong(f"{name}.{needed}", "is missing", f"give it, or remove {name}")
        return read

    def _root(self, text: str | None, cwd: Path, dry_run: bool, look: bool) -> Path:
        if text and any(f"{{{name}}}" in text and not self.parameters.get(name) for name in ("subject_id", "user_id")):
            return cwd / text  # as long as the operator has not answered
        try:
            root, notice = output_root(text, cwd, dry_run, look=look)
        except Wrong as wrong:
            self._wrong("output_root_folder", wrong.problem, wrong.remedy)
            return cwd
        self.notices += [notice] if notice else []
        return root


def find_secrets(*values: Mapping[str, Any], environ: Mapping[str, str]) -> frozenset[str]:
    """Return every secret of the configuration: the report token, a collector's headers, the addresses of alerts."""
    found: set[str] = set()
    for value in values:
        found |= collect_secrets(value, environ)
        for block in (value, value.get("parameters")):
            if isinstance(block, Mapping):
                found |= collect_secrets({"secret": _addresses(block.get("alerts"))}, environ)
                headers = [
                    part.partition("=")[2].strip() for part in _of_variable(block, "otel", "headers_env", environ).split(",")
                ]
                token = _of_variable(block, "github_issue", "token_env", environ)
                found |= collect_secrets({"secret": [token, *headers, *map(unquote, headers)]})
    return frozenset(found)


def _addresses(alerts: Any) -> Any:
    """Return what may be an address in an ``alerts`` block, well written or not."""
    if not isinstance(alerts, Mapping):
        return alerts
    return [value for name, value in alerts.items() if name == "to" or name not in keys_of(AlertSettings)]


def _of_variable(parameters: Mapping[str, Any], block: str, key: str, environ: Mapping[str, str]) -> str:
    """Return what the environment variable holds that a block names ("" without the block)."""
    written = parameters.get(block)
    if not isinstance(written, Mapping):
        return ""
    return environ.get(str(written.get(key) or _BLOCKS[block][0].model_fields[key].default), "")
