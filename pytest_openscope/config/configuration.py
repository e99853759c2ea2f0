"""The configuration of one session, before and after its placeholders are replaced."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from ..log import collect_secrets
from ..records import ConfigurationError, Mistake, is_folder_name, name_problem, session_name
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
    Rig,
    Settings,
    look_up,
)
from .placeholders import Expander
from .roots import foreign_path, is_relative, output_root
from .yaml_rules import YamlError, load_yaml

#: Blocks that are checked on their own: an unknown key in one is a mistake.
BLOCKS: dict[str, type[Section]] = {"otel": OtelSettings, "alerts": AlertSettings}


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
        dry_run, no_input, cwd, environ, validating: as requested.
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
    no_input: bool
    cwd: Path
    environ: Mapping[str, str]
    validating: bool = False

    def __repr__(self) -> str:
        """Name the files only: the values hold secrets."""
        return f"Configuration({self.rig_file.name!r}, {self.parameter_file.name if self.parameter_file else None!r})"

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

    def expand(self, session_uuid: str, session_folder: Path) -> dict[str, Any]:
        """Return the parameters with every placeholder replaced (``processed_parameters.json``)."""
        return self.expander(session_uuid, session_folder).all(self.parameters)

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
        reading = SettingsReading(self.parameters, self.sources, self.rig, self.dry_run, self.cwd, expander, self.validating)
        if reading.mistakes:
            raise ConfigurationError(reading.mistakes)
        return reading.settings


def expand_entry(entry: PipelineEntry, expander: Expander) -> PipelineEntry:
    """Return a pipeline entry with its placeholders replaced."""
    return dataclasses.replace(
        entry,
        module_path=expander(entry.module_path),
        parameters=expander(entry.parameters),
        function_args=None if entry.function_args is None else expander(entry.function_args),
    )


def expand_rig(rig: Rig, expander: Expander) -> Rig:
    """Return a rig with its placeholders replaced, those of its devices among them.

    Raises:
        ConfigurationError: the lab's own model refuses what the placeholders stand for.
    """
    values = expand_typed(rig.values_, expander)
    model = rig.model
    if model is not None:
        model, findings = read_values(type(model), values, "values.")
        if findings:
            raise ConfigurationError([Mistake(rig.path.name, one.problem, one.remedy, one.key) for one in findings])
    return dataclasses.replace(
        rig,
        devices=expand_typed(rig.devices, expander),
        requirements=expander(rig.requirements),
        readiness=expander(rig.readiness),
        values_=values if model is not None else expander(rig.values_),
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

    def rig_lookup(name: str) -> Any:
        try:
            return look_up(parameters, name)
        except KeyError:
            return look_up({**rig.raw, **rig.values_, "rig_id": rig.rig_id}, name)

    session: dict[str, str] = {}
    if session_uuid is not None:
        session["session_uuid"] = session_uuid
    if session_folder is not None:
        session["output_session_folder"] = session["session_folder"] = str(session_folder)
    return Expander({**parameters, "rig_id": rig.rig_id}, rig_lookup, environ, session)


def expand_typed(value: Any, expander: Expander) -> Any:
    """Expand values; one that is nothing but a placeholder keeps the type of what it stands for."""
    if isinstance(value, Mapping):
        return {name: expand_typed(item, expander) for name, item in value.items()}
    if isinstance(value, list):
        return [expand_typed(item, expander) for item in value]
    found = expander.number(value) if isinstance(value, str) else None
    return expander(value) if found is None else found


def expand_section(model: type[BaseModel], section: Mapping[str, Any], expander: Expander) -> dict[str, Any]:
    """Return a section with its placeholders replaced, ready to be checked against its model."""
    return reread(model, section, {name: expander(raw, name) for name, raw in section.items()})


def reread(model: type[BaseModel], written: Mapping[str, Any], expanded: Mapping[str, Any]) -> dict[str, Any]:
    """Read texts that placeholders gave as the number, flag or list that their key wants; all else stays."""
    section = dict(expanded)
    for name, value in expanded.items():
        if has_placeholder(written.get(name)) and isinstance(value, str) and kind_name(model, name) not in TEXT_KINDS:
            with contextlib.suppress(YamlError):  # the model tells of a text that is no YAML
                section[name] = load_yaml(value)
    return section


def read_own_parameters(
    parameters: Mapping[str, Any], sources: Mapping[str, str], rig: Rig, expander: Expander
) -> tuple[BaseModel | None, list[Mistake]]:
    """Return the experiment's own parameters as ``parameters_model`` has them (None without), and what is wrong with them.

    The model gets the keys that it declares, and all keys that neither this plugin nor the rig's values know.
    """
    reference = parameters.get("parameters_model")
    if not isinstance(reference, str) or not reference.strip():
        return None, []
    try:
        model = load_model(reference, rig.path.parent)
    except Wrong as wrong:
        where = source_of(sources, "parameters_model")
        return None, [Mistake(where, wrong.problem, wrong.remedy, "parameters_model")]
    known, declared = {*KNOWN_PARAMETERS, *rig.values_, "rig_id"}, model_keys(model)
    own = {name: value for name, value in parameters.items() if name in declared or name not in known}
    found, findings = read_values(model, expand_typed(own, expander), "")
    where = source_of(sources, "parameters_model")
    return found, [Mistake(source_of(sources, one.key, where), one.problem, one.remedy, one.key) for one in findings]


@dataclass
class SettingsReading:
    """Typed settings of the merged values: ``settings``, what is wrong (``mistakes``), and ``notices``."""

    parameters: Mapping[str, Any]
    sources: Mapping[str, str]
    rig: Rig
    dry_run: bool
    cwd: Path
    expander: Expander
    validating: bool = False
    settings: Settings = field(init=False)
    mistakes: list[Mistake] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        known = {name: value for name, value in self.parameters.items() if name in PARAMETERS and name not in PIPELINES}
        values = expand_section(Settings, known, self.expander)
        report = values.get("github_issue")
        if isinstance(report, dict):
            values["github_issue"] = self._github(report)
        for name, model in BLOCKS.items():
            if values.get(name) is not None:
                values[name] = self._block(name, model, values[name])
        settings, findings = validate(Settings, values)
        wrong = {finding.key for finding in findings}
        self.mistakes += [Mistake(self._where(one.key), one.problem, one.remedy, one.key) for one in findings]
        found: dict[str, Any] = {"rig_id": self.rig.rig_id}
        if "output_root_folder" not in wrong:
            found["output_root"] = self._root(settings.output_root_folder)
        if settings.github_issue is not None and settings.github_issue.report_wait_s is not None:
            found["report_wait_s"] = settings.github_issue.report_wait_s
        self.settings = settings.model_copy(update=found)
        self._check_places()
        self._check_names()

    def _where(self, name: str) -> str:
        return source_of(self.sources, name, self.rig.path.name if name == "output_root_folder" else "")

    def _wrong(self, name: str, problem: str, remedy: str) -> None:
        self.mistakes.append(Mistake(self._where(name), problem, remedy, name))

    def _github(self, block: dict[str, Any]) -> GithubIssueSettings | None:
        written = expand_section(GithubIssueSettings, block, self.expander)
        where = source_of(self.sources, "github_issue")
        read, mistakes = check(GithubIssueSettings, written, where, "github_issue")
        self.mistakes += [dataclasses.replace(one, where=source_of(self.sources, one.key, where)) for one in mistakes]
        odd = written.keys() - keys_of(GithubIssueSettings) - {one.key.removeprefix("github_issue.") for one in mistakes}
        self.notices += [f"{where}: github_issue.{name}: unknown option, not used" for name in sorted(odd)]
        if not mistakes and read.enabled and not read.repo:
            self.mistakes.append(Mistake(where, "is missing", "write e.g. my-lab/my-experiments", "github_issue.repo"))
        return read

    def _block(self, name: str, model: type[Section], block: Any) -> Section | None:
        """Read a block of which no message may show a value."""
        where = source_of(self.sources, name)
        if not isinstance(block, dict):
            self._wrong(name, "is no mapping", "write 'name: value' pairs")
            return None
        written = expand_section(model, block, self.expander)
        if isinstance(written.get("to"), str):
            # As a list: a text with a placeholder that nothing replaced would not be looked at.
            written["to"] = [written["to"]]
        read, mistakes = check(model, written, where, name, strict=True)
        self.mistakes += [dataclasses.replace(one, where=source_of(self.sources, one.key, where)) for one in mistakes]
        needed = "endpoint" if name == "otel" else "to"
        if not getattr(read, needed) and not any(one.key == f"{name}.{needed}" for one in mistakes):
            self._wrong(f"{name}.{needed}", "is missing", f"give it, or remove {name}")
        return None if mistakes else read

    def _root(self, text: str | None) -> Path:
        pending = [
            name for name in ("subject_id", "user_id") if text and f"{{{name}}}" in text and not self.parameters.get(name)
        ]
        if pending:
            return self.cwd / text if text else self.cwd
        try:
            root, notice = output_root(text, self.cwd, self.dry_run, look=not self.validating)
        except Wrong as wrong:
            self._wrong("output_root_folder", wrong.problem, wrong.remedy)
            return self.cwd
        self.notices += [notice] if notice else []
        return root

    def _check_places(self) -> None:
        log = self.settings.session_log
        parts = log.replace("\\", "/").split("/")
        if ".." in parts or log.startswith(("/", "\\")) or ":" in log or not parts[-1].strip():
            self._wrong(
                "session_log",
                f"{show(log)} is no file inside the session folder",
                "give a relative path, e.g. logs/session.log",
            )
        name = self.settings.session_uuid
        if name and not has_placeholder(name) and not is_folder_name(name):
            self._wrong(
                "session_uuid",
                f"{show(name)} is no folder name",
                'leave out < > : " / \\ | ? * and a dot at the end, and names that Windows keeps for itself (CON, COM1)',
            )
        mirror = self.settings.centralized_log_directory
        if not mirror:
            return
        if is_relative(mirror, self.dry_run):
            remedy = r"give a full path (\\server\logs or /mnt/logs)"
            self._wrong("centralized_log_directory", f"{show(mirror)} is a relative path", remedy)
        elif not self.dry_run and (problem := foreign_path(mirror)):
            remedy = "give a path of this system, or null for no mirror"
            self._wrong("centralized_log_directory", f"{show(mirror)} {problem}", remedy)

    def _check_names(self) -> None:
        """Find the inputs of which no folder or file of the session can be named."""
        subject, uuid, log = self.settings.subject_id, self.settings.session_uuid, self.settings.session_log
        made = [("session_uuid", uuid)] if uuid else [("subject_id", session_name(subject, datetime.now()))] if subject else []
        made += [("session_log", part) for part in log.replace("\\", "/").split("/")]
        for key, name in made:
            if not has_placeholder(name) and (problem := name_problem(name)):
                value = show(getattr(self.settings, key))
                self._wrong(key, f"{value} {problem}", "give a shorter one in plain letters")


def find_secrets(*values: Any, environ: Mapping[str, str], token_env: str | None) -> frozenset[str]:
    """Return every secret of the configuration: the report token, a collector's headers, the addresses of alerts."""
    found: set[str] = set()
    for value in values:
        found |= collect_secrets(value, environ)
        for block in (value, value.get("parameters")) if isinstance(value, Mapping) else ():
            if isinstance(block, Mapping):
                found |= collect_secrets({"secret": _addresses(block.get("alerts"))}, environ)
                found |= _headers(block.get("otel"), environ)
    if token_env and environ.get(token_env):
        found |= collect_secrets({"token": environ[token_env]})
    return frozenset(found)


def _addresses(alerts: Any) -> Any:
    """Return what may be an address in an ``alerts`` block, well written or not."""
    if not isinstance(alerts, Mapping):
        return alerts
    return [value for name, value in alerts.items() if name == "to" or name not in keys_of(AlertSettings)]


def _headers(otel: Any, environ: Mapping[str, str]) -> frozenset[str]:
    """Return the values of the headers that a collector is sent."""
    name = otel.get("headers_env") if isinstance(otel, Mapping) else None
    if not isinstance(otel, Mapping):
        return frozenset()
    text = environ.get(str(name or OtelSettings.model_fields["headers_env"].default), "")
    values = [value.strip() for _, _, value in (part.partition("=") for part in text.split(","))]
    return collect_secrets({"secret": [*values, *map(unquote, values)]})
