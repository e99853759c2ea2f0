"""The plugin's options: command line, ini keys and environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: option, ini key, environment variable, parameter that it sets ("" when it steers the run itself), help
_VALUES = (
    ("--subject-id", "openscope_subject_id", "OPENSCOPE_SUBJECT_ID", "subject_id", "the subject of this session"),
    ("--user-id", "openscope_user_id", "OPENSCOPE_USER_ID", "user_id", "who runs this session"),
    (
        "--output-root",
        "openscope_output_root",
        "OPENSCOPE_OUTPUT_ROOT",
        "output_root_folder",
        "folder in which the session folder is created",
    ),
)
_FLAGS = (
    ("--dry-run", "openscope_dry_run", "OPENSCOPE_DRY_RUN", "touch nothing real: simulate acquisition and devices"),
    ("--no-input", "openscope_no_input", "OPENSCOPE_NO_INPUT", "never ask: a missing value is an error"),
    (
        "--no-session-report",
        "openscope_no_session_report",
        "OPENSCOPE_NO_SESSION_REPORT",
        "make no session_report.html at the end (session_report: false)",
    ),
)
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


def add_options(parser: pytest.Parser) -> None:
    """Register everything that a user may give; the only thing the plugin does when it is not asked for."""
    group = parser.getgroup("openscope", "laboratory experiments on rigs")
    group.addoption("--rig-config", metavar="PATH", help="rig configuration (YAML or TOML): run the tests as an experiment")
    group.addoption("--params", metavar="PATH", action="append", help="parameter file (JSON) that gives values to the tests")
    group.addoption(
        "--param",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="set one parameter; dotted keys, YAML values; repeatable",
    )
    for option, _, variable, _, text in _VALUES:
        group.addoption(option, metavar="PATH" if option == "--output-root" else "ID", help=f"{text} (or {variable})")
    for option, _, variable, text in _FLAGS:
        group.addoption(option, action="store_true", default=None, help=f"{text} (or {variable}=1)")
    group.addoption(
        "--wait-for-rig", metavar="SECONDS", type=float, default=None, help="wait this long while another session holds the rig"
    )
    group.addoption(
        "--inject",
        metavar="FAULT",
        action="append",
        default=[],
        help="dry runs: rehearse a fault, e.g. laser.open=TimeoutError",
    )
    group.addoption("--validate-rig", action="store_true", help="run the ready-made checks of the rig instead of an experiment")
    group.addoption(
        "--continue-session",
        metavar="FOLDER|last",
        help="go on where an earlier session of this rig and subject stopped: its parameters, a new numbered session",
    )
    group.addoption(
        "--resume-session",
        metavar="FOLDER",
        help="run the post-acquisition steps that this session did not reach before its process died (see 'resume')",
    )
    group.addoption(
        "--override-readiness", metavar="REASON", help="run although the rig's validation is stale or failed; logged"
    )
    group.addoption(
        "--allow-dirty",
        action="store_true",
        help="run although the experiment's repository has local changes; they are recorded in the session folder",
    )
    group.addoption(
        "--live",
        metavar="[HOST:]PORT",
        nargs="?",
        const="0",
        help="show the session in the browser while it runs, on this computer unless HOST says otherwise, on any free port"
        " unless PORT is given (or OPENSCOPE_LIVE)",
    )
    parser.addini("rig_config", "rig configuration, relative to this file", default="")
    parser.addini("openscope_params", "parameter file, relative to this file", default="")
    parser.addini("openscope_param", "parameters, one KEY=VALUE a line", type="linelist", default=[])
    parser.addini("openscope_live", "[HOST:]PORT of the live page; empty: none", default="")
    parser.addini("openscope_wait_for_rig", "seconds to wait while another session holds the rig", default="")
    for _, ini, _, _, text in _VALUES:
        parser.addini(ini, text, default="")
    for _, ini, _, text in _FLAGS:
        parser.addini(ini, text, type="bool", default=False)


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


def rig_config_of(config: pytest.Config) -> tuple[Path, str] | None:
    """Return the rig file and what names it, or None when this is no experiment; cheap, for the inert case."""
    given = getattr(config.known_args_namespace, "rig_config", None) or getattr(config.option, "rig_config", None)
    if given:
        return _absolute(given, config.invocation_params.dir), "--rig-config"
    variable = os.environ.get("OPENSCOPE_RIG_CONFIG")
    if variable:
        return _absolute(variable, config.invocation_params.dir), "environment OPENSCOPE_RIG_CONFIG"
    ini = config.getini("rig_config")
    if ini:
        base = config.inipath.parent if config.inipath else config.rootpath
        return _absolute(ini, base), f"rig_config in {config.inipath}"
    return None


def read_options(config: pytest.Config) -> Options:
    """Collect the options of an active run."""
    located = rig_config_of(config)
    assert located is not None
    cwd = config.invocation_params.dir
    named: dict[str, tuple[object, str]] = {}
    chosen: dict[str, tuple[object, str]] = {}
    for option, ini, variable, key, _ in _VALUES:
        if config.getini(ini):
            named[key] = (config.getini(ini), f"{ini} in {config.inipath}")
        if os.environ.get(variable):
            named[key] = (os.environ[variable], f"environment {variable}")
        value = config.getoption(option)
        if value is not None:
            chosen[key] = (value, option)
    if _flag(config, *_FLAGS[2][:3]):
        chosen["session_report"] = (False, _FLAGS[2][0])
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
        dry_run=_flag(config, *_FLAGS[0][:3]),
        strict=_is_strict(config),
        no_input=_flag(config, *_FLAGS[1][:3]),
        wait_for_rig_s=wait,
        inject=tuple(config.getoption("--inject")),
        validate_rig=bool(config.getoption("--validate-rig") or checks),
        all_checks=not checks or CHECKS in checks,
        override_readiness=config.getoption("--override-readiness"),
        continue_session=config.getoption("--continue-session"),
        resume_session=_absolute(resumed, cwd) if (resumed := config.getoption("--resume-session")) else None,
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
            path = _absolute(name, config.invocation_params.dir)
            if path not in found:
                found.append(path)
    return tuple(found)


def _params_files(config: pytest.Config, cwd: Path) -> tuple[Path, ...]:
    positional = positional_parameter_files(config)
    given = [_absolute(path, cwd) for path in config.getoption("--params") or ()]
    if not given and not positional:
        if os.environ.get("OPENSCOPE_PARAMS"):
            given = [_absolute(os.environ["OPENSCOPE_PARAMS"], cwd)]
        elif config.getini("openscope_params"):
            given = [_absolute(config.getini("openscope_params"), config.inipath.parent if config.inipath else cwd)]
    return (*given, *positional)


def _absolute(path: str | Path, base: Path) -> Path:
    expanded = Path(path).expanduser()
    return Path(os.path.abspath(base / expanded))  # noqa: PTH100 - resolve() follows links


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
