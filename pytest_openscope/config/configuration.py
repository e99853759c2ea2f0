"""The configuration of one session, before and after its placeholders are replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..log import collect_secrets
from ..records import ConfigurationError, Mistake, is_folder_name, name_problem, session_name
from .coerce import Wrong, check_section, coerce, has_placeholder, show
from .frozen import record
from .merge import source_of
from .model import Expanded, GithubIssueSettings, PipelineEntry, Rig, Settings, look_up
from .placeholders import Expander
from .reading import parse_value
from .roots import foreign_path, is_relative, output_root
from .schema import GITHUB_KEYS, PARAMETER_KEYS
from .yaml_rules import YamlError

_TEXT_KINDS = ("id", "text", "path", "any", "choice", "level", "duration")


@record(frozen=True)
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
        parameters = {**self.parameters, **{key: str(answer).strip() for key, answer in answers.items()}}
        sources = {**self.sources, **dict.fromkeys(answers, "the operator")}
        settings, mistakes, _ = read_settings(
            parameters, sources, self.rig, self.dry_run, self.cwd, self.environ, validating=self.validating
        )
        if settings is None or mistakes:
            raise ConfigurationError(mistakes)
        return dataclasses.replace(self, parameters=parameters, sources=sources, settings=settings)

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
        settings, mistakes, _ = read_settings(
            self.parameters,
            self.sources,
            self.rig,
            self.dry_run,
            self.cwd,
            self.environ,
            expander,
            validating=self.validating,
        )
        if settings is None or mistakes:
            raise ConfigurationError(mistakes)
        settings = dataclasses.replace(settings, session_uuid=session_uuid, output_root=self.settings.output_root)
        return Expanded(
            parameters=expander.all(self.parameters),
            settings=settings,
            rig=expand_rig(self.rig, expander),
            pre_pipeline=tuple(expand_entry(entry, expander) for entry in self.pre_pipeline),
            post_pipeline=tuple(expand_entry(entry, expander) for entry in self.post_pipeline),
        )


def expand_entry(entry: PipelineEntry, expander: Expander) -> PipelineEntry:
    """Return a pipeline entry with its placeholders replaced."""
    return dataclasses.replace(
        entry,
        module_path=expander(entry.module_path),
        parameters=expander(entry.parameters),
        function_args=None if entry.function_args is None else expander(entry.function_args),
    )


def expand_rig(rig: Rig, expander: Expander) -> Rig:
    """Return a rig with its placeholders replaced, those of its devices among them."""
    return dataclasses.replace(
        rig,
        devices=_typed(rig.devices, expander),
        requirements=expander(rig.requirements),
        readiness=expander(rig.readiness),
        values_=expander(rig.values_),
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

    def rig_lookup(key: str) -> Any:
        try:
            return look_up(parameters, key)
        except KeyError:
            return look_up({**rig.raw, **rig.values_, "rig_id": rig.rig_id}, key)

    session: dict[str, str] = {}
    if session_uuid is not None:
        session["session_uuid"] = session_uuid
    if session_folder is not None:
        session["output_session_folder"] = session["session_folder"] = str(session_folder)
    return Expander({**parameters, "rig_id": rig.rig_id}, rig_lookup, environ, session)


def read_settings(
    parameters: Mapping[str, Any],
    sources: Mapping[str, str],
    rig: Rig,
    dry_run: bool,
    cwd: Path,
    environ: Mapping[str, str],
    expander: Expander | None = None,
    *,
    validating: bool = False,
) -> tuple[Settings | None, list[Mistake], list[str]]:
    """Return typed settings from the merged values, what is wrong with them, and notices."""
    expand = expander or make_expander(parameters, rig, environ)
    mistakes: list[Mistake] = []
    notices: list[str] = []
    values: dict[str, Any] = {}
    for key in PARAMETER_KEYS:
        if not key.setting or key.name in ("output_root_folder", "github_issue"):
            continue
        raw = parameters.get(key.name)
        try:
            values[key.setting] = coerce(key, reread(raw, expand(raw, key.name), key.kind), key.name)
        except Wrong as wrong:
            mistakes.append(Mistake(source_of(sources, key.name), wrong.problem, wrong.remedy, key.name))
    for name in ("subject_id", "user_id", "session_uuid"):
        values[name] = values.get(name) or None
    report = _github(parameters.get("github_issue"), values.get("report_wait_s", 5.0), sources, expand, mistakes)
    values["github_issue"] = report
    if report is not None:
        values["report_wait_s"] = report.report_wait_s
    root = expand(parameters.get("output_root_folder"), "output_root_folder")
    try:
        values["output_root"], notice = _root(root, parameters, cwd, dry_run, validating)
        notices.extend([notice] if notice else [])
    except Wrong as wrong:
        where = source_of(sources, "output_root_folder", rig.path.name)
        mistakes.append(Mistake(where, wrong.problem, wrong.remedy, "output_root_folder"))
    _check_places(values, sources, dry_run, mistakes)
    return (None if mistakes else Settings(rig_id=rig.rig_id, **values)), mistakes, notices


def _root(text: str | None, parameters: Mapping[str, Any], cwd: Path, dry_run: bool, validating: bool) -> tuple[Path, str]:
    pending = [name for name in ("subject_id", "user_id") if text and f"{{{name}}}" in text and not parameters.get(name)]
    if pending:
        return cwd / text if text else cwd, ""
    return output_root(text, cwd, dry_run, look=not validating)


def _typed(value: Any, expander: Expander) -> Any:
    """Expand the values of devices; one that is nothing but a placeholder keeps the type of what it stands for."""
    if isinstance(value, dict):
        return {key: _typed(item, expander) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item, expander) for item in value]
    found = expander.number(value) if isinstance(value, str) else None
    return expander(value) if found is None else found


def reread(raw: Any, expanded: Any, kind: str) -> Any:
    """Read an expanded text as the number, flag or list that its key wants; where nothing was expanded, leave it."""
    if kind in _TEXT_KINDS or not isinstance(raw, str) or not has_placeholder(raw) or not isinstance(expanded, str):
        return expanded
    try:
        return parse_value(expanded)
    except YamlError:
        return expanded


def _github(
    block: Any, wait_s: float, sources: Mapping[str, str], expand: Expander, mistakes: list[Mistake]
) -> GithubIssueSettings | None:
    if not isinstance(block, dict):
        return None
    where = source_of(sources, "github_issue")
    kinds = {key.name: key.kind for key in GITHUB_KEYS}
    written = {name: reread(value, expand(value), kinds.get(name, "any")) for name, value in block.items()}
    values, wrong, _ = check_section(where, "github_issue", written, GITHUB_KEYS, "allowed")
    mistakes.extend(wrong)
    if wrong:
        return None
    if values["enabled"] and not values["repo"]:
        mistakes.append(Mistake(where, "is missing", "write e.g. my-lab/my-experiments", "github_issue.repo"))
        return None
    if values["report_wait_s"] is None:
        values["report_wait_s"] = wait_s
    return GithubIssueSettings(**values)


def _check_places(values: Mapping[str, Any], sources: Mapping[str, str], dry_run: bool, mistakes: list[Mistake]) -> None:
    log = values.get("session_log") or ""
    parts = log.replace("\\", "/").split("/")
    if log and (".." in parts or log.startswith(("/", "\\")) or ":" in log or not parts[-1].strip()):
        mistakes.append(
            Mistake(
                source_of(sources, "session_log"),
                f"{show(log)} is no file inside the session folder",
                "give a relative path, e.g. logs/session.log",
                "session_log",
            )
        )
    name = values.get("session_uuid")
    if name and not has_placeholder(name) and not is_folder_name(name):
        mistakes.append(
            Mistake(
                source_of(sources, "session_uuid"),
                f"{show(name)} is no folder name",
                'leave out < > : " / \\ | ? * and a dot at the end, and names that Windows keeps for itself (CON, COM1)',
                "session_uuid",
            )
        )
    _check_names(values, sources, mistakes)
    mirror = values.get("centralized_log_directory")
    if not mirror:
        return
    where = source_of(sources, "centralized_log_directory")
    if is_relative(mirror, dry_run):
        problem, remedy = "is a relative path", r"give a full path (\\server\logs or /mnt/logs)"
    elif not dry_run and (problem := foreign_path(mirror)):
        remedy = "give a path of this system, or null for no mirror"
    else:
        return
    mistakes.append(Mistake(where, f"{show(mirror)} {problem}", remedy, "centralized_log_directory"))


def _check_names(values: Mapping[str, Any], sources: Mapping[str, str], mistakes: list[Mistake]) -> None:
    """Find the inputs of which no folder or file of the session can be named."""
    subject, uuid, log = values.get("subject_id"), values.get("session_uuid"), values.get("session_log") or ""
    made = [("session_uuid", uuid)] if uuid else [("subject_id", session_name(subject, datetime.now()))] if subject else []
    made += [("session_log", part) for part in log.replace("\\", "/").split("/")]
    for key, name in made:
        if not has_placeholder(name) and (problem := name_problem(name)):
            mistakes.append(
                Mistake(source_of(sources, key), f"{show(values[key])} {problem}", "give a shorter one in plain letters", key)
            )


def find_secrets(*values: Any, environ: Mapping[str, str], token_env: str | None) -> frozenset[str]:
    """Return every secret of the configuration, the report token among them."""
    found: set[str] = set()
    for value in values:
        found |= collect_secrets(value, environ)
    if token_env and environ.get(token_env):
        found |= collect_secrets({"token": environ[token_env]})
    return frozenset(found)
