"""Fixtures of the ready-made rig validation; they need a session that runs with ``--rig-config``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from .recorder import PLUGIN_NAME
from .result import CheckResult
from .suite import NAME, REPEATED, RigChecks, report


@pytest.fixture(scope="session")
def rig_checks(request: pytest.FixtureRequest) -> RigChecks:
    """The rig as the checks see it."""
    found = _found(request.config)
    if found is None:
        pytest.skip("no rig to validate: this needs pytest --rig-config rig.yaml --validate-rig")
    return found


@pytest.fixture
def said(request: pytest.FixtureRequest, rig_checks: RigChecks) -> Callable[[CheckResult], None]:
    """Turns a result into the outcome of this test."""
    return lambda result: report(request, result, rig_checks.dry_run)


def pytest_pycollect_makeitem(collector: object, name: str, obj: object) -> list[pytest.Item] | None:
    """Leave out what the rig does not declare: a check of nothing is no news, and nothing to count."""
    if name.startswith("test_") and inspect.isfunction(obj):
        found = _found(collector.config) if isinstance(collector, pytest.Collector) else None
        for fixture in inspect.signature(obj).parameters:
            if fixture in REPEATED and (found is None or not found.things(REPEATED[fixture])):
                return []
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat a check for everything that the rig file declares."""
    for fixture, kind in REPEATED.items():
        if fixture in metafunc.fixturenames:
            found = _found(metafunc.config)
            metafunc.parametrize(fixture, found.things(kind) if found is not None else [], ids=str)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the checks their names."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and isinstance(item, pytest.Function):
            item.stash[NAME] = _check_name(item)


def _check_name(item: pytest.Function) -> str:
    """Return what the results of a check are called: ``clock``, ``disk.fsync``, ``devices[laser]``."""
    plain = item.originalname.removeprefix("test_")
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    for parameter, value in parameters.items():
        return f"{REPEATED[parameter]}[{value}]" if parameter in REPEATED else f"{plain}.{value}"
    return plain


def _found(config: pytest.Config) -> RigChecks | None:
    recorder = config.pluginmanager.getplugin(PLUGIN_NAME)
    return getattr(recorder, "rig_checks", None)
