"""Declares the plugin's options: command line, ini keys, environment variables. Loaded in every run of pytest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

#: option, ini key, environment variable, parameter that it sets ("" when it steers the run itself), help
VALUES = (
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
FLAGS = (
    ("--dry-run", "openscope_dry_run", "OPENSCOPE_DRY_RUN", "touch nothing real: simulate acquisition and devices"),
    ("--no-input", "openscope_no_input", "OPENSCOPE_NO_INPUT", "never ask: a missing value is an error"),
    (
        "--no-session-report",
        "openscope_no_session_report",
        "OPENSCOPE_NO_SESSION_REPORT",
        "make no session_report.html at the end (session_report: false)",
    ),
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
    for option, _, variable, _, text in VALUES:
        group.addoption(option, metavar="PATH" if option == "--output-root" else "ID", help=f"{text} (or {variable})")
    for option, _, variable, text in FLAGS:
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
    for _, ini, _, _, text in VALUES:
        parser.addini(ini, text, default="")
    for _, ini, _, text in FLAGS:
        parser.addini(ini, text, type="bool", default=False)


def rig_config_of(config: pytest.Config) -> tuple[Path, str] | None:
    """Return the rig file and what names it, or None when this is no experiment; cheap, for the inert case."""
    given = getattr(config.known_args_namespace, "rig_config", None) or getattr(config.option, "rig_config", None)
    if given:
        return absolute(given, config.invocation_params.dir), "--rig-config"
    variable = os.environ.get("OPENSCOPE_RIG_CONFIG")
    if variable:
        return absolute(variable, config.invocation_params.dir), "environment OPENSCOPE_RIG_CONFIG"
    ini = config.getini("rig_config")
    if ini:
        base = config.inipath.parent if config.inipath else config.rootpath
        return absolute(ini, base), f"rig_config in {config.inipath}"
    return None


def absolute(path: str | Path, base: Path) -> Path:
    """Return a path that a user gave, without following links."""
    expanded = Path(path).expanduser()
    return Path(os.path.abspath(base / expanded))  # noqa: PTH100 - resolve() follows links
