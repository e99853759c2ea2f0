"""Reading everything that a user gave, and saying all that is wrong with it at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import LAUNCHER_FORMAT_VERSION
from ..log import ExactMasker, weak_secret_keys
from ..records import Mistake, Phase, name_problem
from .coerce import CONTROL_REMEDY, control_characters, show
from .configuration import Configuration, find_secrets, make_expander, read_settings
from .layers import RIG_NAMES, Findings, RigLayer, check_near_matches, check_parameters, check_rig_blocks, sort_rig
from .merge import OverrideError, apply_override, overlay, parse_override, source_of, value_problem
from .model import ConfigRequest, Loaded, Rig
from .pipelines import read_pipelines
from .placeholders import Expander
from .reading import parse_value, read_mapping
from .roots import default_state_directory, foreign_path, host_name, local_path
from .schema import FLAT_GITHUB, KNOWN_IN_RIG, KNOWN_PARAMETERS, PARAMETERS, PIPELINES
from .suggest import nearest
from .versions import fits_version
from .yaml_rules import YamlError

REQUIRED = {"subject_id": "--subject-id", "user_id": "--user-id"}
#: What parameter files may ask for and this version does not do yet: key, value (None: any).
_NOT_YET = (("launcher", "bonsai"), ("launcher", "matlab"), ("repository_url", None), ("session_sync_role", None))
_RIG_ONLY = ("devices", "requirements", "readiness", "state_directory")


def load(request: ConfigRequest) -> Loaded:
    """Read rig file, parameter file and overrides; nothing is created, nothing is asked.

    The result has a configuration, or mistakes: all of them, with file, key, value and remedy, and no secret in any.
    """
    reading = _Reading(request)
    return reading.run()


def missing_mistakes(missing: tuple[str, ...]) -> list[Mistake]:
    """Return a mistake for each required value that nobody gave and nobody can be asked for."""
    return [
        Mistake(
            REQUIRED[key],
            "is required, and nobody can be asked for it",
            f"give {REQUIRED[key]}, set OPENSCOPE_{key.upper()}, or write it into the parameter file"
            f" or openscope_{key} into pytest.ini",
            key,
        )
        for key in missing
    ]


class _Reading:
    """One pass over everything the user gave; the steps share the values merged so far."""

    def __init__(self, request: ConfigRequest) -> None:
        self.request = request
        self.findings = Findings()
        self.rig_layer = RigLayer()
        self.merged: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.rig_where = ""
        self.parameter_file: Path | None = None

    def run(self) -> Loaded:
        """Read, merge, check."""
        complete = self._read_rig()
        complete = self._read_parameters() and complete
        self._overrides(self.request.ini_overrides, self.request.ini_where)
        self._named(self.request.named)
        self._overrides(self.request.param_overrides, "--param")
        self._named(self.request.options)
        missing = tuple(key for key in REQUIRED if not self.merged.get(key))
        if not complete:
            return self._failed(missing)
        rig = self._rig()
        self._check_demands()
        pipelines, mistakes = read_pipelines(self.merged, self.sources)
        self.findings.mistakes.extend(mistakes)
        self._check_references(rig)
        weak = dict.fromkeys((*weak_secret_keys(self.merged), *weak_secret_keys(self.rig_layer.raw)))
        if weak:
            self.findings.notices.append(
                f"{', '.join(weak)}: the secret is an ordinary word, which cannot be hidden everywhere in logs and reports"
                " -> choose a longer one, with digits or signs"
            )
        wrong_keys = {mistake.key for mistake in self.findings.mistakes}
        settings, mistakes, notices = read_settings(
            self.merged,
            self.sources,
            rig,
            self.request.dry_run,
            self.request.cwd,
            self.request.environ,
            validating=self.request.validating,
        )
        suggested = " ".join(mistake.remedy for mistake in self.findings.mistakes if "did you mean" in mistake.remedy)
        self.findings.mistakes.extend(
            mistake for mistake in mistakes if mistake.key not in wrong_keys and f"mean {mistake.key}?" not in suggested
        )
        self.findings.notices.extend(notices)
        if self.findings.mistakes or settings is None:
            return self._failed(missing)
        configuration = Configuration(
            rig=rig,
            rig_file=rig.path,
            parameter_file=self.parameter_file,
            parameters=self.merged,
            sources=self.sources,
            secrets=self._secrets(),
            settings=settings,
            pre_pipeline=pipelines[Phase.PRE_ACQUISITION],
            post_pipeline=pipelines[Phase.POST_ACQUISITION],
            dry_run=self.request.dry_run,
            no_input=self.request.no_input,
            cwd=self.request.cwd,
            environ=self.request.environ,
            validating=self.request.validating,
        )
        return Loaded(configuration, (), missing, tuple(self.findings.notices), tuple(self.findings.unknown))

    def _failed(self, missing: tuple[str, ...]) -> Loaded:
        masker = ExactMasker(self._secrets())
        mistakes = tuple(
            Mistake(masker(one.where), masker(one.problem), masker(one.remedy), masker(one.key))
            for one in self.findings.mistakes
        )
        return Loaded(None, tuple(dict.fromkeys(mistakes)), missing, tuple(masker(notice) for notice in self.findings.notices))

    def _secrets(self) -> frozenset[str]:
        block = self.merged.get("github_issue")
        token_env = (block.get("token_env") or "GITHUB_ISSUE_TOKEN") if isinstance(block, dict) else None
        environ = self.request.environ
        return find_secrets(
            self.merged, self.rig_layer.raw, environ=environ, token_env=token_env if isinstance(token_env, str) else None
        )

    def _shown(self, path: Path) -> str:
        try:
            return path.relative_to(self.request.cwd).as_posix()
        except ValueError:
            return str(path)

    def _read_rig(self) -> bool:
        path = self.request.rig_config
        if path is None:
            self.findings.wrong("--rig-config", "", "no rig configuration is given", "give --rig-config PATH")
            return False
        self.rig_where = self._shown(path)
        raw = read_mapping(path, self.rig_where, "rig configuration", self.findings.mistakes)
        if isinstance(raw, Mistake):
            where = f"{raw.where} (named by {self.request.rig_config_where})"
            self.findings.mistakes.append(Mistake(where, raw.problem, raw.remedy))
            return False
        self.rig_layer = sort_rig(raw, self.rig_where, self.findings)
        values = {
            key: value for key, value in self.rig_layer.values.items() if key not in KNOWN_IN_RIG and key not in PIPELINES
        }
        overlay(self.merged, values, self.rig_where, self.sources)
        overlay(self.merged, self.rig_layer.defaults, self.rig_where, self.sources)
        return True

    def _read_parameters(self) -> bool:
        files = self.request.params_files
        if len(files) > 1:
            names = ", ".join(self._shown(path) for path in files)
            self.findings.wrong(names, "", "a session has one parameter file", "give one, by --params or as an argument")
            return False
        if not files:
            return True
        self.parameter_file = files[0]
        where = self._shown(files[0])
        raw = read_mapping(files[0], where, "parameter file", self.findings.mistakes)
        if isinstance(raw, Mistake):
            self.findings.mistakes.append(raw)
            return False
        for key in _RIG_ONLY:
            if key in raw:
                self.findings.wrong(where, key, "belongs to the rig", "move it into the rig file")
        own_rig_id = raw.get("rig_id")
        if own_rig_id is not None and "rig_id" in self.rig_layer.rig and str(own_rig_id) != self.rig_layer.rig["rig_id"]:
            self.findings.notices.append(f"{where}: rig_id: not used; the rig file's {self.rig_layer.rig['rig_id']!r} counts")
        layer = {key: value for key, value in raw.items() if key not in (*_RIG_ONLY, "rig_id")}
        check_near_matches(layer, (*KNOWN_PARAMETERS, *_RIG_ONLY, "rig_id"), where, "", self.findings)
        overlay(self.merged, check_parameters(layer, where, self.findings), where, self.sources)
        return True

    def _named(self, named: Mapping[str, tuple[object, str]]) -> None:
        for name, (value, where) in named.items():
            if value is None:
                continue
            key = PARAMETERS.get(name)
            if isinstance(value, str) and (key is None or key.kind not in ("id", "text", "path", "choice", "level")):
                try:
                    value = parse_value(value)
                except YamlError as error:
                    self.findings.wrong(where, name, value_problem(error), "put it in quotes")
                    continue
            layer = {name: os.fspath(value) if isinstance(value, os.PathLike) else value}
            if name in RIG_NAMES:
                self._override_rig(name, layer[name], where)
                continue
            overlay(self.merged, check_parameters(layer, where, self.findings), where, self.sources)

    def _overrides(self, texts: tuple[str, ...], where: str) -> None:
        touched: dict[str, None] = {}
        for text in texts:
            try:
                key, value = parse_override(text)
                name = key.split(".")[0]
                near = None if name in self.merged or name in KNOWN_IN_RIG else nearest(name, (*KNOWN_IN_RIG, *PIPELINES))
                if near and name not in PIPELINES:
                    raise OverrideError(key, "unknown key", f"did you mean {near}?")
                if name in RIG_NAMES:
                    self._override_rig(key, value, where)
                    continue
                if name in FLAT_GITHUB or name == "session_sync_mode":
                    overlay(self.merged, check_parameters({key: value}, where, self.findings), where, self.sources)
                    continue
                apply_override(self.merged, key, value, where, self.sources)
                touched[name] = None
            except OverrideError as error:
                self.findings.wrong(where, error.key, error.problem, error.remedy)
        for name in touched:
            checked = check_parameters({name: self.merged[name]}, where, self.findings)
            if name in checked:
                self.merged[name] = checked[name]
            else:
                del self.merged[name]

    def _override_rig(self, key: str, value: Any, where: str) -> None:
        try:
            apply_override(self.rig_layer.rig, key, value, where, {})
        except OverrideError as error:
            self.findings.wrong(where, error.key, error.problem, error.remedy)
            return
        name = key.split(".")[0]
        check_rig_blocks({name: self.rig_layer.rig[name]}, where, self.findings)

    def _rig(self) -> Rig:
        layer, request = self.rig_layer, self.request
        assert request.rig_config is not None
        rig_id = str(layer.rig.get("rig_id") or host_name())
        rig_id = Expander({}, layer.values.__getitem__, request.environ)(rig_id)
        if problem := name_problem(rig_id):
            self.findings.wrong(self.rig_where, "rig_id", f"{show(rig_id)} {problem}", "give a shorter one in plain letters")
        self.merged["rig_id"] = rig_id
        self.sources.setdefault("rig_id", self.rig_where if layer.rig.get("rig_id") else "the host's name")
        rig = Rig(
            rig_id=rig_id,
            path=request.rig_config,
            state_directory=default_state_directory(rig_id, request.environ),
            output_root_folder=layer.defaults.get("output_root_folder"),
            devices=dict(layer.rig.get("devices") or {}),
            requirements=dict(layer.rig.get("requirements") or {}),
            readiness=dict(layer.rig.get("readiness") or {}),
            values_=layer.values,
            defaults=layer.defaults,
            raw=layer.raw,
        )
        given = request.environ.get("OPENSCOPE_STATE_DIRECTORY")
        where = "environment OPENSCOPE_STATE_DIRECTORY" if given else self.rig_where
        text = given or layer.rig.get("state_directory")
        if not isinstance(text, str):
            return rig
        text = make_expander(self.merged, rig, request.environ)(text)
        if odd := control_characters(text):
            self.findings.wrong(where, "state_directory", odd, CONTROL_REMEDY)
            return rig
        if foreign := foreign_path(text):
            if not request.dry_run:
                self.findings.wrong(where, "state_directory", f"{show(text)} {foreign}", "give a path of this system")
            return rig
        from dataclasses import replace

        return replace(rig, state_directory=local_path(text, request.cwd))

    def _check_demands(self) -> None:
        """Check what a parameter file asks of the program itself."""
        self._check_version()
        for name, value in _NOT_YET:
            given = self.merged.get(name)
            if given is None or given == "" or (value is not None and str(given).strip().lower() != value):
                continue
            where = source_of(self.sources, name)
            if self.request.dry_run:
                problem = f"{show(given, name)} is simulated; this version cannot do it yet"
                self.findings.unknown.append(Mistake(where, problem, "leave out --strict", name))
                self.findings.notices.append(
                    f"{where}: {name}: {show(given, name)} is simulated; this version cannot do it yet"
                )
            else:
                self.findings.wrong(
                    where,
                    name,
                    f"{show(given, name)} cannot be honoured by this version yet",
                    f"remove {name}, or use --dry-run",
                )
        kind = str(self.merged.get("launcher") or "base").strip().lower()
        needed = {"python": "script_path", "command": "command"}.get(kind)
        if needed and not self.merged.get(needed) and not any(needed == mistake.key for mistake in self.findings.mistakes):
            self.findings.wrong(
                source_of(self.sources, "launcher"), needed, f"is missing; launcher {kind} needs it", f"give {needed}"
            )

    def _check_version(self) -> None:
        specifier = self.merged.get("launcher_version")
        if not isinstance(specifier, str) or not specifier.strip():
            return
        where = source_of(self.sources, "launcher_version")
        try:
            fits = fits_version(specifier, LAUNCHER_FORMAT_VERSION)
        except ValueError:
            self.findings.wrong(
                where, "launcher_version", f"{show(specifier)} is no version specifier", "write e.g. '>=0.2,<0.3'"
            )
            return
        if not fits:
            self.findings.wrong(
                where,
                "launcher_version",
                f"{show(specifier)} excludes {LAUNCHER_FORMAT_VERSION}, whose format this version implements",
                "check that the file means the same here, then widen the specifier",
            )

    def _check_references(self, rig: Rig) -> None:
        """Follow every placeholder; report the ones that lead nowhere or in a circle."""
        circles: set[frozenset[str]] = set()
        blocks = {"devices": rig.devices, "requirements": rig.requirements, "readiness": rig.readiness}
        for top, value in (*self.merged.items(), *blocks.items()):
            for path, text in _texts(value, top):
                expander = make_expander(self.merged, rig, self.request.environ)
                expander(text, top if path == top else "")
                where = source_of(self.sources, path, self.rig_where)
                for problem in expander.problems:
                    if problem.kind == "cycle":
                        circle = frozenset(problem.name.split(" -> "))
                        if circle not in circles:
                            circles.add(circle)
                            self.findings.wrong(where, path, f"refers to itself: {problem.name}", "break the circle")
                    elif problem.kind == "mapping":
                        remedy = f"name one of its values, e.g. {{rig_param:{problem.name}.KEY}}"
                        self.findings.wrong(where, path, f"{{rig_param:{problem.name}}} is no single value", remedy)
                    else:
                        self._unknown_rig_param(where, path, problem.name)

    def _unknown_rig_param(self, where: str, path: str, name: str) -> None:
        known = [*self.rig_layer.values, *self.rig_layer.defaults, *self.rig_layer.rig]
        near = nearest(name, known)
        remedy = (
            f"did you mean {near}?"
            if near
            else f"add {name} to {self.rig_where}"
            + (f" (it has {', '.join(sorted(self.rig_layer.values)[:12])})" if self.rig_layer.values else "")
        )
        self.findings.wrong(where, path, f"{{rig_param:{name}}} names no key of the rig", remedy)


def _texts(value: Any, path: str) -> list[tuple[str, str]]:
    """Return every text in a value that may hold a reference, with its dotted key."""
    if isinstance(value, str):
        return [(path, value)] if "{" in value else []
    if isinstance(value, Mapping):
        return [found for key, item in value.items() for found in _texts(item, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in _texts(item, f"{path}.{index}")]
    return []
