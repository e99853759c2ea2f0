"""Declares and reads the plugin's options: command line, ini keys, environment variables. Loaded in every run of pytest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..config import ConfigRequest

#: The package of the ready-made checks of a rig.
CHECKS = "pytest_openscope.checks"
#: option: parameter that it sets, metavar, help; ini key and environment variable are named after the option.
VALUES = {
    "--subject-id": ("subject_id", "ID", "the subject of this session"),
    "--user-id": ("user_id", "ID", "who runs this session"),
    "--output-root": ("output_root_folder", "PATH", "folder in which the session folder is created"),
}
FLAGS = {
    "--dry-run": "touch nothing real: simulate acquisition and devices",
    "--no-input": "never ask: a missing value is an error",
    "--no-session-report": "make no session_report.html at the end (session_report: false)",
}
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


def ini_of(option: str) -> str:
    """Return an option's ini key: ``openscope_dry_run`` of ``--dry-run``."""
    return f"openscope_{option.strip('-').replace('-', '_')}"


def variable_of(option: str) -> str:
    """Return an option's environment variable: ``OPENSCOPE_DRY_RUN`` of ``--dry-run``."""
    return ini_of(option).upper()


def add_options(parser: pytest.Parser) -> None:
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
    for option, (_, metavar, text) in VALUES.items():
        group.addoption(option, metavar=metavar, help=f"{text} (or {variable_of(option)})")
        parser.addini(ini_of(option), text, default="")
    for option, text in FLAGS.items():
        group.addoption(option, action="store_true", default=None, help=f"{text} (or {variable_of(option)}=1)")
        parser.addini(ini_of(option), text, type="bool", default=False)
    group.addoption("--wait-for-rig", metavar="SECONDS", type=float, help="wait this long while another session holds the rig")
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
        f" unless PORT is given (or {variable_of('--live')})",
    )
    parser.addini("rig_config", "rig configuration, relative to this file", default="")
    parser.addini("openscope_params", "parameter file, relative to this file", default="")
    parser.addini("openscope_param", "parameters, one KEY=VALUE a line", type="linelist", default=[])
    parser.addini("openscope_live", "[HOST:]PORT of the live page; empty: none", default="")
    parser.addini("openscope_wait_for_rig", "seconds to wait while another session holds the rig", default="")


def rig_config_of(config: pytest.Config) -> tuple[Path, str] | None:
    """Return the rig file and what names it, or None when this is no experiment; cheap, for the inert case."""
    given = getattr(config.known_args_namespace, "rig_config", None) or getattr(config.option, "rig_config", None)
    if given:
        return absolute(given, config.invocation_params.dir), "--rig-config"
    variable = os.environ.get("OPENSCOPE_RIG_CONFIG")
    if variable:
        return absolute(variable, config.invocation_params.dir), "environment OPENSCOPE_RIG_CONFIG"
    ini = config.getini("rig_config")
    return (absolute(ini, _ini_folder(config)), f"rig_config in {config.inipath}") if ini else None


def absolute(path: str | Path, base: Path) -> Path:
    """Return a path that a user gave, without following links."""
    expanded = Path(path).expanduser()
    return Path(os.path.abspath(base / expanded))  # noqa: PTH100 - resolve() follows links


def _ini_folder(config: pytest.Config) -> Path:
    return config.inipath.parent if config.inipath else config.rootpath


@dataclass(frozen=True)
class Options:
    """What the user gave.

    Attributes:
        request: what configures the session, with where each value came from.
    """

    request: ConfigRequest
    strict: bool
    wait_for_rig_s: float
    inject: tuple[str, ...]
    all_checks: bool
    override_readiness: str | None
    continue_session: str | None
    resume_session: Path | None
    informational: bool
    allow_dirty: bool
    live: str

    @property
    def acquisition_faults(self) -> tuple[str, ...]:
        """What ``--inject acquisition=…`` asked for, as written."""
        return tuple(text for text in self.inject if text.partition("=")[0].strip() == "acquisition")

    @property
    def device_faults(self) -> tuple[str, ...]:
        return tuple(text for text in self.inject if text not in self.acquisition_faults)


def read_options(config: pytest.Config, rig_config: tuple[Path, str]) -> Options:
    from ..config import ConfigRequest

    cwd = config.invocation_params.dir
    texts = [(None, text, f"openscope_param in {config.inipath}") for text in config.getini("openscope_param")]
    named: list[tuple[str, Any, str]] = []
    chosen: list[tuple[str, Any, str]] = []
    for option, (key, _, _) in VALUES.items():
        if value := config.getini(ini_of(option)):
            named.append((key, value, f"{ini_of(option)} in {config.inipath}"))
        if value := os.environ.get(variable_of(option)):
            named.append((key, value, f"environment {variable_of(option)}"))
        if (value := config.getoption(option)) is not None:
            chosen.append((key, value, option))
    if _flag(config, "--no-session-report"):
        chosen.append(("session_report", False, "--no-session-report"))
    checks = checks_among(config)
    resumed = config.getoption("--resume-session")
    request = ConfigRequest(
        rig_config=rig_config[0],
        rig_config_where=rig_config[1],
        params_files=_params_files(config),
        given=(*texts, *named, *((None, text, "--param") for text in config.getoption("--param")), *chosen),
        dry_run=_flag(config, "--dry-run"),
        no_input=_flag(config, "--no-input") or bool(resumed),
        validating=bool(config.getoption("--validate-rig") or checks),
        cwd=cwd,
        environ=dict(os.environ),
    )
    return Options(
        request=request,
        strict=_is_strict(config),
        wait_for_rig_s=_seconds(_given(config, "--wait-for-rig")),
        inject=tuple(config.getoption("--inject")),
        all_checks=not checks or CHECKS in checks,
        override_readiness=config.getoption("--override-readiness"),
        continue_session=config.getoption("--continue-session"),
        resume_session=absolute(resumed, cwd) if resumed else None,
        informational=any(getattr(config.option, name, False) for name in _INFORMATIONAL),
        allow_dirty=config.getoption("--allow-dirty"),
        live="" if resumed else _given(config, "--live"),
    )


def _is_strict(config: pytest.Config) -> bool:
    """Tell whether pytest's own ``--strict`` is given; before pytest 9 it is no ini key."""
    try:
        return bool(config.getini("strict"))
    except ValueError:
        return bool(getattr(config.option, "strict", False))


def _given(config: pytest.Config, option: str) -> str:
    """Return the text of an option, else of its environment variable, else of its ini key; "" without any."""
    value = config.getoption(option)
    return str(value if value is not None else os.environ.get(variable_of(option)) or config.getini(ini_of(option))).strip()


def _flag(config: pytest.Config, option: str) -> bool:
    if config.getoption(option) is not None:
        return True
    if variable_of(option) in os.environ:
        return os.environ[variable_of(option)].strip().lower() in _TRUE
    return bool(config.getini(ini_of(option)))


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text or "0"))
    except ValueError:
        raise pytest.UsageError(f"--wait-for-rig: {text!r} is no number of seconds -> give one, e.g. 60") from None


def checks_among(config: pytest.Config) -> list[str]:
    """Return the arguments that name the ready-made checks, or some of them: ``--pyargs pytest_openscope.checks``."""
    if not config.option.pyargs:
        return []
    return [argument for argument in config.args if argument == CHECKS or argument.startswith((f"{CHECKS}.", f"{CHECKS}::"))]


def _params_files(config: pytest.Config) -> tuple[Path, ...]:
    cwd = config.invocation_params.dir
    given = [absolute(path, cwd) for path in config.getoption("--params") or ()]
    names = [argument.split("::", 1)[0] for argument in config.args]
    positional = dict.fromkeys(absolute(name, cwd) for name in names if name.lower().endswith(".json"))
    if given or positional:
        return (*given, *positional)
    if variable := os.environ.get(variable_of("--params")):
        return (absolute(variable, cwd),)
    ini = config.getini("openscope_params")
    return (absolute(ini, _ini_folder(config)),) if ini else ()
