"""The interface of an acquisition adapter: what a ``launcher`` kind of a parameter file means.

Starting, watching, logging, limits, stopping and dry runs are the same for all of them (:class:`.run.AcquisitionRun`).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..config import Settings, check
from ..records import AcquisitionFacts, ConfigurationError, Mistake
from ..system import command_line, split_command
from .failures import AcquisitionFailed
from .paths import in_repository
from .spec import LOGGER, AcquisitionSpec

Severity = Literal["error", "warning", "unknown"]
Decision = Literal["retry", "proceed", "fail"]


@dataclass(frozen=True)
class Finding:
    """What is wrong with a parameter before anything runs, and what to do about it.

    ``error`` keeps a session from starting; ``warning`` is told; ``unknown`` cannot be known on this computer, since a
    repository that is not here, or a drive of the rig, has it.
    """

    problem: str
    remedy: str = ""
    key: str = ""
    severity: Severity = "error"


def _nothing_runs(spec: AcquisitionSpec) -> AcquisitionFacts:
    raise RuntimeError("a check runs no programs")


@dataclass(frozen=True)
class Task:
    """What an adapter is given.

    Attributes:
        parameters: merged and expanded; while a session is only being checked, placeholders of the session are still in them.
        folder: the session folder; while a session is only being checked, the empty path.
        defaults: limits, stop policy and the like, as the parameters set them; the base of each :class:`.spec.AcquisitionSpec`.
        run: runs a program that prepares something to its end, logged and stopped like an acquisition.
        ask: asks the operator: question, choices and the default give the choice, or None when nobody can be asked. Limits of
            time wait meanwhile.
        label: tells acquisitions of one kind apart that run together, in the names of files; "" where there is one alone.
        save: writes a JSON file of this name into ``launcher_metadata``, without secrets.
        notice: tells the operator something at once, and in the session's summary and log.
    """

    parameters: Mapping[str, Any]
    folder: Path = Path()
    defaults: AcquisitionSpec = field(default_factory=AcquisitionSpec)
    run: Callable[[AcquisitionSpec], AcquisitionFacts] = _nothing_runs
    ask: Callable[[str, Sequence[str], str], str | None] = lambda question, choices, default: None
    label: str = ""
    save: Callable[[str, Any], object] = lambda name, content: None
    notice: Callable[[str], object] = logging.getLogger(LOGGER).warning


class Adapter(ABC):
    """One acquisition of one kind. It is made anew for each acquisition, and once more to check a session before it starts.

    The order of a real acquisition: :meth:`prepare`, :meth:`spec`, the run itself, :meth:`verdict`, :meth:`release`; after a
    failure :meth:`after_failure` decides, and ``retry`` begins anew with :meth:`prepare`. A dry run calls :meth:`rehearse`
    and :meth:`spec`, and runs nothing.
    """

    kind: ClassVar[str] = ""
    #: Counts the attempts of one acquisition (of several together: of all of them), from 1.
    attempt = 1

    def __init__(self, task: Task) -> None:
        self.task = task
        self.parameters = task.parameters

    @abstractmethod
    def spec(self) -> AcquisitionSpec | None:
        """Return what the next attempt runs: a command, or a call within this process; None for nothing.

        Raises:
            ConfigurationError: the key that says what to run is missing, or has a form that cannot be used.
        """

    def describe(self) -> str:
        """Return in one line what would run, for the log of a dry run."""
        spec = self.spec()
        return "nothing" if spec is None else command_line(spec.command)

    def check(self, dry_run: bool) -> Iterable[Finding]:
        """Return what is wrong before anything is created: at each session's start, in a dry run and in ``--validate-rig``.

        Nothing may be started or written; a dry run has none of the rig's programs. A value with a placeholder in it
        (``{subject_id}``) cannot be judged. What :meth:`spec` raises is told for it.
        """
        return ()

    def rehearse(self) -> None:  # noqa: B027 - most have nothing to do
        """Do in a dry run's session what needs no rig (write down what would run)."""

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Make ready what the run needs, within the acquisition's step: install, connect, compare versions.

        Raises:
            AcquisitionFailed: it cannot be made ready; :meth:`not_ready` makes one.
        """

    def verdict(self, facts: AcquisitionFacts) -> str:
        """Return why a run that ended well has failed all the same; "" when it has not."""
        return ""

    def release(self) -> None:  # noqa: B027 - most have nothing to do
        """Let go of what :meth:`prepare` made, after each attempt; of one of several the run may not even have begun."""

    def after_failure(self, error: AcquisitionFailed, attempt: int) -> Decision:
        """Decide what a failed attempt (1, 2, ...) leads to: ``retry``, ``proceed`` as if it were good, or ``fail``.

        It is not called after a stop that was asked for.
        """
        return "fail"

    # For those who write adapters.

    def path(self, key: str) -> Path:
        """Return the path of a parameter; a relative one lies in the repository, or in the working directory without one."""
        return in_repository(self.parameters, str(self.parameters[key]))

    def setting(self, key: str) -> Any:
        """Return a parameter of this plugin as its model has it (:func:`typed`)."""
        return getattr(typed({key: self.parameters[key]} if key in self.parameters else {}), key)

    def arguments(self, key: str) -> list[str]:
        """Return a parameter as command-line arguments: a list, or a text that is split like a command line.

        Raises:
            ConfigurationError: a quote is not closed.
        """
        value = self.parameters.get(key) or ()
        if isinstance(value, str):
            try:
                return list(split_command(value))
            except ValueError as error:
                raise mistake(key, f"{value!r}: {error}", "close the quote, or give a list") from None
        return [str(item).lower() if isinstance(item, bool) else str(item) for item in value]

    def need(self, **words: str) -> None:
        """Demand parameters: ``need(script_path="a workflow")``.

        Raises:
            ConfigurationError: naming each one that is missing.
        """
        missing = [
            Mistake("parameters", f"launcher {self.kind!r} needs {what}", f"give {key}", key)
            for key, what in words.items()
            if not self.parameters.get(key)
        ]
        if missing:
            raise ConfigurationError(missing)

    def not_ready(self, problem: str) -> AcquisitionFailed:
        """Return the error that says why the acquisition cannot begin."""
        return AcquisitionFailed(f"acquisition of launcher {self.kind!r} is not ready: {problem}", AcquisitionFacts(self.kind))


class Given(Adapter):
    """An acquisition that was given as it runs; None, the kind ``base``, runs nothing."""

    def __init__(self, spec: AcquisitionSpec | None) -> None:
        super().__init__(Task({}))
        self._spec = spec

    def spec(self) -> AcquisitionSpec | None:
        return self._spec

    def describe(self) -> str:
        """Say that nothing runs: only what parameters describe is described."""
        return "nothing (launcher: base)"


def mistake(key: str, problem: str, remedy: str) -> ConfigurationError:
    """Return the error of one parameter that cannot be used."""
    return ConfigurationError([Mistake("parameters", problem, remedy, key)])


def typed(given: Mapping[str, Any]) -> Settings:
    """Return parameters of this plugin as their model has them, with its defaults.

    Raises:
        ConfigurationError: one does not fit; placeholders may still be in them.
    """
    settings, mistakes = check(Settings, given, "parameters", "")
    if mistakes:
        raise ConfigurationError(mistakes)
    return settings
