"""What an experimenter gets as the ``acquisition`` fixture."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Union

from ..records import AcquisitionFacts
from ..system import split_command
from .adapter import Task
from .failures import AcquisitionFailed, reason_of
from .kinds import adapter_of
from .output import Sink
from .run import AcquisitionRun
from .simulated import Fault, SimulatedRun, faulty
from .spec import LOGGER, AcquisitionSpec, name_of_command

logger = logging.getLogger(LOGGER)
Command = Union[str, "os.PathLike[str]", Sequence[object]]


class Acquisition:
    """Runs the programs that acquire data; their output goes into the session log, their failures fail the step.

    Args:
        folder: the session folder.
        sink: gets output lines; see :data:`.output.Sink`. With several programs at once it is called from several threads.
        on_event: gets the journal's events, from the same threads.
        defaults: limits and the like of each run, where the call does not say otherwise.
        dry_run: simulate every run.
        fault: how simulated runs fail.
        on_ended: gets the facts of each run when it has ended, from the run's own thread.
        echo: shows output on the terminal where the spec asks for it.
        services: what adapters may ask of the session: the fields ``ask``, ``save`` and ``notice`` of :class:`.adapter.Task`.

    Attributes:
        attempt: which attempt of the step runs; from the second on it stands in the names of the output, so that none is lost.
        finished: the facts of the runs that have ended, in the order of their ends.
    """

    def __init__(
        self,
        folder: Path,
        sink: Sink,
        on_event: Callable[..., Any],
        defaults: AcquisitionSpec | None = None,
        dry_run: bool = False,
        fault: Fault | None = None,
        on_ended: Callable[[AcquisitionFacts], object] | None = None,
        echo: Callable[[str, list[bytes]], Any] | None = None,
        services: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.folder = folder
        self.defaults = defaults or AcquisitionSpec()
        self.dry_run = dry_run
        self.finished: list[AcquisitionFacts] = []
        self._sink, self._on_event, self._echo = sink, on_event, echo
        self._fault, self._on_ended, self._services = fault, on_ended, dict(services or {})
        self._runs: list[AcquisitionRun] = []
        self.attempt = 1

    def __repr__(self) -> str:
        return f"<Acquisition of {self.folder.name}>"

    @property
    def active(self) -> list[AcquisitionRun]:
        """The runs that have not ended."""
        return [run for run in self._runs if not run.done]

    def run(
        self,
        command: Command,
        *,
        timeout_s: float | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        name: str | None = None,
        check: bool = True,
        **settings: Any,
    ) -> AcquisitionFacts:
        """Run a program to its end, and everything that it starts.

        No shell is involved: ``command`` is the program and its arguments, or one text that is split like a command line.
        All output is in the session log, and nothing of its process tree is left, when this returns.

        Args:
            command: ``["ffmpeg", "-i", source, movie]`` or ``"ffmpeg -i a.avi b.mp4"``.
            timeout_s: stop it, and fail, after this time.
            cwd: its working directory.
            env: changes of its environment; None removes a variable.
            name: what it is called in the log; default what it runs: a script, a module, a workflow, a program.
            check: False returns the facts of a program that failed, too.
            settings: further fields of :class:`.spec.AcquisitionSpec` (``stderr_fails=True``).

        Returns:
            Its exit code, duration, peak memory, last output lines and more.

        Raises:
            AcquisitionFailed: it did not start, or ended with another exit code than 0; ``error.facts`` has the facts.
            AcquisitionTimeout: it ran for too long.
        """
        __tracebackhide__ = True
        return _finish(self._start(self._spec(command, timeout_s, cwd, env, name, settings)), check)

    def start(
        self,
        command: Command,
        *,
        timeout_s: float | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        name: str | None = None,
        **settings: Any,
    ) -> AcquisitionRun:
        """Start a program and return its handle: ``wait()``, ``poll()``, ``stop()``, ``pid``.

        The handle is a context manager: leaving its block stops the program and everything that it started. If it has ended
        before, with another exit code than 0, leaving the block fails. What is still running at the session's end is stopped.

        Raises:
            AcquisitionFailed: see :meth:`run`, for the arguments too.
        """
        __tracebackhide__ = True
        return self._start(self._spec(command, timeout_s, cwd, env, name, settings))

    #: The same, named for a block: ``with acquisition.running(command=[...]) as camera:``.
    running = start

    def execute(self, spec: AcquisitionSpec) -> AcquisitionFacts:
        """Run this spec to its end, as :meth:`run` does.

        Raises:
            AcquisitionFailed: see :meth:`run`.
        """
        __tracebackhide__ = True
        return _finish(self._start(spec))

    def run_launcher(self, parameters: Mapping[str, Any]) -> AcquisitionFacts | None:
        """Run the acquisition that parameters describe, ``launcher`` and the keys of its kind, with its adapter's retries.

        Returns:
            The facts of the last attempt; None when the kind runs nothing.

        Raises:
            AcquisitionFailed: see :meth:`run`; also when it is not ready, or its adapter finds it wanting.
            ConfigurationError: the parameters do not say what to run.
        """
        __tracebackhide__ = True
        adapter = adapter_of(Task(parameters, self.folder, self.defaults, run=self.execute, **self._services))
        if adapter is None:
            return None
        for attempt in count(1):
            run: AcquisitionRun | None = None
            try:
                if self.dry_run:
                    adapter.rehearse()
                else:
                    adapter.prepare()
                spec = adapter.spec()
                if spec is None:
                    return None
                run = self._start(spec)
                facts = _finish(run)
                problem = "" if self.dry_run else adapter.verdict(facts)
                if problem:
                    raise AcquisitionFailed(f"acquisition {facts.name!r} failed: {problem}", facts)
                return facts
            except AcquisitionFailed as error:
                asked = run is not None and run.was_asked_to_stop
                decision = "fail" if asked else adapter.after_failure(error, attempt)
                if decision == "fail":
                    raise
                logger.warning("acquisition %r: %s: %s", error.facts.name, decision, error)
                if decision == "proceed":
                    return error.facts
        raise AssertionError  # the loop has no end

    def stop_all(self, reason: str, wait: bool = True) -> None:
        """Stop every run that has not ended, all at once; safe from any thread. ``wait`` False only begins it."""
        runs = self.active
        for run in runs:
            run.stop(reason, wait=False)
        for run in runs if wait else ():
            run.stop(reason)

    def postpone(self, seconds: float) -> None:
        """Move the limits of time of all runs, because an operator was asked something meanwhile."""
        for run in self.active:
            run.postpone(seconds)

    def _spec(
        self,
        command: Command,
        timeout_s: float | None,
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str | None] | None,
        name: str | None,
        settings: Mapping[str, Any],
    ) -> AcquisitionSpec:
        parts = split_command(command)
        own: dict[str, Any] = {"command": parts, **settings}
        if timeout_s is not None:
            own["timeout_s"] = timeout_s
        if cwd is not None:
            own["cwd"] = Path(cwd)
        if env is not None:
            own["env"] = {**self.defaults.env, **env}
        own["name"] = name or name_of_command(parts) or self.defaults.name
        return replace(self.defaults, **own)

    def _start(self, spec: AcquisitionSpec) -> AcquisitionRun:
        __tracebackhide__ = True
        run = self._create(spec)
        try:
            return run.start()
        except BaseException as error:
            run.stop(reason_of(error))
            raise

    def _create(self, spec: AcquisitionSpec) -> AcquisitionRun:
        if self.attempt > 1:
            spec = replace(spec, name=f"{spec.name}.attempt-{self.attempt}")
        kind = SimulatedRun if self.dry_run and self._fault is None else AcquisitionRun
        if self.dry_run and self._fault is not None:
            spec = faulty(spec, self._fault)
        run = kind(spec, self.folder, self._sink, self._on_event, echo=self._echo, on_done=self._ended)
        self._runs.append(run)
        return run

    def _ended(self, run: AcquisitionRun) -> None:
        facts = run.facts()
        self.finished.append(facts)
        if self._on_ended is not None:
            self._on_ended(facts)
        self._runs = [other for other in self._runs if other is not run]


def _finish(run: AcquisitionRun, check: bool = True) -> AcquisitionFacts:
    __tracebackhide__ = True
    try:
        return run.wait(check=check)
    except BaseException as error:
        run.stop(reason_of(error))
        raise
