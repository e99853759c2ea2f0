"""``--outcomes FILE``: writes what became of each test as soon as it is known, so that a run that is stopped has told, too.

One JSON object a line: how many tests were collected, each phase of a test that says something, and the exit code at the end.
``table.py`` reads them. The root ``conftest.py`` loads this on Windows.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, metavar="FILE", help="write what became of each test to this file, for table.py")


def pytest_configure(config: pytest.Config) -> None:
    path: Path | None = config.getoption("--outcomes")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(path))


class Outcomes:
    """Told by the hooks of pytest, in the process that starts the workers."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("w", encoding="utf-8", buffering=1)

    def _write(self, **facts: object) -> None:
        self._stream.write(json.dumps(facts) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self._write(collected=len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._write(collected=len(ids))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(test=report.nodeid, outcome="failed")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "wasxfail"):
            self._write(test=report.nodeid, outcome="failed" if report.passed else "passed")
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._write(test=report.nodeid, outcome="skipped", reason=reason.removeprefix("Skipped: "))
        elif report.failed or report.when == "call":
            self._write(test=report.nodeid, outcome=report.outcome)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._write(exit_code=int(exitstatus))
        self._stream.close()
