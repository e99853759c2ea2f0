"""Simulated rigs: real reports, real outboxes, real HTTP, but a clock that the test turns."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pytest_openscope.config import GithubIssueSettings
from pytest_openscope.issues import outbox, sending, worker
from pytest_openscope.issues.client import Api, Timing
from pytest_openscope.issues.privacy import Machine
from pytest_openscope.issues.report import build_report
from pytest_openscope.records.folder import METADATA
from pytest_openscope.records.phases import Outcome, Phase
from pytest_openscope.records.record import AcquisitionFacts, ChainedException, Failure, to_json
from pytest_openscope.system.files import write_json

from .fake_github import REPO, FakeGithub
from .outgoing import TOKEN, Outgoing

TOKEN_ENV = "RIG_GITHUB_TOKEN"
SUBJECT, USER = "Zx81-mouse", "quillfeather"
SESSION = f"{SUBJECT}_2026-03-04_05-06-07"
PASSWORD = "s3same-0pen!"
PRIVATE = {
    "token": TOKEN,
    "password": PASSWORD,
    "home": "/home/jqualm",
    "windows home": "users\\jqualm",
    "escaped home": "users\\\\jqualm",
    "user name": "jqualm",
    "host": "allen-rig-417",
}
NAMES = {"subject": SUBJECT, "user": USER, "session": SESSION}
MACHINE = Machine(("/home/jqualm", "C:\\Users\\jqualm"), ("jqualm",), ("ALLEN-RIG-417", "allen-rig-417.lab.example"))
LEAKY = (
    f"subject {SUBJECT} user {USER} session {SESSION}\npath /home/jqualm/data/{SESSION}/x.bin and "
    f'C:\\Users\\jqualm\\rig.py and "C:\\\\Users\\\\jqualm\\\\rig.py" and file:///home/jqualm/a%20b\n'
    f"host ALLEN-RIG-417 and allen-rig-417.lab.example, token {TOKEN}, url https://jo:{PASSWORD}@share/x, "
    f"password={PASSWORD} Authorization: Bearer {TOKEN}\n"
)
FAST = Timing(write_pace_s=0.0, request_timeout_s=5)


def watch(server: Outgoing, names: bool = True) -> None:
    """Let the server look for what the rigs of this kit must not send."""
    server.private = dict(PRIVATE)
    server.names = dict(NAMES) if names else {}


class SimClock:
    """Seconds since the epoch that pass only when told to."""

    def __init__(self) -> None:
        self._now = float(int(time.time() // 86400) * 86400 + 6 * 3600)

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def iso(self) -> str:
        return datetime.fromtimestamp(self._now, timezone.utc).isoformat()


def failure(step: str = "open_shutter", function: str = "open", message: str = "the shutter is stuck", **more: Any) -> Failure:
    values: dict[str, Any] = {
        "kind": "exception",
        "outcome": Outcome.FAILED,
        "message": message,
        "exception_type": "lab.ShutterStuck",
        "phase": Phase.PRE_ACQUISITION,
        "step": step,
        "when": "call",
        "traceback": f"Traceback (most recent call last):\n{LEAKY}lab.ShutterStuck: {message}",
        "chain": [
            ChainedException(
                "lab.ShutterStuck",
                message,
                frames=[{"file": "/home/jqualm/rigs/shutter.py", "line": 3, "function": function, "module": "shutter"}],
            )
        ],
    }
    return Failure(**{**values, **more})


def acquisition_failure() -> Failure:
    facts = AcquisitionFacts(
        "stimulus",
        ["C:\\Users\\jqualm\\venv\\python.exe", "/home/jqualm/stim.py", f"--subject={SUBJECT}"],
        returncode=3,
        stderr_tail=LEAKY.splitlines(),
        stdout_tail=LEAKY.splitlines(),
    )
    return failure(kind="acquisition", phase=Phase.ACQUISITION, chain=[], traceback="", acquisition=facts)


class Rig:
    """One rig with its state directory; every failing session gets a folder of its own."""

    def __init__(self, name: str, home: Path, github: FakeGithub, clock: SimClock, settings: dict[str, Any]) -> None:
        self.name, self.home, self.github, self.clock = name, home, github, clock
        self.state = home / "state"
        self.settings = {
            "enabled": True,
            "repo": REPO,
            "token_env": TOKEN_ENV,
            "api_base_url": github.base_url,
            "sanitize_launcher_log": True,
            **settings,
        }
        self.answers: list[dict[str, Any]] = []
        self.token: str | None = TOKEN
        self.sessions = 0
        self.timing = FAST

    def session_folder(self) -> Path:
        self.sessions += 1
        folder = self.home / f"session{self.sessions}"
        (folder / METADATA).mkdir(parents=True)
        (folder / METADATA / "launcher.log").write_text(LEAKY * 3, encoding="utf-8")
        return folder

    def reports(self, *failures: Failure, version: str = "", **facts: Any) -> list[dict[str, Any]]:
        """The reports of a session that failed now."""
        folder = self.session_folder()
        found = list(failures) or [failure()]
        for item in found:
            item.at = item.at or self.clock.iso()
        state = {"failure": to_json(found[0]), "other_failures": [to_json(item) for item in found[1:]]}
        write_json(folder / METADATA / "debug_state.json", state)
        name, _, commit = version.partition(" ")
        write_json(folder / METADATA / "git_revisions.json", [{"name": name, "commit": commit or "1"}] if version else [])
        values: dict[str, Any] = {
            "session_uuid": SESSION,
            "subject_id": SUBJECT,
            "user_id": USER,
            "rig_id": self.name,
            "command_line": ("pytest", "--rig-config", "/home/jqualm/rig.yaml", "--subject-id", SUBJECT),
            **facts,
        }
        return build_report(
            state,
            self.settings,
            facts=values,
            session_folder=folder,
            secrets={PASSWORD},
            rig_config={"camera": {"password": PASSWORD, "path": "/home/jqualm/x"}},
            environ={TOKEN_ENV: TOKEN},
        )

    def fail(self, *failures: Failure, version: str = "", **facts: Any) -> list[dict[str, Any]]:
        reports = self.reports(*failures, version=version, **facts)
        for report in reports:
            report["state"]["queued_at"] = self.clock.iso()
            outbox.enqueue(self.state, report)
        return reports

    def drain(self, deadline_s: float = 5.0) -> sending.Drained:
        def attempt(path: Path, settings: GithubIssueSettings, token: str, limit_s: float) -> dict[str, Any] | None:
            api = Api(settings.api_base_url, settings.repo, token, self.timing)
            with closing(api):
                return worker.attempt(path, api, self.clock.now)

        return sending.drain(
            self.state,
            deadline_s,
            lambda name: self.token if name == TOKEN_ENV else None,
            self.answers.append,
            timing=self.timing,
            attempt=attempt,
            now=self.clock.now,
            sleep=self.clock.sleep,
        )

    @property
    def status(self) -> str:
        return str(self.answers[-1]["status"])


def run_until_idle(rigs: list[Rig], clock: SimClock, limit_s: float = 3600.0) -> None:
    """Drain all rigs at the same time, again and again, moving the clock to whatever is due next."""
    end = clock.now() + limit_s
    lock = threading.Lock()
    with ThreadPoolExecutor(len(rigs)) as pool:
        while clock.now() < end:
            dues: list[float] = []

            def one(rig: Rig, dues: list[float] = dues) -> None:
                drained = rig.drain(1.0)
                with lock:
                    dues.extend([drained.next_due] if drained.next_due is not None else [])

            list(pool.map(one, rigs))
            if not dues:
                return
            clock._now = max(clock.now() + 0.01, min(dues))
    raise AssertionError(f"the outboxes do not come to rest: {[rig.answers[-3:] for rig in rigs]}")
