"""Reads and checks all that the user gave, before there is a session: everything that can go wrong before hardware moves."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ..log import SessionLog
from ..records import ConfigurationError, Mistake
from .collecting import NO_PYTEST_RETRY
from .continuing import Earlier, check_subject, find_earlier, not_taken_over
from .given_options import Options, checks_among, read_options
from .operator import Operator, someone_is_there
from .options import rig_config_of
from .rescue import parameters_of

if TYPE_CHECKING:
    from ..config import Configuration, Loaded
    from ..views import TerminalView
    from .session import ExperimentSession

_log = logging.getLogger("pytest_openscope")
_RIG_VARIABLE = "OPENSCOPE_RIG_CONFIG"
_HOW_TO_GIVE = {
    key: f"give --{key.replace('_', '-')} ID, OPENSCOPE_{key.upper()}, {key} in a parameter file, openscope_{key} in pytest.ini"
    for key in ("subject_id", "user_id")
}


class ExperimentRun:
    """One pytest run with a rig: collects log records at once, and starts the session once the configuration holds."""

    def __init__(self, config: pytest.Config, *, terminal: bool) -> None:
        self.config = config
        self.log = SessionLog(logging.DEBUG)
        self.log.install()
        self.session: ExperimentSession | None = None
        self._view: TerminalView | None = None
        self._terminal = terminal
        self._terminal_fd = _terminal_fd(config)
        self._variable = os.environ.pop(_RIG_VARIABLE, None)
        # Where pytest refuses the command line it never comes to unconfigure.
        config.add_cleanup(self._give_back)

    def configure(self) -> None:
        """Read and check everything, then start the session.

        Raises:
            pytest.UsageError: what the user gave cannot be run; names every mistake. Nothing was created.
        """
        try:
            self._configure()
        except pytest.UsageError as error:
            if os.environ.get("GITHUB_ACTIONS") == "true":
                self._annotate(error)
            raise

    def _annotate(self, error: pytest.UsageError) -> None:
        """Mark the rig file in a job of GitHub Actions: pytest's own report of such an error is a line in the job's log."""
        from ..views import command
        from .operator import real_descriptor

        located = rig_config_of(self.config)
        text = command(str(error), title="pytest-openscope: nothing was started", file=located[0] if located else None)
        with suppress(OSError):
            os.write(real_descriptor(self.config, 2), f"{text}\n".encode())

    def _configure(self) -> None:
        if self._variable is not None:
            os.environ[_RIG_VARIABLE] = self._variable
        options = read_options(self.config)
        os.environ.pop(_RIG_VARIABLE, None)
        self._refuse_workers()
        earlier = self._earlier(options)
        loaded = self._load(options, earlier, self._resumed(options))
        configuration = loaded.configuration
        mistakes = [*loaded.mistakes, *_check_options(options), *_check_given_files(self.config)]
        unknown: list[Mistake] = []
        warnings: list[Mistake] = []
        if configuration is not None:
            mistakes += _check_parts(configuration, options, unknown, warnings)
        if earlier is not None and configuration is not None:
            mistakes += check_subject(earlier, configuration.settings.subject_id)
        if options.strict:
            mistakes += unknown
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
        not_checked = [f"{one.where}: {one.key}: {one.problem}" for one in unknown]
        loaded = replace(loaded, notices=(*loaded.notices, *map(str, warnings)))
        self._start(configuration, options, loaded, not_checked, earlier)

    def _start(
        self,
        configuration: Configuration,
        options: Options,
        loaded: Loaded,
        not_checked: list[str],
        earlier: Earlier | None,
    ) -> None:
        from ..views import TerminalView
        from .operator import real_descriptor
        from .session import ExperimentSession
        from .steps import register_hooks

        no_input = options.no_input or options.resume_session is not None
        self._view = view = TerminalView(self.config, real_descriptor(self.config, 1))
        operator = Operator(someone_is_there(no_input, self._terminal), self._capture_suspended, waiting=view.waiting)
        configuration = self._ask_missing(configuration, options, loaded, operator)
        self.log.set_levels(configuration.settings.log_level, configuration.settings.log_levels)
        session = ExperimentSession(self.config, self.log, configuration, options, operator)
        session.terminal_fd = self._terminal_fd
        session.view = view if options.resume_session is None else None
        session.earlier = earlier
        lacking = not_taken_over(earlier, configuration.parameters) if earlier is not None else []
        session.start([*loaded.notices, *lacking], not_checked)
        self.session = session
        register_hooks(session, self.config)
        try:
            session.interrupts.release()
        except KeyboardInterrupt:
            self._say(f"interrupted by {session.interrupts.cause}; no step runs. Session folder: {session.folder}")
            raise

    def _collect_checks(self) -> None:
        """Collect the ready-made checks, and the lab's own ones where the command line names them."""
        from pathlib import Path

        config = self.config
        checks = Path(__file__).parents[1] / "checks"
        if not checks_among(config):
            given = list(config.args) if config.args_source is config.ArgsSource.ARGS else []
            config.args = [str(checks), *given]
        # Nothing above the checks is this rig's: in a checkout it is the project's own conftest.
        config.pluginmanager._confcutdir = checks

    def _refuse_workers(self) -> None:
        option = self.config.option
        if getattr(option, "dist", "no") != "no" and getattr(option, "tx", None):
            raise pytest.UsageError(
                "an experiment cannot run under pytest-xdist: one rig, one process -> leave out -n and --dist"
            )
        if getattr(option, "retries", None):
            raise pytest.UsageError(NO_PYTEST_RETRY)
        if getattr(option, "forked", False):
            raise pytest.UsageError("an experiment cannot run with --forked: steps share the rig's hardware -> leave it out")

    def _earlier(self, options: Options) -> Earlier | None:
        """Return the session to be continued; None when there is none, or the rig file must be mended first."""
        if options.continue_session is None:
            return None
        from ..config import ConfigRequest, load

        cwd = self.config.invocation_params.dir
        named = {key: found for key, found in {**options.named, **options.options}.items() if key == "output_root_folder"}
        request = ConfigRequest(options.rig_config, options=named, dry_run=options.dry_run, cwd=cwd, environ=dict(os.environ))
        rig = load(request).configuration
        if rig is None:
            return None
        try:
            return find_earlier(options.continue_session, rig.rig.rig_id, rig.settings.output_root, cwd)
        except ConfigurationError as error:
            raise pytest.UsageError(_complaint(list(error.mistakes))) from None

    def _resumed(self, options: Options) -> Mapping[str, tuple[Any, str]]:
        """Return the parameters of the dead session whose post-acquisition is made up for."""
        try:
            return parameters_of(options.resume_session) if options.resume_session is not None else {}
        except ConfigurationError as error:
            raise pytest.UsageError(_complaint(list(error.mistakes))) from None

    def _load(self, options: Options, earlier: Earlier | None, resumed: Mapping[str, tuple[Any, str]]) -> Loaded:
        from ..config import ConfigRequest, load

        params_files = options.params_files
        if earlier is not None and earlier.parameter_file is not None and not params_files:
            params_files = (earlier.parameter_file,)
        return load(
            ConfigRequest(
                rig_config=options.rig_config,
                rig_config_where=options.rig_config_where,
                params_files=params_files,
                earlier=earlier.values if earlier is not None else resumed,
                ini_overrides=options.ini_overrides,
                ini_where=options.ini_where,
                param_overrides=options.param_overrides,
                named=options.named,
                options=options.options,
                dry_run=options.dry_run,
                no_input=options.no_input,
                validating=options.validate_rig,
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
        from .operator import last_answers, remember_answers

        state_directory = configuration.rig.state_directory
        last = last_answers(state_directory)
        answers = {}
        try:
            for key in loaded.missing:
                while not (answer := operator.ask(f"{key}:", last.get(key)).strip()):
                    continue
                answers[key] = answer
        except KeyboardInterrupt:
            self._say("interrupted before the session began; nothing was started")
            raise
        except EOFError:
            raise pytest.UsageError(
                _complaint([Mistake(key, "was not answered", _HOW_TO_GIVE[key]) for key in loaded.missing])
            ) from None
        remember_answers(state_directory, answers)
        try:
            return configuration.with_answers(answers)
        except ConfigurationError as error:
            raise pytest.UsageError(_complaint(list(error.mistakes))) from None

    def _say(self, text: str) -> None:
        """Tell the operator where pytest, which has not begun to report, would end without a word."""
        from .operator import say_at_once

        say_at_once(self.config, text)

    @contextmanager
    def _capture_suspended(self) -> Iterator[None]:
        terminal: Any = self.config.pluginmanager.getplugin("terminalreporter")
        manager: Any = self.config.pluginmanager.getplugin("capturemanager")
        if manager is None:
            _begin_a_line(terminal)
            yield
            return
        capture = getattr(manager, "_global_capturing", None)
        was_on = capture is None or capture.is_started()
        manager.suspend(in_=True)
        _begin_a_line(terminal)
        try:
            yield
        finally:
            manager.resume()
            if not was_on:
                # While plugins are configured pytest's output goes to the terminal: left on, it would take all of it.
                manager.suspend_global_capture(in_=False)

    def unconfigure(self) -> None:
        """End what has not ended yet (pytest stopped before its session finished) and give everything back."""
        try:
            if self.session is not None:
                self.session.finish(None)
        finally:
            if self._view is not None:
                self._view.close()
            self.log.close()
            self._give_back()

    def _give_back(self) -> None:
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
    from .given_options import positional_parameter_files

    return positional_parameter_files(config)


def _check_given_files(config: pytest.Config) -> list[Mistake]:
    from .collecting import check_given_files

    return check_given_files(config)


def _check_options(options: Options) -> list[Mistake]:
    mistakes = []
    if options.inject and not options.dry_run:
        mistakes.append(Mistake("--inject", "faults are rehearsed in dry runs only", "add --dry-run"))
    if options.continue_session is not None and options.validate_rig:
        mistakes.append(Mistake("--continue-session", "a validation of the rig continues no session", "leave one of them out"))
    if options.override_readiness is not None and not options.override_readiness.strip():
        mistakes.append(Mistake("--override-readiness", "the reason is empty", "say why, e.g. 'animal is waiting'"))
    if options.live:
        mistakes += _check_live(options.live)
    return mistakes


def _check_live(text: str) -> list[Mistake]:
    """Check that the page can be served where it shall be, before anything is created."""
    from ..views import LiveServer, missing_packages, parse_address

    if missing := missing_packages():
        return [Mistake("--live", f"{' and '.join(missing)} are not installed", 'pip install "pytest-openscope[live]"')]
    try:
        host, port = parse_address(text)
    except ValueError as error:
        return [
            Mistake("--live", str(error), "write --live=PORT or --live=HOST:PORT, or put --live behind all other arguments")
        ]
    try:
        LiveServer(host, port).close()
    except OSError as error:
        problem = f"{host} port {port} cannot be listened on: {error.strerror or error}"
        return [Mistake("--live", problem, "give another port, or none, so that a free one is taken")]
    return []


def _check_parts(
    configuration: Configuration, options: Options, unknown: list[Mistake], warnings: list[Mistake]
) -> list[Mistake]:
    """Let the rooms check what only they understand; each is imported only where the configuration uses it.

    Args:
        unknown: gets what a dry run simulates because it cannot be known on this computer.
        warnings: gets what is told and stops nothing.
    """
    mistakes: list[Mistake] = []
    entries = (*configuration.pre_pipeline, *configuration.post_pipeline)
    if entries or configuration.parameter_file is not None or configuration.parameters.get("repository_url"):
        from .repository import check_code

        mistakes += check_code(configuration, options.allow_dirty or options.resume_session is not None, unknown, warnings)
    if configuration.rig.devices and options.resume_session is None:
        from ..config import expand_rig
        from ..devices import check_specs

        rig_file, rig = configuration.rig_file, expand_rig(configuration.rig, configuration.expander())
        # A validation finds what a safe-state command lacks, device by device.
        safe_commands = not options.validate_rig
        mistakes += check_specs(rig.devices, rig_file.parent, configuration.dry_run, rig_file.name, safe_commands=safe_commands)
    settings = configuration.settings
    if settings.alerts is not None or settings.otel is not None:
        from ..config import source_of
        from ..sidecar import check_alerts, check_otel

        dry_run, sources = configuration.dry_run, configuration.sources
        mistakes += check_alerts(settings.alerts, dry_run, source_of(sources, "alerts"))
        mistakes += check_otel(settings.otel, dry_run, source_of(sources, "otel"))
    if options.inject and options.dry_run:
        mistakes += _check_faults(configuration, options)
    return mistakes


def _check_faults(configuration: Configuration, options: Options) -> list[Mistake]:
    mistakes: list[Mistake] = []
    if options.device_faults:
        from ..devices import check_faults

        mistakes += check_faults(options.device_faults, configuration.rig.devices, configuration.rig_file.parent)
    for text in options.acquisition_faults:
        from ..acquisition import parse_fault

        try:
            parse_fault(text)
        except ValueError as error:
            problem, _, possible = str(error).partition("; ")
            mistakes.append(Mistake("--inject", problem, f"write acquisition=KIND; {possible}"))
    if len(options.acquisition_faults) > 1:
        mistakes.append(
            Mistake(
                "--inject",
                f"an acquisition can go wrong in one way: {', '.join(options.acquisition_faults)}",
                "give one of them",
            )
        )
    return mistakes


def _complaint(mistakes: list[Mistake]) -> str:
    if len(mistakes) == 1:
        return str(mistakes[0])
    return f"{len(mistakes)} mistakes, nothing was started:\n" + "\n".join(f"  {mistake}" for mistake in mistakes)


def _begin_a_line(terminal: Any) -> None:
    """Let what is printed next stand on a line of its own, not behind pytest's progress."""
    if terminal is None:
        return
    terminal.ensure_newline()
    if getattr(getattr(terminal, "_tw", None), "width_of_current_line", 0):
        # After an earlier question pytest no longer knows that its progress is on this line.
        terminal._tw.line()
    terminal.flush()
