"""One acquisition with its adapter, or several at once: started together, stopped in a declared order when one fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from ..records import AcquisitionFacts
from .adapter import Adapter
from .failures import AcquisitionFailed, reason_of
from .run import AcquisitionRun
from .spec import LOGGER, AcquisitionSpec

logger = logging.getLogger(LOGGER)

_THE_END = "the others have ended"
#: Between two looks at several runs; a single one is waited for.
_LOOK_S = 0.02


@dataclass
class Member:
    """One of the acquisitions.

    Attributes:
        adapter: what it is.
        name: what it is called, in its output and for the order of the stop; what its adapter calls it where none is given.
        background: it runs as long as the others and is then stopped, which is no failure; its own earlier end is one.
        run: of the present attempt; None before it, and for an adapter that runs nothing.
        facts: once it has ended and was found good.
    """

    adapter: Adapter
    name: str = ""
    background: bool = False
    run: AcquisitionRun | None = None
    facts: AcquisitionFacts | None = None


class Together:
    """Runs members, in the order of their start, to their end; again where an adapter says so.

    ``stop_order`` names members, the first to be stopped first; those that it does not name follow, the last started first.
    """

    def __init__(
        self,
        members: Sequence[Member],
        start: Callable[[AcquisitionSpec], AcquisitionRun],
        dry_run: bool,
        stop_order: Sequence[str] = (),
    ) -> None:
        self.members = list(members)
        self._start, self._dry_run, self._stop_order = start, dry_run, list(stop_order)
        self._at = self.members[0]

    def run(self) -> list[AcquisitionFacts | None]:
        """Run all to their end; return the facts of each one's last attempt, None for one that runs nothing.

        Raises:
            AcquisitionFailed: the first failure; all others are stopped by then.
            ConfigurationError: the parameters of a member do not say what to run.
        """
        for attempt in count(1):
            try:
                self._attempt(attempt)
                break
            except AcquisitionFailed as error:
                failed = self._at
                asked = failed.run is not None and failed.run.was_asked_to_stop and failed.run.stop_reason != _THE_END
                self._stop_others(f"acquisition {error.facts.name!r} failed", failed)
                decision = "fail" if asked else failed.adapter.after_failure(error, attempt)
                if decision == "fail":
                    raise
                how = (
                    "the session goes on as if it had not" if decision == "proceed" else f"it runs again, attempt {attempt + 1}"
                )
                failed.adapter.task.notice(f"{error}; {how}")
                if decision == "proceed":
                    failed.facts = error.facts
                    break
            except BaseException as error:
                self.stop(reason_of(error))
                raise
            finally:
                for member in self.members:
                    member.adapter.release()
        return [member.facts for member in self.members]

    def runs_in_stop_order(self) -> list[AcquisitionRun]:
        """Return the runs that have not ended, the first to be stopped first."""
        running = [member for member in reversed(self.members) if member.run is not None and not member.run.done]
        names = self._stop_order
        running.sort(key=lambda member: names.index(member.name) if member.name in names else len(names))
        return [member.run for member in running if member.run is not None]

    def stop(self, reason: str, wait: bool = True) -> None:
        """Stop one after the other, each when the one before it has ended; safe from any thread, and again.

        ``wait`` False asks the first one, and returns: who waits for it in :meth:`run` then stops the others.
        """
        runs = self.runs_in_stop_order()
        for run in runs if wait else runs[:1]:
            run.stop(reason, wait=wait)

    @property
    def longest_stop_s(self) -> float:
        """How long stopping may take."""
        return sum(run.spec.stop.longest_s for run in self.runs_in_stop_order())

    def _attempt(self, attempt: int) -> None:
        """Run all members once; ``_at`` is the one that an AcquisitionFailed is about."""
        for member in self._each(self.members):
            member.run = member.facts = None
            member.adapter.attempt = attempt
            if self._dry_run:
                member.adapter.rehearse()
            else:
                member.adapter.prepare()
        for member in self._each(self.members):
            spec = member.adapter.spec()
            if spec is not None:
                member.name = member.name or spec.name
                member.run = self._start(replace(spec, name=member.name))
        waiting = [member for member in self.members if not member.background]
        behind = [] if self._dry_run else [member for member in self.members if member.background]
        look_s = None if len(self.members) == 1 else _LOOK_S / len(self.members)
        while waiting:
            for member in self._each([*waiting, *behind]):
                if member.run is None or member.run.ends_within(look_s):
                    self._judge(member)
                    waiting = [other for other in waiting if other is not member]
        self.stop(_THE_END)
        for member in self._each(self.members):
            if member.background:
                self._judge(member, stopped_at_end=True)

    def _judge(self, member: Member, stopped_at_end: bool = False) -> None:
        """Keep the facts of a run that has ended, perhaps stopped because the others have, when nothing is wrong with it.

        Raises:
            AcquisitionFailed: it failed, or its adapter finds it wanting.
        """
        if member.run is None:
            return
        member.run.check(stopped_is_failure=not stopped_at_end)
        facts = member.run.facts()
        if not self._dry_run:
            if member.background and not stopped_at_end:
                raise AcquisitionFailed(f"acquisition {facts.name!r} ended before the others", facts)
            problem = member.adapter.verdict(facts)
            if problem:
                raise AcquisitionFailed(f"acquisition {facts.name!r} failed: {problem}", facts)
        member.facts = facts

    def _each(self, members: Sequence[Member]) -> Iterator[Member]:
        for self._at in members:
            yield self._at

    def _stop_others(self, reason: str, failed: Member) -> None:
        runs = self.runs_in_stop_order()
        if runs:
            logger.warning("%s, so these are stopped, one after the other: %s", reason, ", ".join(run.name for run in runs))
        self.stop(reason)
        for member in self.members:
            if member is not failed and member.run is not None and member.facts is None:
                member.facts = member.run.facts()
                try:
                    member.run.check(stopped_is_failure=False)
                except AcquisitionFailed as error:
                    logger.error("%s, too", error)
