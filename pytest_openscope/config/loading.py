"""Reads everything that a user gave and tells all that is wrong with it at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..log import ExactMasker, weak_secret_keys
from ..records import Mistake, Phase, name_problem
from .configuration import Configuration, SettingsReading, expand_typed, find_secrets, make_expander, read_own_parameters
from .fields import CONTROL_REMEDY, Section, Wrong, check, control_characters, kind_name, show
from .files import kind_of, read_mapping
from .lab_models import load_model, read_values
from .layers import apply_override, overlay, parse_override, source_of
from .models import (
    FLAT_GITHUB,
    KNOWN_IN_RIG,
    KNOWN_PARAMETERS,
    PARAMETERS,
    PIPELINES,
    RIG_KEYS,
    Device,
    Readiness,
    Requirements,
    Rig,
    RigFile,
    Settings,
)
from .pipelines import check_acquisitions, read_pipelines
from .placeholders import Expander
from .roots import default_state_directory, foreign_path, host_name, local_path
from .suggest import nearest

REQUIRED = ("subject_id", "user_id")
_RIG_ONLY = ("devices", "requirements", "readiness", "state_directory", "rig_model")
_OFF = ("", "none", "disabled")
#: Keys that say which class drives a device: ours, and those of other programs' rig files (happi's ``device_class``).
_DRIVER_KEYS = frozenset({"driver", "device_class", "class", "class_name"})


@dataclass(frozen=True)
class ConfigRequest:
    """What the user gave.

    Attributes:
        rig_config: the rig file.
        rig_config_where: what named it (``--rig-config``).
        params_files: parameter files; more than one is a mistake.
        given: dotted key, value and what gave it, above the files, lowest first; without key the value is a text ``KEY=VALUE``.
        dry_run, no_input: as decided.
        validating: the rig is validated, so that an unusable output root is a finding, not a mistake.
        cwd: what relative paths are relative to.
        environ: environment variables.
    """

    rig_config: Path | None
    rig_config_where: str = "--rig-config"
    params_files: tuple[Path, ...] = ()
    given: tuple[tuple[str | None, Any, str], ...] = ()
    dry_run: bool = False
    no_input: bool = False
    validating: bool = False
    cwd: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """What :func:`load` found: a configuration, or everything that is wrong.

    ``missing`` names required values (``subject_id``) that nobody gave; they are no mistakes as long as somebody can be asked.
    """

    configuration: Configuration | None
    mistakes: tuple[Mistake, ...] = ()
    missing: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def load(request: ConfigRequest) -> Loaded:
    """Read rig file, parameter file and overrides; nothing is created, nothing is asked.

    The result has a configuration, or mistakes: all of them, with file, key, value and remedy, and no secret in any.
    """
    return _Loading(request).run()


class _Loading:
    """One pass over everything the user gave: the sources are laid over each other, then all is checked once."""

    def __init__(self, request: ConfigRequest) -> None:
        self.request = request
        self.mistakes: list[Mistake] = []
        self.notices: list[str] = []
        self.rig_where = ""
        self.raw: dict[str, Any] = {}
        self.rig_keys: dict[str, Any] = {}
        self.rig_sources: dict[str, str] = {}
        self.values: dict[str, Any] = {}
        self.defaults: dict[str, Any] = {}
        self.merged: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.parameter_file: Path | None = None
        #: Blocks that something above them replaced; they hold secrets all the same, and stand in files and on command lines.
        self.replaced: list[dict[str, Any]] = []

    def wrong(self, where: str, key: str, problem: str, remedy: str = "") -> None:
        """Add a mistake."""
        self.mistakes.append(Mistake(where, problem, remedy, key))

    def run(self) -> Loaded:
        """Read, merge, check."""
        complete = self._read_rig()
        complete = self._read_parameters() and complete
        for key, value, where in self.request.given:
            self._override(key, value, where)
        _normalise(self.merged)
        missing = tuple(key for key in REQUIRED if not self.merged.get(key))
        if not complete:
            self._check_rig_keys()
            return self._failed(missing)
        request, rig = self.request, self._rig()
        self._check_demands()
        pipelines, mistakes = read_pipelines(self.merged, self.sources)
        self.mistakes += [*mistakes, *check_acquisitions(self.merged, self.sources)]
        self._check_references(rig)
        self._tell_weak_secrets()
        expander = make_expander(self.merged, rig, request.environ)
        reading = SettingsReading(self.merged, self.sources, rig, expander)
        settings = reading.read(request.cwd, request.dry_run, request.validating)
        _, mistakes = read_own_parameters(self.merged, self.sources, rig, expander)
        told = {mistake.key for mistake in self.mistakes}
        suggested = " ".join(mistake.remedy for mistake in self.mistakes)
        self.mistakes += [
            mistake
            for mistake in (*reading.mistakes, *mistakes)
            if mistake.key not in told and f"did you mean {mistake.key}?" not in suggested
        ]
        self.notices += reading.notices
        if self.mistakes:
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
            dry_run=request.dry_run,
            cwd=request.cwd,
            environ=request.environ,
            validating=request.validating,
        )
        return Loaded(configuration, (), missing, tuple(self.notices))

    def _failed(self, missing: tuple[str, ...]) -> Loaded:
        masker = ExactMasker(self._secrets())
        mistakes = tuple(
            Mistake(masker(one.where), masker(one.problem), masker(one.remedy), masker(one.key)) for one in self.mistakes
        )
        return Loaded(None, tuple(dict.fromkeys(mistakes)), missing, tuple(masker(notice) for notice in self.notices))

    def _secrets(self) -> frozenset[str]:
        return find_secrets(self.merged, self.raw, *self.replaced, environ=self.request.environ)

    def _shown(self, path: Path) -> str:
        try:
            return path.relative_to(self.request.cwd).as_posix()
        except ValueError:
            return str(path)

    # The sources, from the lowest to the highest.

    def _read_rig(self) -> bool:
        path = self.request.rig_config
        if path is None:
            self.wrong("--rig-config", "", "no rig configuration is given", "give --rig-config PATH")
            return False
        self.rig_where = self._shown(path)
        raw = read_mapping(path, self.rig_where, "rig configuration", self.mistakes)
        if isinstance(raw, Mistake):
            where = f"{raw.where} (named by {self.request.rig_config_where})"
            self.mistakes.append(Mistake(where, raw.problem, raw.remedy))
            return False
        self.raw = deepcopy(raw)
        self._sort_rig(raw)
        own = {key: value for key, value in self.values.items() if key not in KNOWN_IN_RIG and key not in PIPELINES}
        overlay(self.merged, own, self.rig_where, self.sources)
        overlay(self.merged, self.defaults, self.rig_where, self.sources)
        return True

    def _sort_rig(self, raw: Mapping[str, Any]) -> None:
        """Sort the rig file: the rig's own keys, defaults of parameters, the lab's values."""
        for section in ("", "values", "parameters"):
            written = raw.get(section) if section else raw
            for key, value in written.items() if isinstance(written, dict) else ():
                if section == "values":
                    self._take(self.values, section, key, value)
                elif key in PIPELINES:
                    path = f"{section}.{key}" if section else key
                    self.wrong(self.rig_where, path, "a rig file cannot hold pipelines", "move it into a parameter file")
                elif key in RIG_KEYS and not section:
                    overlay(self.rig_keys, {key: value}, self.rig_where, self.rig_sources)
                elif near := None if key in KNOWN_PARAMETERS else nearest(key, (*KNOWN_IN_RIG, *PIPELINES)):
                    remedy = f"did you mean {near}? (a value of the lab's own goes under 'values:')"
                    self.wrong(self.rig_where, f"{section}.{key}" if section else key, "unknown key", remedy)
                else:
                    self._take(self.defaults if section or key in KNOWN_PARAMETERS else self.values, section, key, value)
        self.defaults = _translate(self.defaults)
        self._tell_what_is_not_used()

    def _take(self, target: dict[str, Any], section: str, key: str, value: Any) -> None:
        if key in target:
            self.wrong(self.rig_where, f"{section}.{key}", "stands at the top level too", "remove one of the two")
        else:
            target[key] = value

    def _tell_what_is_not_used(self) -> None:
        """Tell once of values that look like devices, or like the rig's id, and are taken as neither."""
        if self.rig_keys.get("rig_model"):
            return  # the lab's model says what its values are
        where, name = self.rig_where, self.rig_keys.get("rig_id")
        alike = [key for key, value in self.values.items() if _looks_like_devices(value)]
        if alike and not self.rig_keys.get("devices"):
            verb = "looks" if len(alike) == 1 else "look"
            self.notices.append(
                f"{where}: {', '.join(alike)}: {verb} like devices, and are the lab's own values"
                " -> to have them opened, simulated and checked, write 'devices: {NAME: {driver: \"module:Class\"}}'"
            )
        for key, value in self.values.items():
            if key.lower().replace("-", "_") in ("rig_name", "rig", "rigid") and isinstance(value, str) and value != name:
                used = f"rig_id, {name!r}" if name else "the host's name, since there is no rig_id"
                self.notices.append(f"{where}: {key}: not used as the rig's name; that is {used} -> write 'rig_id: {value}'")

    def _read_parameters(self) -> bool:
        files = self.request.params_files
        if len(files) > 1:
            names = ", ".join(self._shown(path) for path in files)
            self.wrong(names, "", "a session has one parameter file", "give one, by --params or as an argument")
            return False
        if not files:
            return True
        self.parameter_file = files[0]
        where = self._shown(files[0])
        raw = read_mapping(files[0], where, "parameter file", self.mistakes)
        if isinstance(raw, Mistake):
            self.mistakes.append(raw)
            return False
        for key in _RIG_ONLY:
            if key in raw:
                self.wrong(where, key, "belongs to the rig", "move it into the rig file")
        own_id, rig_id = raw.get("rig_id"), self.rig_keys.get("rig_id")
        if own_id is not None and rig_id is not None and str(own_id) != str(rig_id).strip():
            self.notices.append(f"{where}: rig_id: not used; the rig file's {str(rig_id).strip()!r} counts")
        layer = {key: value for key, value in raw.items() if key not in (*_RIG_ONLY, "rig_id")}
        known = {*KNOWN_PARAMETERS, *_RIG_ONLY, "rig_id"}
        for key in layer:
            if key not in known and (near := nearest(key, known)):
                self.wrong(where, key, "unknown key", f"did you mean {near}?")
        self.replaced.append({"alerts": layer.get("alerts")})
        overlay(self.merged, _translate(layer), where, self.sources)
        return True

    def _override(self, key: str | None, value: Any, where: str) -> None:
        try:
            if key is None:
                key, value = parse_override(value)
            name = key.split(".")[0]
            if name == "alerts" and key.split(".")[1:2] in ([], ["to"]):
                self.replaced.append({"alerts": value if name == key else {"to": value}})
            near = None if name in self.merged or name in KNOWN_IN_RIG else nearest(name, (*KNOWN_IN_RIG, *PIPELINES))
            if near and name not in PIPELINES:
                raise Wrong("unknown key", f"did you mean {near}?", key)
            if name in RIG_KEYS:
                apply_override(self.rig_keys, key, value, where, self.rig_sources)
            else:
                for path, part in _translate({key: value}).items():
                    apply_override(self.merged, path, part, where, self.sources)
        except Wrong as wrong:
            self.mistakes.append(wrong.at(where))

    # The checks of what came together.

    def _check(self, model: type[Section], section: Any, path: str, strict: bool = False) -> Any:
        """Check one block of the rig; each mistake names what set its value."""
        where = source_of(self.rig_sources, path, self.rig_where) if path else self.rig_where
        read, mistakes = check(model, section, where, path, strict=strict)
        self.mistakes += [dataclasses.replace(one, where=source_of(self.rig_sources, one.key, where)) for one in mistakes]
        return read

    def _check_rig_keys(self) -> RigFile:
        read: RigFile = self._check(RigFile, self.rig_keys, "")
        self._check(Requirements, read.requirements, "requirements", strict=True)
        self._check(Readiness, read.readiness, "readiness", strict=True)
        for name, options in read.devices.items():
            self._check_device(name, options)
        return read

    def _check_device(self, name: str, options: Any) -> None:
        path = f"devices.{name}"
        where = source_of(self.rig_sources, path, self.rig_where)
        if not name.strip() or any(char in ".=*:[]" or char.isspace() for char in name):
            self.wrong(where, path, "a device's name cannot hold blanks or . = * : [ ]", "rename it, e.g. body_camera")
            return
        if not isinstance(options, dict):
            remedy = 'write {driver: "module:Class", params: {…}}'
            self.wrong(where, path, f"a mapping expected, not {kind_of(options)}", remedy)
            return
        before = len(self.mistakes)
        self._check(Device, options, path)
        found = self.mistakes[before:]
        if not options.get("driver") and not any("driver" in one.remedy or "driver" in one.key for one in found):
            self.wrong(where, f"{path}.driver", "is missing", 'name the driver: "module:Class" or a ready-made one')

    def _rig(self) -> Rig:
        request = self.request
        assert request.rig_config is not None
        keys = self._check_rig_keys()
        rig_id = Expander({}, self.values.__getitem__, request.environ)(keys.rig_id or host_name())
        if problem := name_problem(rig_id):
            where = source_of(self.rig_sources, "rig_id", self.rig_where)
            self.wrong(where, "rig_id", f"{show(rig_id)} {problem}", "give a shorter one in plain letters")
        self.merged["rig_id"] = rig_id
        self.sources.setdefault("rig_id", source_of(self.rig_sources, "rig_id") if keys.rig_id else "the host's name")
        rig: Rig = Rig(
            rig_id=rig_id,
            path=request.rig_config,
            state_directory=default_state_directory(rig_id, request.environ),
            output_root_folder=self.defaults.get("output_root_folder"),
            devices=dict(keys.devices),
            requirements=dict(keys.requirements),
            readiness=dict(keys.readiness),
            modules=dict(keys.modules),
            values_=self.values,
            defaults=self.defaults,
            raw=self.raw,
        )
        rig = dataclasses.replace(rig, state_directory=self._state_directory(rig, keys.state_directory))
        return self._with_model(rig, keys.rig_model)

    def _state_directory(self, rig: Rig, written: str | None) -> Path:
        given = self.request.environ.get("OPENSCOPE_STATE_DIRECTORY")
        where = "environment OPENSCOPE_STATE_DIRECTORY" if given else source_of(self.rig_sources, "state_directory")
        text = given or written
        if not text:
            return rig.state_directory
        text = make_expander(self.merged, rig, self.request.environ)(text)
        if odd := control_characters(text):
            self.wrong(where, "state_directory", odd, CONTROL_REMEDY)
            return rig.state_directory
        if foreign := foreign_path(text):
            if not self.request.dry_run:
                self.wrong(where, "state_directory", f"{show(text)} {foreign}", "give a path of this system")
            return rig.state_directory
        return local_path(text, self.request.cwd)

    def _with_model(self, rig: Rig, reference: str | None) -> Rig:
        """Return the rig with its values as the lab's model has them."""
        if not reference:
            return rig
        where = source_of(self.rig_sources, "rig_model", self.rig_where)
        try:
            model = load_model(reference, rig.path.parent)
        except Wrong as wrong:
            self.mistakes.append(wrong.at(where, "rig_model"))
            return rig
        expander = make_expander(self.merged, rig, self.request.environ)
        values, mistakes = read_values(model, expand_typed(self.values, expander), self.rig_where, "values.")
        self.mistakes += mistakes
        return dataclasses.replace(rig, model=values)

    def _check_demands(self) -> None:
        """Find what the program, or a session over several PCs, needs and does not have."""
        kind = str(self.merged.get("launcher") or "base").strip().lower()
        needed = None if self.merged.get("acquisitions") else {"python": "script_path", "command": "command"}.get(kind)
        if needed and not self.merged.get(needed) and not any(needed == mistake.key for mistake in self.mistakes):
            self._lacks("launcher", needed, f"is missing; launcher {kind} needs it", f"give {needed}")
        role = str(self.merged.get("session_sync_role") or "").strip().lower()
        if role not in ("master", "slave"):
            return
        if self.merged.get("session_sync_port") is None:
            remedy = "give the port that all PCs share, e.g. 47001"
            self._lacks("session_sync_role", "session_sync_port", f"is missing; a {role} needs it", remedy)
        if role == "slave" and not self.merged.get("session_sync_master_host"):
            problem, remedy = "is missing; a slave needs it", "give the master's address"
            self._lacks("session_sync_role", "session_sync_master_host", problem, remedy)
        name = str(self.merged.get("session_sync_key_param") or "subject_id")
        if not self.merged.get("session_sync_session_key") and name not in REQUIRED and not self.merged.get(name):
            problem = f"{show(name)} names no parameter that has a value"
            remedy = "give a parameter that is the same on all PCs, e.g. subject_id"
            self._lacks("session_sync_key_param", "session_sync_key_param", problem, remedy)

    def _lacks(self, asking: str, key: str, problem: str, remedy: str) -> None:
        self.wrong(source_of(self.sources, asking), key, problem, remedy)

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
                            self.wrong(where, path, f"refers to itself: {problem.name}", "break the circle")
                    elif problem.kind == "mapping":
                        remedy = f"name one of its values, e.g. {{rig_param:{problem.name}.KEY}}"
                        self.wrong(where, path, f"{{rig_param:{problem.name}}} is no single value", remedy)
                    else:
                        self._unknown_rig_param(where, path, problem.name)

    def _unknown_rig_param(self, where: str, path: str, name: str) -> None:
        near = nearest(name, [*self.values, *self.defaults, *self.rig_keys])
        remedy = (
            f"did you mean {near}?"
            if near
            else f"add {name} to {self.rig_where}" + (f" (it has {', '.join(sorted(self.values)[:12])})" if self.values else "")
        )
        self.wrong(where, path, f"{{rig_param:{name}}} names no key of the rig", remedy)

    def _tell_weak_secrets(self) -> None:
        if weak := dict.fromkeys((*weak_secret_keys(self.merged), *weak_secret_keys(self.raw))):
            self.notices.append(
                f"{', '.join(weak)}: the secret is an ordinary word, which cannot be hidden everywhere in logs and reports"
                " -> choose a longer one, with digits or signs"
            )


def _looks_like_devices(value: Any) -> bool:
    """Tell whether a value is one device, or several of them as a list or a mapping."""
    several = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(one, dict) and not _DRIVER_KEYS.isdisjoint(one) for one in (value, *several))


def _translate(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return one source's parameters with the older spellings (``github_issue_repo``, ``session_sync_mode``) as today's."""
    layer = deepcopy(dict(written))
    _normalise(layer)
    if layer.get("session_sync_mode") is not None:
        layer.setdefault("session_sync_role", layer["session_sync_mode"])
        if layer["session_sync_role"] == layer["session_sync_mode"]:
            del layer["session_sync_mode"]
    flat = {option: layer[name] for name, option in FLAT_GITHUB.items() if name in layer}
    block = layer.get("github_issue")
    if flat and (block is None or isinstance(block, dict)):
        for name in FLAT_GITHUB:
            layer.pop(name, None)
        layer["github_issue"] = {**flat, **(block or {})}
    return layer


def _normalise(layer: dict[str, Any]) -> None:
    """Make ids texts, and the words that switch the synchronisation off null."""
    for name in ("session_sync_role", "session_sync_mode"):
        if isinstance(layer.get(name), str) and layer[name].strip().lower() in _OFF:
            layer[name] = None
    for name in PARAMETERS:
        value = layer.get(name)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and kind_name(Settings, name) == "id":
            layer[name] = str(value).strip()


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield every text in a value, with its dotted key."""
    if isinstance(value, str):
        yield path, value
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in parts:
        yield from _texts(item, f"{path}.{key}")
