"""A parameter file as an experiment: each pipeline entry and the acquisition become pytest items."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..acquisition import describe_command, runs_nothing
from ..records import Phase
from .step_tools import acquisition_of, module_context_of
from .steps import session_of

if TYPE_CHECKING:
    from ..config import Configuration, PipelineEntry

_ACQUISITION = "acquisition"


class Collector:
    """Collects the one parameter file of the session, if it was given as a positional argument."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        if file_path != self._configuration.parameter_file or not parent.session.isinitpath(file_path):
            return None
        node: ParameterFile = ParameterFile.from_parent(parent, path=file_path)
        node.configuration = self._configuration
        return node


class ParameterFile(pytest.Module):
    """The file; a module without code, so that fixtures and plugins treat its items as they treat tests."""

    configuration: Configuration

    def _getobj(self) -> types.ModuleType:
        return types.ModuleType(self.path.stem)

    def collect(self) -> Iterator[pytest.Collector]:
        for phase in Phase:
            node: PhaseNode = PhaseNode.from_parent(self, name=str(phase))
            node.configuration, node.phase = self.configuration, phase
            yield node


class PhaseNode(pytest.Collector):
    """One phase of the file."""

    configuration: Configuration
    phase: Phase

    def collect(self) -> Iterator[pytest.Item]:
        configuration = self.configuration
        if self.phase is Phase.ACQUISITION:
            settings = configuration.settings
            name = Path(settings.script_path or _ACQUISITION).stem or _ACQUISITION
            if settings.launcher in ("base", "command") or settings.acquisitions:
                name = _ACQUISITION
            yield self._step(name, run_acquisition, "continue")
            return
        from ..modules import limit_of

        entries = configuration.pre_pipeline if self.phase is Phase.PRE_ACQUISITION else configuration.post_pipeline
        for entry in entries:
            retry = {"attempts": entry.attempts, "retry_delay_s": entry.retry_delay_s}
            item = self._step(entry.name, _entry_body(entry), entry.on_failure, **retry)
            item.timeout_s = limit_of(entry)
            yield item

    def _step(self, name: str, body: Any, policy: str, **retry: float) -> ParameterStep:
        item: ParameterStep = ParameterStep.from_parent(self, name=name, callobj=body)
        item.add_marker(getattr(pytest.mark, str(self.phase))(on_failure=policy, **retry))
        return item


class ParameterStep(pytest.Function):
    """One step of the file."""

    openscope_kind = "entry"
    timeout_s: float | None = None

    def runtest(self) -> None:
        if self.timeout_s is None:
            super().runtest()
            return
        message = f"timeout: {self.name} took longer than timeout_s = {self.timeout_s:g} s"
        with session_of(self.config).watchdog.limited(f"{self.nodeid} timeout_s", self.timeout_s, message):
            super().runtest()

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, self.nodeid.split("::", 1)[-1]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        """A module that reports failure, or an acquisition that fails, says it all in its message."""
        if hasattr(excinfo.value, "openscope_kind"):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


def run_acquisition(request: pytest.FixtureRequest) -> None:
    """Run the acquisition that the parameters describe; launcher ``base`` runs nothing."""
    session = session_of(request.config)
    api = acquisition_of(session)
    if session.dry_run:
        if runs_nothing(session.parameters):
            session.simulate("acquisition", describe_command(session.parameters, session.folder))
            return
        session.keep("simulated", "acquisition")
    api.run_parameters(session.parameters)


def _entry_body(entry: PipelineEntry) -> Callable[[pytest.FixtureRequest], None]:
    def body(request: pytest.FixtureRequest) -> None:
        session = session_of(request.config)
        from ..modules import run_entry

        expanded = session.expanded_entry(entry)
        if not run_entry(expanded, module_context_of(session, expanded)):
            session.keep("simulated", entry.name)

    return body
