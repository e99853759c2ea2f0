"""Tells people of what they would want to know at once: the session failed or died, a question waits for an answer.

The addresses are secrets. They come through the pipe from the experiment, stay in this process's memory, and go through a pipe
to the process that sends (:func:`main`): that one may hang in a mail server, this one may not.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..records import Journal, Mistake, Outcome
from ..system import UnansweredError, answer_with, ask, format_duration, light_command
from .reconstruct import SessionView

if TYPE_CHECKING:
    from ..config import AlertSettings

LOGGER = "pytest_openscope.alerts"
_INSTALL = 'pip install "pytest-openscope[alerts]"'
#: One attempt at an address; what has not answered by then is killed and tried again.
ATTEMPT_S = 30.0
#: Between two attempts; after the last one people are not told.
RETRY_AFTER_S = (2.0, 10.0, 30.0)
_FAILED = (Outcome.FAILED, Outcome.ERROR, Outcome.TIMEOUT)


def check_alerts(settings: AlertSettings | None, dry_run: bool, where: str) -> list[Mistake]:
    """Return what is wrong with the ``alerts`` block that only apprise can tell; no message shows an address."""
    if settings is None or (dry_run and not settings.dry_runs):
        return []
    if find_spec("apprise") is None:
        return [Mistake(where, "needs the package apprise, which is not installed", _INSTALL, "alerts")]
    import apprise

    # Its own messages of a bad address repeat the address.
    logger = logging.getLogger("apprise")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        bad = [number for number, url in enumerate(settings.to, 1) if not apprise.Apprise().add(url)]
    finally:
        logger.disabled = was_disabled
    remedy = "see https://github.com/caronc/apprise/wiki for how each service is written"
    return [Mistake(where, f"address number {number} is none that apprise can send to", remedy, "alerts.to") for number in bad]


class Alerts:
    """Watches one session, and has each alert sent once; ``say`` gets level, text, logger, and whether the operator sees it."""

    def __init__(
        self,
        view: SessionView,
        journal: Journal,
        urls: Sequence[str],
        secrets: Iterable[str],
        say: Callable[[str, str, str, bool], None],
    ) -> None:
        self.view, self.journal, self.say = view, journal, say
        self._urls, self._secrets = list(urls), frozenset(secrets)
        self._settings: dict[str, Any] = view.value("alerts")
        self._begun: set[str] = set()
        self._threads: list[threading.Thread] = []

    def look(self) -> None:
        """See whether a question has waited long enough; called about every 0.2 s, never waits."""
        question = self.view.question
        if question is None or "waiting" not in self._settings["on"] or self.view.died is not None:
            return
        waited_s = time.monotonic() - question["mono"]
        if waited_s >= self._settings["after_s"]:
            lines = [f"Waits since {question['at'][11:19]}, for {format_duration(waited_s)}: {question['text']}"]
            self._send(f"waiting {question['at']}", "a question waits for an answer", lines)

    def session_over(self) -> None:
        """Tell how the session has ended, where that is worth telling."""
        ended = self.view.ended
        if ended is None:
            return
        outcome = str(ended.get("outcome"))
        if self.view.died is not None or outcome == Outcome.CRASHED:
            what, headline = "crashed", "the session's process or the computer died"
        elif outcome in _FAILED:
            what, headline = "failed", f"the session ended as {outcome}"
        else:
            return
        if what in self._settings["on"]:
            self._send(what, headline, [*self._first_failure(), f"Session folder: {self.view.folder}"])

    def wait(self) -> None:
        """Wait until each alert is sent or given up, which all have within three minutes."""
        for thread in self._threads:
            thread.join()

    def _first_failure(self) -> list[str]:
        if self.view.death is not None:
            return [self.view.death.message]
        failures = [one for field, values in self.view.kept if field == "failures" for one in values]
        if not failures:
            return []
        place = " › ".join(str(failures[0][key]) for key in ("phase", "step") if failures[0].get(key))
        return [f"{place}: {failures[0].get('message')}" if place else str(failures[0].get("message"))]

    def _send(self, what: str, headline: str, lines: list[str]) -> None:
        part = f"alert {what}"
        if part in self._begun or part in self.view.done:
            return
        self._begun.add(part)
        from ..issues import Machine, Privacy

        view = self.view
        people = {} if self._settings["include_subject_user"] else {key: view.value(key) for key in ("subject_id", "user_id")}
        privacy = Privacy(secrets=[*self._secrets, *self._urls], machine=Machine(), **people)
        dry = " (dry run)" if view.value("dry_run") else ""
        title = privacy.private(f"{view.value('rig_id', '')}: {headline}{dry}")
        body = privacy.private("\n".join([f"Session {view.uuid} on {view.value('host', '')}", *lines]))
        message = {"title": title, "body": body, "kind": "warning" if what.startswith("waiting") else "failure"}
        thread = threading.Thread(target=self._deliver, args=(part, message), name=part, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _deliver(self, part: str, message: dict[str, str]) -> None:
        with ThreadPoolExecutor(len(self._urls)) as pool:
            problems = list(pool.map(partial(_send_patiently, message), self._urls))
        sent = problems.count("")
        if sent:
            self.say("INFO", f"{part}: sent to {sent} of {len(self._urls)} addresses", LOGGER, False)
        for number, (url, problem) in enumerate(zip(self._urls, problems, strict=True), 1):
            if problem:
                where = f"{url.partition('://')[0]} (address {number} of {len(self._urls)})"
                self.say("WARNING", f"{part}: not sent to {where}: {problem}", LOGGER, True)
        self.journal.write("witness_done", part=part)


def _send_patiently(message: dict[str, str], url: str) -> str:
    """Try until the address has the message, as a mail server is often back within a minute; return why it was not sent."""
    problem = _attempt(message, url)
    for wait_s in RETRY_AFTER_S if problem else ():
        time.sleep(wait_s)
        problem = _attempt(message, url)
        if not problem:
            break
    return problem


def _attempt(message: dict[str, str], url: str) -> str:
    """Let a process send the message; return what is wrong, or ""."""
    command = light_command(__name__, [], [path for path in sys.path if path])
    try:
        return str(ask(command, {**message, "url": url}, ATTEMPT_S))
    except UnansweredError as problem:
        return str(problem)


def main(args: Sequence[str]) -> None:
    """Send one alert to one address: what the process runs that may hang in a mail server."""
    answer_with(_notify)


def _notify(url: str, title: str, body: str, kind: str) -> str:
    """Return the problem, or ""; nothing that holds the address, which what apprise says may repeat."""
    logging.disable(logging.CRITICAL)
    try:
        import apprise

        sender = apprise.Apprise()
        if not sender.add(url):
            return "apprise does not know this kind of address"
        sent = sender.notify(title=title, body=body, notify_type=kind, body_format="text")
        return "" if sent else "not reached, or refused"
    except Exception as error:
        # Its text may repeat the address.
        return f"failed with {type(error).__name__}"
