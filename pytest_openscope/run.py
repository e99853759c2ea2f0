"""From pytest's configuration to a running experiment: everything that can go wrong before any hardware moves."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .errors import ConfigurationError, Mistake
from .logs import SessionLog
from .operator import Operator, someone_is_there
from .options import Options, read_options

if TYPE_CHECKING:
    from .config import Configuration, Loaded
    from .session import ExperimentSession

_log = logging.getLogger("pytest_openscope")
_RIG_VARIABLE = "OPENSCOPE_RIG_CONFIG"
_HOW_TO_GIVE = {
    "subject_id": "give --subject-id ID, OPENSCOPE_SUBJECT_ID or subject_id in the parameter file",
    "user_id": "give --user-id ID, OPENSCOPE_USER_ID or user_id in the parameter file",
}


class ExperimentRun:
    """One pytest run with a rig: collects log records at once, and starts the session once the configuration holds."""

    def __init__(self, config: pytest.Config, *, terminal: bool) -> None:
        self.config = config
        self.log = SessionLog(logging.DEBUG)
        self.log.install()
        self.session: ExperimentSession | None = None
        self._terminal = terminal
        self._terminal_fd = _terminal_fd(config)
        self._variable = os.environ.pop(_RIG_VARIABLE, None)

    def configure(self) -> None:
        """Read and check everything, then start the session.

        Raises:
            pytest.UsageError: what the user gave cannot be run; names every mistake. Nothing was created.
        """
        if self._variable is not None:
            os.environ[_RIG_VARIABLE] = self._variable
        options = read_options(self.config)
        os.environ.pop(_RIG_VARIABLE, None)
        self._refuse_workers()
        loaded = self._load(options)
        configuration = loaded.configuration
        mistakes = [*loaded.mistakes, *_check_options(options)]
        if configuration is not None:
            mistakes += _check_parts(configuration, options)
        if mistakes or configuration is None:
            raise pytest.UsageError(_complaint(mistakes))
        from . import parameter_file

        if configuration.parameter_file in _positional(self.config):
            self.config.pluginmanager.register(parameter_file.Collector(configuration), "openscope-parameter-file")
        self.config.pluginmanager.import_plugin("pytest_openscope.fixtures")
        if options.validate_rig:
            self._collect_checks()
        if options.informational:
            return
        self._start(configuration, options, loaded)

    def _start(self, configuration: Configuration, options: Options, loaded: Loaded) -> None:
        from .session import ExperimentSession
        from .steps import register_hooks

        operator = Operator(someone_is_there(options.no_input, self._terminal), self._capture_suspended)
        configuration = self._ask_missing(configuration, options, loaded, operator)
        self.log.set_levels(configuration.settings.log_level, configuration.settings.log_levels)
        session = ExperimentSession(self.config, self.log, configuration, options, operator)
        session.terminal_fd = self._terminal_fd
        session.start(loaded.notices)
        self.session = session
        register_hooks(session, self.config)

    def _collect_checks(self) -> None:
        """Collect the ready-made checks, and the lab's own ones where the command line names them."""
        from pathlib import Path

        config = self.config
        given = list(config.args) if config.args_source is config.ArgsSource.ARGS else []
        checks = Path(__file__).parent / "checks"
        config.args = [str(checks), *given]
        # Nothing above the checks is this rig's: in a checkout it is the project's own conftest.
        config.pluginmanager._confcutdir = checks

    def _refuse_workers(self) -> None:
        option = self.config.option
        if getattr(option, "dist", "no") != "no" and getattr(option, "tx", None):
            raise pytest.UsageError(
                "an experiment cannot run under pytest-xdist: one rig, one process -> leave out -n and --dist"
            )
        if getattr(option, "forked", False):
            raise pytest.UsageError("an experiment cannot run with --forked: steps share the rig's hardware -> leave it out")

    def _load(self, options: Options) -> Loaded:
        from .config import ConfigRequest, load

        return load(
            ConfigRequest(
                rig_config=options.rig_config,
                rig_config_where=options.rig_config_where,
                params_files=options.params_files,
                param_overrides=options.param_overrides,
                named=options.named,
                options=options.options,
                dry_run=options.dry_run,
                no_input=options.no_input,
                cwd=self.config.invocation_params.dir,
                environ=dict(os.environ),
            )
        )

    def _ask_missing(self, configuration: Configuration, options: Options, loaded: Loaded, operator: Operator) -> Configuration:
        if not loaded.missing or options.validate_rig:
            return configuration
        if not operator.available:
            raise pytest.UsageError(
                _complaint([Mistake(key, "is missing, and nobody can be asked", _HOW_TO_GIVE[key]) for key in loaded.missing])
            )
        from .answers import last_answers, remember_answers

        state_directory = configuration.rig.state_directory
        last = last_answers(state_directory)
        answers = {}
        try:
            for key in loaded.missing:
                while not (answer := operator.ask(f"{key}:", last.get(key)).strip()):
                    continue
                answers[key] = answer
        except EOFError:
            raise pytest.UsageError(
                _complaint([Mistake(key, "was not answered", _HOW_TO_GIVE[key]) for key in loaded.missing])
            ) from None
        remember_answers(state_directory, answers)
        try:
            return configuration.with_answers(answers)
        except ConfigurationError as error:
            raise pytest.UsageError(_complaint(list(error.mistakes))) from None

    @contextmanager
    def _capture_suspended(self) -> Iterator[None]:
        manager: Any = self.config.pluginmanager.getplugin("capturemanager")
        if manager is None:
            yield
            return
        manager.suspend(in_=True)
        try:
            yield
        finally:
            manager.resume()

    def unconfigure(self) -> None:
        """End what has not ended yet (pytest stopped before its session finished) and give everything back."""
        try:
            if self.session is not None:
                self.session.finish(None)
        finally:
            self.log.close()
            self.log.uninstall()
            if self._variable is not None:
                os.environ[_RIG_VARIABLE] = self._variable


def _terminal_fd(config: pytest.Config) -> int | None:
    """Return a duplicate of the real stderr; None when it is no terminal."""
    from .operator import real_descriptor

    try:
        fd = real_descriptor(config, 2)
        return os.dup(fd) if os.isatty(fd) else None
    except OSError:
        return None


def _positional(config: pytest.Config) -> tuple[Any, ...]:
    from .options import positional_parameter_files

    return positional_parameter_files(config)


def _check_options(options: Options) -> list[Mistake]:
    if options.inject and not options.dry_run:
        return [Mistake("--inject", "faults are rehearsed in dry runs only", "add --dry-run")]
    return []


def _check_parts(configuration: Configuration, options: Options) -> list[Mistake]:
    """Let the parts check what only they understand; each part is imported only where the configuration uses it."""
    mistakes: list[Mistake] = []
    entries = (*configuration.pre_pipeline, *configuration.post_pipeline)
    if entries:
        from .acquisition.commands import repository_folder
        from .modules.contract import check_entries

        folders = [configuration.cwd]
        if configuration.parameter_file is not None:
            folders.insert(0, configuration.parameter_file.parent)
        repository = repository_folder(configuration.parameters)
        mistakes += check_entries(entries, repository=repository, folders=folders, dry_run=configuration.dry_run)
    if configuration.parameter_file is not None:
        from .acquisition import commands

        mistakes += commands.check(configuration.parameters, configuration.dry_run)
    if configuration.rig.devices:
        from .devices.spec import check_specs

        rig_file = configuration.rig_file
        mistakes += check_specs(configuration.rig.devices, rig_file.parent, configuration.dry_run, rig_file.name)
    if options.inject and options.dry_run:
        from .devices.faults import parse_injections

        mistakes += parse_injections(options.inject, list(configuration.rig.devices), dry_run=True)[1]
    return mistakes


def _complaint(mistakes: list[Mistake]) -> str:
    if len(mistakes) == 1:
        return str(mistakes[0])
    return f"{len(mistakes)} mistakes, nothing was started:\n" + "\n".join(f"  {mistake}" for mistake in mistakes)
