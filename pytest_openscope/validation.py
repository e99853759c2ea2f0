"""Joins the ready-made checks, their recorder and the kept results for a session that validates its rig."""

from __future__ import annotations

from typing import Any

import pytest

_SUITE = "pytest_openscope.checks"


def aim_at_checks(config: pytest.Config) -> None:
    """``--validate-rig``: collect the ready-made checks, and beside them only what was named on the command line."""
    given = list(config.args) if config.args_source is pytest.Config.ArgsSource.ARGS else []
    config.args = [_SUITE, *(argument for argument in given if argument != _SUITE)]
    config.option.pyargs = True
    # As pytest itself does for --pyargs: a conftest above an installed package may be anybody's.
    config.pluginmanager._using_pyargs = True


def record_checks(configuration: Any, session_uuid: str, config: pytest.Config, *, validating: bool) -> None:
    """Keep what checks find, the lab's own ``rig_check`` tests included; a dry run's results are shown and not kept."""
    from .checks.recorder import PLUGIN_NAME, CheckRecorder
    from .readiness import keeper

    keep = None if configuration.dry_run else keeper(configuration.rig.state_directory, configuration.rig_file)
    recorder = CheckRecorder(configuration, session_uuid, keep, complete=validating)
    config.pluginmanager.register(recorder, PLUGIN_NAME)
