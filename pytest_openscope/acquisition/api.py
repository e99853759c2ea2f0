"""What an experimenter gets as the ``acquisition`` fixture."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Union

from ..records import AcquisitionFacts
from ..system import split_command
from .adapter import Given, Task
from .failures import reason_of
from .kinds import Described, acquisitions_of, adapter_of, described, kind_of, limits
from .output import Sink
from .run import AcquisitionRun
from .simulated import Fault, SimulatedRun, faulty
from .spec import AcquisitionSpec, name_of_command
from .together import Member, Together

Command = Union[str, "os.PathLike[str]", Sequence[object]]


class Acquisition:
    """Runs the programs that acquire data; their output goes into the session log, their failures fail the step.

    Args:
        folder: the session folder.
        sink, on_event, on_ended: get output lines (:data:`.output.Sink`), the journal's events, and the facts of each run that
            has ended; each from the run's own thread.
        defaults: limits and the like of each run, where the call does not say otherwise.
        dry_run: simulate every run.
        fault: how simulated runs fail.
        echo: shows output on the terminal where the spec asks for it.
        services: the fields ``ask``, ``save`` and ``notice`` of :class:`.adapter.Task`.

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
        self._together: list[Together] = []
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
        settings.update(timeout_s=timeout_s, cwd=cwd, env=env, name=name)
        return _finish(self._start(self._spec(command, settings)), check)

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

        Arguments and errors are those of :meth:`run`.
        """
        settings.update(timeout_s=timeout_s, cwd=cwd, env=env, name=name)
        return self._start(self._spec(command, settings))

    #: The same, named for a block: ``with acquisition.running(command=[...]) as camera:``.
    running = start

    def execute(self, spec: AcquisitionSpec) -> AcquisitionFacts:
        """Run this spec to its end, as :meth:`run` does."""
        return _finish(self._start(spec))

    def run_launcher(self, parameters: Mapping[str, Any]) -> AcquisitionFacts | None:
        """Run the acquisition that parameters describe, ``launcher`` and the keys of its kind, with its adapter's retries.

        Returns:
            The facts of the last attempt; None when the kind runs nothing.

        Raises:
            AcquisitionFailed: see :meth:`run`; also when it is not ready, or its adapter finds it wanting.
            ConfigurationError: the parameters do not say what to run.
        """
        return self.run_parameters(parameters)[0]

    def run_parameters(self, parameters: Mapping[str, Any]) -> list[AcquisitionFacts | None]:
        """Run what parameters describe: one acquisition, or several at once as the list ``acquisitions``.

        Errors are those of :meth:`run_launcher`; of several the first, all others being stopped by then, in the order
        ``acquisition_stop_order``.
        """
        return self._run_together(acquisitions_of(parameters), parameters.get("acquisition_stop_order") or ())

    def run_all(
        self, acquisitions: Sequence[Command | AcquisitionSpec | Mapping[str, Any]], *, stop_order: Sequence[str] = ()
    ) -> list[AcquisitionFacts | None]:
        """Run several acquisitions at once, each with its own log, limits and verdict, to the end of all.

        When one fails, all others are stopped, one after the other.

        Args:
            acquisitions: each one a command; a mapping of the arguments of :meth:`run`, ``{"command": [...], "timeout_s": 9}``;
                or a mapping with a ``launcher`` and the keys of its kind. A mapping may have a ``name``, and
                ``background: True``: it runs as long as the others and is then stopped, which is no failure, while its own
                earlier end is one.
            stop_order: names, the first to be stopped first; those that it does not name follow, the last started first.

        Returns:
            Their facts, in the order of ``acquisitions``.

        Raises:
            AcquisitionFailed: the first failure.
            ConfigurationError: a mapping does not say what to run.
            ValueError: ``stop_order`` has a name that none of them has, or all run in the background.
        """
        return self._run_together([self._described(one) for one in acquisitions], stop_order)

    def _described(self, given: Command | AcquisitionSpec | Mapping[str, Any]) -> Described | Member:
        if isinstance(given, AcquisitionSpec):
            return Member(Given(given), given.name)
        if not isinstance(given, Mapping):
            given = {"command": given}
        if given.get("launcher"):
            return described(given)
        settings = dict(given)
        background = settings.pop("background", False) is True
        spec = self._spec(settings.pop("command", ()), settings)
        return Member(Given(spec), spec.name, background)

    def _run_together(self, given: Sequence[Described | Member], stop_order: Sequence[str]) -> list[AcquisitionFacts | None]:
        __tracebackhide__ = True
        kinds = [kind_of(one.parameters) for one in given if isinstance(one, Described)]
        members = []
        for one in given:
            if isinstance(one, Described):
                kind = kind_of(one.parameters)
                label = (one.name or kind) if kinds.count(kind) > 1 else ""
                defaults = limits(one.own, self.defaults)
                task = Task(one.parameters, self.folder, defaults, run=self.execute, label=label, **self._services)
                one = Member(adapter_of(task), one.name, one.background)
            members.append(one)
        if not members:
            return []
        strange = set(stop_order) - {member.name for member in members}
        if strange:
            raise ValueError(f"stop_order: none of the acquisitions is called {', '.join(sorted(strange))}")
        if all(member.background for member in members):
            raise ValueError("all acquisitions run in the background, so none says when they end")
        together = Together(members, self._start, self.dry_run, stop_order)
        self._together.append(together)
        try:
            return together.run()
        finally:
            self._together.remove(together)

    def stop_all(self, reason: str, wait: bool = True) -> None:
        """Stop every run that has not ended; safe from any thread. ``wait`` False only begins it.

        They are stopped all at once, but for those that :meth:`run_all` runs together: one after the other.
        """
        ordered = [run for together in self._together for run in together.runs_in_stop_order()]
        runs = [run for run in self.active if run not in ordered]
        for run in runs:
            run.stop(reason, wait=False)
        for together in list(self._together):
            together.stop(reason, wait=False)
        for together in list(self._together) if wait else ():
            together.stop(reason)
        for run in runs if wait else ():
            run.stop(reason)

    @property
    def longest_stop_s(self) -> float:
        """How long stopping everything that runs may take."""
        together = [one.longest_stop_s for one in self._together]
        return max([*together, *(run.spec.stop.longest_s for run in self.active)], default=0.0)

    def _spec(self, command: Command, settings: Mapping[str, Any]) -> AcquisitionSpec:
        """Return the spec of a command; ``timeout_s``, ``cwd``, ``env`` and ``name`` of None count as not given."""
        parts = split_command(command)
        own = dict(settings)
        for key in ("timeout_s", "cwd", "env", "name"):
            if own.get(key) is None:
                own.pop(key, None)
        if "cwd" in own:
            own["cwd"] = Path(own["cwd"])
        own["env"] = {**self.defaults.env, **own.get("env", {})}
        own["name"] = own.get("name") or name_of_command(parts) or self.defaults.name
        return replace(self.defaults, command=parts, **own)

    def _start(self, spec: AcquisitionSpec) -> AcquisitionRun:
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
    try:
        return run.wait(check=check)
    except BaseException as error:
        run.stop(reason_of(error))
        raise
