"""Reads what the user gave: options, ini keys and environment variables, each with where it came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .options import FLAGS, VALUES, absolute, rig_config_of

#: The package of the ready-made checks of a rig.
CHECKS = "pytest_openscope.checks"
_TRUE = {"1", "true", "yes", "on"}
#: Options after which pytest only shows something; they create nothing.
_INFORMATIONAL = (
    "collectonly",
    "setupplan",
    "showfixtures",
    "show_fixtures_per_test",
    "markers",
    "cacheshow",
    "help",
    "version",
)


@dataclass(frozen=True)
class Options:
    """What the user gave, with where each value came from."""

    rig_config: Path
    rig_config_where: str
    params_files: tuple[Path, ...]
    ini_overrides: tuple[str, ...]
    ini_where: str
    param_overrides: tuple[str, ...]
    named: Mapping[str, tuple[object, str]]
    options: Mapping[str, tuple[object, str]]
    dry_run: bool
    strict: bool
    no_input: bool
    wait_for_rig_s: float
    inject: tuple[str, ...]
    validate_rig: bool
    all_checks: bool
    override_readiness: str | None
    continue_session: str | None
    resume_session: Path | None
    informational: bool
    allow_dirty: bool = False
    live: str = ""

    @property
    def acquisition_faults(self) -> tuple[str, ...]:
        """What ``--inject acquisition=…`` asked for, as written."""
        return tuple(text for text in self.inject if _aims_at_acquisition(text))

    @property
    def device_faults(self) -> tuple[str, ...]:
        """The other faults."""
        return tuple(text for text in self.inject if not _aims_at_acquisition(text))


def _aims_at_acquisition(text: str) -> bool:
    return text.partition("=")[0].strip() == "acquisition"


def read_options(config: pytest.Config) -> Options:
    """Collect the options of an active run."""
    located = rig_config_of(config)
    assert located is not None
    cwd = config.invocation_params.dir
    named: dict[str, tuple[object, str]] = {}
    chosen: dict[str, tuple[object, str]] = {}
    for option, ini, variable, key, _ in VALUES:
        if config.getini(ini):
            named[key] = (config.getini(ini), f"{ini} in {config.inipath}")
        if os.environ.get(variable):
            named[key] = (os.environ[variable], f"environment {variable}")
        value = config.getoption(option)
        if value is not None:
            chosen[key] = (value, option)
    if _flag(config, *FLAGS[2][:3]):
        chosen["session_report"] = (False, FLAGS[2][0])
    checks = checks_among(config)
    wait = config.getoption("--wait-for-rig")
    if wait is None:
        wait = _number(os.environ.get("OPENSCOPE_WAIT_FOR_RIG") or config.getini("openscope_wait_for_rig") or "0")
    return Options(
        rig_config=located[0],
        rig_config_where=located[1],
        params_files=_params_files(config, cwd),
        ini_overrides=tuple(config.getini("openscope_param")),
        ini_where=f"openscope_param in {config.inipath}",
        param_overrides=tuple(config.getoption("--param")),
        named=named,
        options=chosen,
        dry_run=_flag(config, *FLAGS[0][:3]),
        strict=_is_strict(config),
        no_input=_flag(config, *FLAGS[1][:3]),
        wait_for_rig_s=wait,
        inject=tuple(config.getoption("--inject")),
        validate_rig=bool(config.getoption("--validate-rig") or checks),
        all_checks=not checks or CHECKS in checks,
        override_readiness=config.getoption("--override-readiness"),
        continue_session=config.getoption("--continue-session"),
        resume_session=absolute(resumed, cwd) if (resumed := config.getoption("--resume-session")) else None,
        informational=any(getattr(config.option, name, False) for name in _INFORMATIONAL),
        allow_dirty=bool(config.getoption("--allow-dirty")),
        live="" if resumed else _live(config),
    )


def _is_strict(config: pytest.Config) -> bool:
    """Tell whether pytest's own ``--strict`` is given; before pytest 9 it is no ini key."""
    try:
        return bool(config.getini("strict"))
    except ValueError:
        return bool(getattr(config.option, "strict", False))


def checks_among(config: pytest.Config) -> list[str]:
    """Return the arguments that name the ready-made checks, or some of them: ``--pyargs pytest_openscope.checks``."""
    if not config.option.pyargs:
        return []
    return [argument for argument in config.args if argument == CHECKS or argument.startswith((f"{CHECKS}.", f"{CHECKS}::"))]


def positional_parameter_files(config: pytest.Config) -> tuple[Path, ...]:
    """Return the JSON files among the positional arguments, each once, in order."""
    found = []
    for argument in config.args:
        name = argument.split("::", 1)[0]
        if name.lower().endswith(".json"):
            path = absolute(name, config.invocation_params.dir)
            if path not in found:
                found.append(path)
    return tuple(found)


def _params_files(config: pytest.Config, cwd: Path) -> tuple[Path, ...]:
    positional = positional_parameter_files(config)
    given = [absolute(path, cwd) for path in config.getoption("--params") or ()]
    if not given and not positional:
        if os.environ.get("OPENSCOPE_PARAMS"):
            given = [absolute(os.environ["OPENSCOPE_PARAMS"], cwd)]
        elif config.getini("openscope_params"):
            given = [absolute(config.getini("openscope_params"), config.inipath.parent if config.inipath else cwd)]
    return (*given, *positional)


def _flag(config: pytest.Config, option: str, ini: str, variable: str) -> bool:
    value: Any = config.getoption(option)
    if value is not None:
        return bool(value)
    if variable in os.environ:
        return os.environ[variable].strip().lower() in _TRUE
    return bool(config.getini(ini))


def _live(config: pytest.Config) -> str:
    """Return where the live page is to be; empty without one."""
    given = config.getoption("--live")
    return str(given if given is not None else os.environ.get("OPENSCOPE_LIVE") or config.getini("openscope_live")).strip()


def _number(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        raise pytest.UsageError(f"--wait-for-rig: {text!r} is no number of seconds -> give one, e.g. 60") from None
