"""Fixtures of the ready-made rig validation; they need a session that runs with ``--rig-config``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .recorder import PLUGIN_NAME
from .result import CheckResult
from .suite import RigChecks, report

_REPEATED = {
    "device_name": "devices",
    "executable": "executables",
    "repository": "repositories",
    "serial_port": "serial_ports",
    "tcp_port": "tcp_ports",
    "variable": "environment",
}


@pytest.fixture(scope="session")
def rig_checks(request: pytest.FixtureRequest) -> RigChecks:
    """The rig as the checks see it."""
    found = _found(request.config)
    if found is None:
        pytest.skip("no rig to validate: this needs pytest --rig-config rig.yaml --validate-rig")
    return found


@pytest.fixture
def said(request: pytest.FixtureRequest) -> Callable[[CheckResult], None]:
    """Turns a result into the outcome of this test."""
    return lambda result: report(request, result)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat a check for everything that the rig file declares."""
    for fixture, kind in _REPEATED.items():
        if fixture in metafunc.fixturenames:
            found = _found(metafunc.config)
            metafunc.parametrize(fixture, found.things(kind) if found is not None else [], ids=str)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what the rig does not declare: a check of nothing is no news."""
    here = Path(__file__).parent
    items[:] = [item for item in items if not (item.path.parent == here and item.name.endswith("[NOTSET]"))]


def _found(config: pytest.Config) -> RigChecks | None:
    recorder = config.pluginmanager.getplugin(PLUGIN_NAME)
    return getattr(recorder, "rig_checks", None)
