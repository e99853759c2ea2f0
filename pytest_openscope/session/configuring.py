"""Reads and checks all that the user gave, before there is a session: everything that can go wrong before hardware moves."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ..acquisition import parse_fault
from ..config import ConfigRequest, Configuration, Loaded, expand_rig, load, source_of
from ..log import SessionLog
from ..records import ConfigurationError, Mistake
from ..sidecar import check_alerts, check_otel
from ..views import LiveServer, TerminalView, command, missing_packages, parse_address
from .collecting import NO_PYTEST_RETRY, check_given_files
from .continuing import Earlier, check_subject, find_earlier, not_taken_over
from .operator import Operator, last_answers, real_descriptor, remember_answers, say_at_once
from .options import Options, checks_among, read_options, rig_config_of
from .parameter_file import Collector
from .repository import Findings, check_code
from .rescue import parameters_of
from .session import ExperimentSession
from .steps import register_hooks

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
        located = rig_config_of(config)
        assert located is not None
        self._rig_config = located
        self._variable = os.environ.pop(_RIG_VARIABLE, None)
        # Where pytest refuses the command line it never comes to unconfigure.
        config.add_cleanup(self._give_back)

    def configure(self) -> None:
        """Read and check everything, then start the session.

        Raises:
            pytest.UsageError: what the user gave cannot be run; names every mistake. Nothing was created.
        """
        try:
            try:
                self._configure()
            except ConfigurationError as error:
                raise pytest.UsageError(_complaint(error.mistakes)) from None
        except pytest.UsageError as error:
            if os.environ.get("GITHUB_ACTIONS") == "true":
                # pytest's own report of such an error is a line in the job's log: mark the rig file.
                text = command(str(error), title="pytest-openscope: nothing was started", file=self._rig_config[0])
                with suppress(OSError):
                    os.write(real_descriptor(self.config, 2), f"{text}\n".encode())
            raise

    def _configure(self) -> None:
        options = read_options(self.config, self._rig_config)
        self._refuse_workers()
        earlier = self._earlier(options)
        loaded = self._load(options, earlier)
        configuration = loaded.configuration
        found = Findings([*loaded.mistakes, *_check_options(options), *check_given_files(self.config)])
        if configuration is not None:
            _check_parts(configuration, options, found)
            found.mistakes += check_subject(earlier, configuration.settings.subject_id) if earlier is not None else []
        mistakes = [*found.mistakes, *(found.unknown if options.strict else ())]
        if mistakes or configuration is None:
            raise ConfigurationError(mistakes)
        self.config.pluginmanager.register(Collector(configuration), "openscope-parameter-file")
        self.config.pluginmanager.import_plugin("pytest_openscope.fixtures")
        if configuration.validating:
            self._collect_checks()
        if options.informational:
            return
        lacking = not_taken_over(earlier, configuration.parameters) if earlier is not None else []
        notices = [*loaded.notices, *map(str, found.warnings), *lacking]
        not_checked = [f"{one.where}: {one.key}: {one.problem}" for one in found.unknown]
        self._start(configuration, options, loaded.missing, earlier, notices, not_checked)

    def _start(
        self,
        configuration: Configuration,
        options: Options,
        missing: tuple[str, ...],
        earlier: Earlier | None,
        notices: list[str],
        not_checked: list[str],
    ) -> None:
        self._view = view = TerminalView(self.config, real_descriptor(self.config, 1))
        available = self._terminal and not options.request.no_input and not os.environ.get("CI")
        operator = Operator(available, self._capture_suspended, waiting=view.waiting)
        if missing and not configuration.validating:
            configuration = self._ask_missing(configuration, missing, operator)
        self.log.set_levels(configuration.settings.log_level, configuration.settings.log_levels)
        session = ExperimentSession(self.config, self.log, configuration, options, operator)
        session.terminal_fd = self._terminal_fd
        session.view = view if options.resume_session is None else None
        session.earlier = earlier
        session.start(notices, not_checked)
        self.session = session
        register_hooks(session, self.config)
        try:
            session.interrupts.release()
        except KeyboardInterrupt:
            text = f"interrupted by {session.interrupts.cause}; no step runs. Session folder: {session.folder}"
            say_at_once(self.config, text)
            raise

    def _collect_checks(self) -> None:
        """Collect the ready-made checks, and the lab's own ones where the command line names them."""
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
        given = options.request
        root = tuple(one for one in given.given if one[0] == "output_root_folder")
        request = ConfigRequest(given.rig_config, given=root, dry_run=given.dry_run, cwd=given.cwd, environ=given.environ)
        rig = load(request).configuration
        if rig is None:
            return None
        return find_earlier(options.continue_session, rig.rig.rig_id, rig.settings.output_root, given.cwd)

    def _load(self, options: Options, earlier: Earlier | None) -> Loaded:
        request = options.request
        if options.resume_session is not None:
            request = replace(request, given=(*parameters_of(options.resume_session), *request.given))
        if earlier is not None:
            request = replace(request, given=(*earlier.values, *request.given))
            if earlier.parameter_file is not None and not request.params_files:
                request = replace(request, params_files=(earlier.parameter_file,))
        return load(request)

    def _ask_missing(self, configuration: Configuration, missing: tuple[str, ...], operator: Operator) -> Configuration:
        def unanswered(problem: str) -> ConfigurationError:
            return ConfigurationError(Mistake(key, problem, _HOW_TO_GIVE[key]) for key in missing)

        if not operator.available:
            raise unanswered("is missing, and nobody can be asked")
        state_directory = configuration.rig.state_directory
        last = last_answers(state_directory)
        answers = {}
        try:
            for key in missing:
                while not (answer := operator.ask(f"{key}:", last.get(key)).strip()):
                    continue
                answers[key] = answer
        except KeyboardInterrupt:
            say_at_once(self.config, "interrupted before the session began; nothing was started")
            raise
        except EOFError:
            raise unanswered("was not answered") from None
        remember_answers(state_directory, answers)
        return configuration.with_answers(answers)

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
    try:
        fd = real_descriptor(config, 2)
        return os.dup(fd) if os.isatty(fd) else None
    except OSError:
        return None


def _check_options(options: Options) -> list[Mistake]:
    mistakes = []
    if options.inject and not options.request.dry_run:
        mistakes.append(Mistake("--inject", "faults are rehearsed in dry runs only", "add --dry-run"))
    if options.continue_session is not None and options.request.validating:
        mistakes.append(Mistake("--continue-session", "a validation of the rig continues no session", "leave one of them out"))
    if options.continue_session is not None and options.resume_session is not None:
        mistakes.append(Mistake("--continue-session", "a session that is resumed has its own values", "leave one of them out"))
    if options.override_readiness is not None and not options.override_readiness.strip():
        mistakes.append(Mistake("--override-readiness", "the reason is empty", "say why, e.g. 'animal is waiting'"))
    if options.live:
        mistakes += _check_live(options.live)
    return mistakes


def _check_live(text: str) -> list[Mistake]:
    """Check that the page can be served where it shall be, before anything is created."""
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


def _check_parts(configuration: Configuration, options: Options, found: Findings) -> None:
    entries = (*configuration.pre_pipeline, *configuration.post_pipeline)
    if entries or configuration.parameter_file is not None or configuration.parameters.get("repository_url"):
        check_code(configuration, options.allow_dirty or options.resume_session is not None, found)
    if configuration.rig.devices and options.resume_session is None:
        from ..devices import check_specs

        rig_file, rig = configuration.rig_file, expand_rig(configuration.rig, configuration.expander())
        # A validation finds what a safe-state command lacks, device by device.
        found.mistakes += check_specs(
            rig.devices,
            rig_file.parent,
            configuration.dry_run,
            rig_file.name,
            safe_commands=not configuration.validating,
        )
    settings = configuration.settings
    if settings.alerts is not None or settings.otel is not None:
        dry_run, sources = configuration.dry_run, configuration.sources
        found.mistakes += check_alerts(settings.alerts, dry_run, source_of(sources, "alerts"))
        found.mistakes += check_otel(settings.otel, dry_run, source_of(sources, "otel"))
    if configuration.dry_run:
        found.mistakes += _check_faults(configuration, options)


def _check_faults(configuration: Configuration, options: Options) -> list[Mistake]:
    mistakes: list[Mistake] = []
    if options.device_faults:
        from ..devices import check_faults

        mistakes += check_faults(options.device_faults, configuration.rig.devices, configuration.rig_file.parent)
    for text in options.acquisition_faults:
        try:
            parse_fault(text)
        except ValueError as error:
            problem, _, possible = str(error).partition("; ")
            mistakes.append(Mistake("--inject", problem, f"write acquisition=KIND; {possible}"))
    if len(options.acquisition_faults) > 1:
        problem = f"an acquisition can go wrong in one way: {', '.join(options.acquisition_faults)}"
        mistakes.append(Mistake("--inject", problem, "give one of them"))
    return mistakes


def _complaint(mistakes: Sequence[Mistake]) -> str:
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
