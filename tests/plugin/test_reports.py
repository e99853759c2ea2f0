"""Sessions that report their failures to a GitHub of our own: what is sent, and what the disk and the screen tell."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import warm
from share_kit import living_processes
from step_kit import BY_SIDECAR, KILL_CODE

sys.path.insert(0, str(Path(__file__).parents[1]))

from issues.fake_github import REPO, FakeGithub
from issues.outgoing import TOKEN

from pytest_openscope.issues.fingerprint import fingerprint_of_name

TOKEN_ENV = "RIG_GITHUB_TOKEN"
SUBJECT, USER, LOGIN, PASSWORD = "Zx81-mouse", "quillfeather", "jqualm", "s3same-0pen!"
NAMES = {"subject": SUBJECT, "user": USER}
HOME = f"C:/Users/{LOGIN}" if sys.platform == "win32" else f"/home/{LOGIN}"
MACHINE = {"token": TOKEN, "password": PASSWORD, "home": HOME, "login": LOGIN}
WHO = ("--subject-id", SUBJECT, "--user-id", USER)

#: A failure whose message, log and child output name everything that is private.
LEAK = f"""
LEAK = f"{SUBJECT} of {USER} in {HOME}/data at {{__import__('socket').gethostname()}} with {TOKEN} and {PASSWORD}"
"""
LEAKY = f"""{LEAK}
def test_acquire(acquisition):
    logging.getLogger("lab").info(LEAK)
    acquisition.run(command=[sys.executable, "-c", "import sys; sys.exit(sys.argv[1])", "bad camera: " + LEAK])
"""
FAILS = "def test_acquire(experiment):\n    raise RuntimeError('the shutter is stuck')\n"


class Lab:
    """A bench whose failures go to the fake GitHub."""

    def __init__(self, bench: Any, github: FakeGithub) -> None:
        self.bench, self.github = bench, github
        self.configure()

    def configure(self, rig: str = "", **options: Any) -> None:
        """Write the rig configuration; ``options`` are those of ``github_issue``, None leaves one out."""
        where = {"repo": REPO, "token_env": TOKEN_ENV, "api_base_url": self.github.base_url}
        # The summary waits for the link until it is there, however slow the computer.
        block = {"enabled": True, **where, "report_wait_s": 60, **options}
        self.write_rig(rig + "github_issue: " + json.dumps({key: value for key, value in block.items() if value is not None}))

    def write_rig(self, text: str) -> None:
        head = f"rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\nstage_password: '{PASSWORD}'\n"
        self.bench.write("rig.yaml", head + text + "\n")

    def run(self, *arguments: object, here: bool = False) -> Any:
        run = self.bench.run_here if here else self.bench.run
        return run(*WHO, *arguments)

    def fail(self, *arguments: object, body: str = FAILS, here: bool = True) -> Any:
        self.bench.steps(body)
        result = self.run(*arguments, here=here)
        assert result.ret == 1, result.stdout.str()
        return result

    @property
    def folders(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.bench.folders, key=lambda path: (path / "launcher_metadata" / "journal.jsonl").stat().st_ctime_ns)

    def told(self, position: int = -1) -> Any:
        """``github`` in a session's ``debug_state.json``."""
        text = (self.folders[position] / "launcher_metadata" / "debug_state.json").read_text(encoding="utf-8")
        return json.loads(text).get("github")

    def reached(self, *statuses: str, position: int = -1) -> Any:
        """Wait until a session's report has one of these states."""

        def look() -> Any:
            told = self.told(position)
            return told if told and told["status"] in statuses else None

        return self.bench.wait_for(look, 60.0)

    def command(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "pytest_openscope", *map(str, arguments)]
        return warm.run(line, cwd=self.bench.path)

    def outbox(self) -> list[Path]:
        return sorted((self.bench.path / "state" / "outbox").glob("*.json"))

    def fail_unsent(self) -> None:
        """A session whose report lies in the outbox, and whose sidecar is gone."""
        self.fail()
        self.bench.wait_for(self.outbox)
        self.free()

    def free(self) -> None:
        """End the sidecars that see their reports settle, so that another process may use the outbox."""
        for process in sidecars_of(self.bench.path):
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
        self.bench.wait_for(lambda: not sidecars_of(self.bench.path))

    @property
    def writes(self) -> list[str]:
        return [f"{request.verb} {request.path}" for request in self.github.requests if request.verb != "GET"]

    @property
    def issues(self) -> list[Any]:
        return list(self.github.issues.values())


def sidecars_of(folder: Path) -> list[psutil.Process]:
    return [process for process, line in living_processes() if str(folder) in line and "sidecar" in line]


@pytest.fixture
def github() -> Iterator[FakeGithub]:
    """Looks for what must not be sent; subject and user may stand in the log, which is verbatim unless that is turned off."""
    server = FakeGithub()
    server.private, server.names, server.names_in_log = dict(MACHINE), dict(NAMES), True
    # Creating it takes a second, the pause between two writes that GitHub asks for.
    server.labels["auto-report"] = {"name": "auto-report"}
    yield server
    server.close()


@pytest.fixture
def lab(bench: Any, github: FakeGithub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, HOME)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, LOGIN)
    made = Lab(bench, github)
    yield made
    made.free()


# -- when


def test_a_failed_acquisition_becomes_one_issue(lab: Lab) -> None:
    result = lab.fail(body=LEAKY)
    told = lab.reached("created")
    (issue,) = lab.issues
    url = f"https://github.test/{REPO}/issues/1"
    assert (told["issue_url"], told["issue_number"], told["occurrence"], told["status"]) == (url, 1, 1, "created")
    assert told["fingerprint"].startswith("v1:")
    assert told["reported_at"]
    result.stdout.fnmatch_lines([f"issue: created {url}*"])
    assert "bad camera" in issue["title"]
    assert f"Fingerprint: `{told['fingerprint']}`" in issue["body"].splitlines()
    assert SUBJECT in issue["body"].partition("<summary>Session log")[2], "the log is verbatim but for secrets"
    lab.bench.wait_for(lambda: f"report {told['fingerprint']}: created {url}" in lab.bench.messages)
    (copy,) = (lab.folders[0] / "launcher_metadata").glob("github_report_*.md")
    assert copy.read_text(encoding="utf-8") == f"# {issue['title']}\n\n{issue['body']}"


@pytest.mark.skipif(sys.platform == "win32", reason="on Windows a user's profile is closed to others by itself")
def test_what_belongs_to_the_user_is_private(lab: Lab) -> None:
    lab.fail(body=FAILS)
    lab.reached("created")
    (session,) = lab.folders
    (sent,) = (session / "launcher_metadata").glob("github_report_*.md")
    state = lab.bench.path / "state"
    private = [state, state / "outbox", *(state / "outbox").glob("*.json"), *state.glob("*ledger*"), sent]
    assert {path.name: path.stat().st_mode & 0o077 for path in private} == {path.name: 0 for path in private}
    # The data are for everybody who works with them.
    assert session.stat().st_mode & 0o055
    assert (session / "launcher_metadata" / "launcher.log").stat().st_mode & 0o044


def test_the_same_failure_again_makes_no_second_issue(lab: Lab) -> None:
    lab.fail()
    assert lab.reached("created")["occurrence"] == 1
    second = lab.fail()
    assert lab.reached("commented", "known")["occurrence"] == 2
    second.stdout.fnmatch_lines([f"issue: * https://github.test/{REPO}/issues/1*"])
    assert len(lab.issues) == 1
    third = lab.fail(body=FAILS.replace("RuntimeError('the shutter is stuck')", "KeyError('camera')"))
    third.stdout.fnmatch_lines([f"issue: created https://github.test/{REPO}/issues/2*"])
    assert lab.reached("created")["issue_number"] == 2
    assert len(lab.issues) == 2


SILENT = {
    "all steps pass": ("def test_acquire(experiment): pass\n", (), 0),
    "dry run": (FAILS, ("--dry-run",), 1),
    "Ctrl-C": ("def test_acquire(experiment):\n    signal_me(signal.SIGINT); time.sleep(30)\n", (), 2),
    "SIGTERM": ("def test_acquire(experiment):\n    signal_me(signal.SIGTERM); time.sleep(30)\n", (), 2),
    "Ctrl-C while an acquisition runs": (
        "def test_acquire(acquisition):\n    threading.Timer(0.4, signal_me, [signal.SIGINT]).start()\n"
        "    acquisition.run(command=[sys.executable, '-c', 'import time; time.sleep(30)'])\n",
        (),
        2,
    ),
    "usage error": (FAILS, ("--param", "stop_graceful_s=often"), 4),
    "no step": ("def helper(): pass\n", (), 5),
    "unknown option": (FAILS, ("--no-such-option",), 4),
}


@pytest.mark.parametrize("name", list(SILENT))
def test_nothing_is_sent(lab: Lab, name: str) -> None:
    body, flags, code = SILENT[name]
    lab.bench.steps(body)
    result = lab.run(*flags, here="SIG" not in body)
    assert result.ret == code, result.stdout.str()
    lab.bench.wait_for(lambda: not sidecars_of(lab.bench.path))
    assert lab.github.requests == []
    assert lab.outbox() == []
    assert "issue:" not in result.stdout.str()


def test_a_dry_run_reports_if_asked_to(lab: Lab) -> None:
    lab.configure(report_dry_runs=True)
    lab.fail("--dry-run")
    assert lab.reached("created")["issue_number"] == 1
    assert "dry run" in lab.issues[0]["body"]


def test_a_missing_token_is_warned_about_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_ENV)
    result = lab.fail()
    text = result.stdout.str() + result.stderr.str()
    assert text.count(f"{TOKEN_ENV} holds no token") == 1, text
    assert lab.bench.messages.count(f"{TOKEN_ENV} holds no token") == 1
    (where,) = [number for number, entry in enumerate(lab.bench.log) if "holds no token" in entry.message]
    assert where < min(number for number, entry in enumerate(lab.bench.log) if entry.step), "it is said at the start"
    lab.bench.wait_for(lambda: not sidecars_of(lab.bench.path))
    assert lab.github.requests == []
    assert lab.outbox() == []
    assert lab.told()["issue_url"] is None


@pytest.mark.parametrize("enabled", [False, None])
def test_it_is_off_by_default(lab: Lab, enabled: object) -> None:
    lab.configure(enabled=enabled)
    lab.fail()
    lab.bench.wait_for(lambda: not sidecars_of(lab.bench.path))
    assert lab.github.requests == []
    assert lab.outbox() == []


def test_the_link_reaches_the_mirror_as_well(lab: Lab) -> None:
    mirror = lab.bench.path / "share"
    mirror.mkdir()
    lab.configure(rig=f"centralized_log_directory: {mirror}\n")
    result = lab.fail()
    result.stdout.fnmatch_lines(["mirror: verified*", "issue: created *"])
    url = lab.reached("created")["issue_url"]

    def copies() -> list[Path]:
        return [path for path in mirror.rglob("*") if path.is_file() and url.encode() in path.read_bytes()]

    lab.bench.wait_for(lambda: sum(path.suffix == ".log" for path in copies()) >= 2)
    log = lab.folders[0] / "launcher_metadata" / "launcher.log"
    digest = hashlib.sha256(log.read_bytes()).hexdigest()
    lab.bench.wait_for(lambda: lab.bench.end["mirror"]["sha256"] == digest)


def mirrored_unsent(lab: Lab) -> tuple[Path, Path]:
    """A session whose report waits and whose mirror is complete: its folder, and the folder of its copy."""
    share = lab.bench.path / "share"
    share.mkdir()
    # Its worker must have started by then.
    finish_s = 30 if sys.platform == "win32" else 1
    lab.configure(rig=f"centralized_log_directory: {share}\nmirror_finish_s: {finish_s}\n")
    fault = lab.github.fault(status=429, headers={"Retry-After": "3600"}, times=1000)
    lab.fail()
    lab.bench.wait_for(lambda: not sidecars_of(lab.bench.path))
    (copy,) = share.rglob("debug_state.json")
    assert github_of(copy.parent)["status"] == lab.told()["status"] == "queued"
    assert lab.bench.end["mirror"]["status"] == "verified"
    fault.times = 0
    make_due(lab)
    return lab.folders[0] / "launcher_metadata", copy.parent


def github_of(folder: Path) -> Any:
    return json.loads((folder / "debug_state.json").read_text(encoding="utf-8"))["github"]


def nothing_is_owed(lab: Lab, local: Path, copy: Path) -> bool:
    """The copies are equal, and the session is not noted as unfinished."""
    names = ("debug_state.json", "end_state.json")
    same = all((local / name).read_bytes() == (copy / name).read_bytes() for name in names)
    note = lab.bench.path / "state" / "unfinished" / f"{local.parent.name}.json"
    return same and github_of(copy)["status"] == "created" and not note.exists()


def send_by_hand(lab: Lab) -> str:
    """Run ``outbox send`` until the report is sent; it would go on settling for minutes."""
    line = [sys.executable, "-m", "pytest_openscope", "outbox", "send", "--state-directory", "state"]
    process = subprocess.Popen(line, cwd=lab.bench.path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1 waits; trying for at most 120 s (--timeout)\n"
    said = process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    return said


def test_the_mirror_follows_a_report_that_is_sent_by_the_next_session(lab: Lab) -> None:
    local, copy = mirrored_unsent(lab)
    lab.bench.steps("def test_acquire(experiment): pass\n")
    assert lab.run().ret == 0
    lab.bench.wait_for(lambda: nothing_is_owed(lab, local, copy))
    assert github_of(copy)["issue_url"] == f"https://github.test/{REPO}/issues/1"


def test_the_mirror_follows_later_when_the_share_is_away(lab: Lab) -> None:
    local, copy = mirrored_unsent(lab)
    share = lab.bench.path / "share"
    share.rename(lab.bench.path / "unplugged")
    assert "created" in send_by_hand(lab)
    lab.bench.wait_for(lambda: not sidecars_of(lab.bench.path))
    assert github_of(local)["status"] == "created"
    owed = json.loads((local / "end_state.json").read_text(encoding="utf-8"))["mirror"]
    assert owed["status"] == "pending", "it is said what is left"
    assert "gone" in owed["reason"]
    assert len(list((lab.bench.path / "state" / "unfinished").iterdir())) == 1
    (lab.bench.path / "unplugged").rename(share)
    assert github_of(copy)["status"] == "queued"
    assert lab.command("recover", "--state-directory", "state").returncode == 0
    lab.bench.wait_for(lambda: nothing_is_owed(lab, local, copy))


# -- deaths


def test_a_killed_session_is_reported_by_its_sidecar(lab: Lab) -> None:
    lab.bench.steps(LEAK + "def test_acquire(experiment):\n    logging.info(LEAK); kill_me()\n")
    assert lab.run().ret == KILL_CODE
    assert lab.reached("created")["issue_number"] == 1
    assert "the experiment process" in lab.issues[0]["title"]
    # Nobody reaps the second one, so that its sidecar learns of the signal; the defect is the same.
    with open(os.devnull, "wb") as nowhere:
        process = lab.bench.start(*WHO, stdout=nowhere, stderr=nowhere, fresh=True)
        lab.bench.wait_for(lambda: len(lab.folders) == 2)
        assert lab.reached("commented", "known")["issue_number"] == 1
        process.wait(20)
    assert len(lab.issues) == 1


def test_the_power_cut_is_reported_after_recovery(lab: Lab) -> None:
    lab.bench.steps(
        LEAK + "def test_acquire(experiment):\n    logging.info(LEAK)\n    if not os.path.exists('second'):\n"
        "        open('first', 'w').close(); time.sleep(60)\n"
    )
    first = lab.bench.start(*WHO)
    lab.bench.wait_for((lab.bench.path / "first").exists)
    folder = lab.bench.folder
    lab.bench.wait_for(lambda: sidecars_of(lab.bench.path))
    # A stopped process cannot start its sidecar anew before it dies too.
    psutil.Process(first.pid).suspend()
    lab.free()
    first.kill()
    first.wait(20)
    (lab.bench.path / "second").touch()
    assert lab.run().ret == 0
    path = folder / "launcher_metadata" / "debug_state.json"
    told = lab.bench.wait_for(lambda: json.loads(path.read_text(encoding="utf-8"))["github"]["issue_url"], 60.0)
    assert told == f"https://github.test/{REPO}/issues/1"


# -- which failures


PIPELINES = {
    "pre_acquisition": "pre_acquisition_pipeline",
    "post_acquisition": "post_acquisition_pipeline",
}


@pytest.mark.parametrize("phase", list(PIPELINES))
@pytest.mark.parametrize("asked", [True, False])
def test_report_on_chooses_the_phases_of_a_parameter_file(lab: Lab, phase: str, asked: bool) -> None:
    lab.configure(enabled=None, report_on=[phase] if asked else [name for name in ("exception", *PIPELINES) if name != phase])
    lab.bench.write("bad.py", "def run(params): return False\n")
    camera = lab.bench.write("camera.py", "print('frame')\n")
    day = {
        "launcher": "python",
        "script_path": str(camera),
        PIPELINES[phase]: [{"module_type": "script_module", "module_path": "bad.py", "function": "run"}],
        "github_issue": {"enabled": True},
    }
    lab.bench.write("day1.json", json.dumps(day))
    result = lab.run("day1.json", here=True)
    assert result.ret == 1, result.stdout.str()
    if asked:
        assert lab.reached("created")["issue_number"] == 1
        assert phase in lab.issues[0]["body"]
    else:
        lab.bench.wait_for(lambda: not sidecars_of(lab.bench.path))
        assert lab.github.requests == []


def test_acquisition_failures_are_not_sent_when_only_pipelines_are_asked_for(lab: Lab) -> None:
    lab.configure(report_on=["pre_acquisition", "post_acquisition"])
    lab.fail()
    lab.bench.wait_for(lambda: not sidecars_of(lab.bench.path))
    assert lab.github.requests == []


def test_the_older_flat_keys_still_work(lab: Lab) -> None:
    lab.write_rig(
        f"github_issue_on_error: true\ngithub_issue_repo: {REPO}\ngithub_issue_token_env: {TOKEN_ENV}\n"
        f"github_issue_api_base_url: {lab.github.base_url}\ngithub_issue_labels: [lab-rig]\n"
    )
    lab.fail()
    assert lab.reached("created")["issue_number"] == 1
    assert lab.issues[0]["labels"] == [{"name": "lab-rig"}]
    assert "lab-rig" in lab.github.labels, "a label that is missing is created"


#: Each with the exit code, what the title says, and what the body says.
KINDS = {
    "error in a fixture": (
        "@pytest.fixture\ndef camera():\n    raise OSError('no camera')\n\n"
        "@pytest.mark.pre_acquisition\ndef test_focus(camera): pass\n",
        1,
        "OSError in pre_acquisition/test_focus: no camera",
    ),
    "timeout": (
        "@pytest.mark.timeout(0.3)\ndef test_acquire(experiment):\n    time.sleep(30)\n",
        1,
        "in acquisition/test_acquire: ",
    ),
    "hung beyond its timeout": (
        "def forever():\n    while True:\n        try:\n            time.sleep(30)\n"
        "        except BaseException:\n            continue\n\n"
        "@pytest.mark.timeout(0.3)\ndef test_acquire(experiment):\n    forever()\n",
        BY_SIDECAR,
        "timeout in acquisition/test_acquire: ",
    ),
    "segmentation fault": (
        "def test_acquire(experiment):\n    read_null()\n",
        0xC0000005 if sys.platform == "win32" else -11,
        "crash in acquisition/test_acquire: ",
    ),
    "file that cannot be collected": ("import nothing_of_that_name\n", 2, "collection in test_experiment.py: "),
    "internal error": ("def test_acquire(experiment): pass\n", 3, "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("name", list(KINDS))
def test_every_kind_of_failure_is_reported(lab: Lab, name: str) -> None:
    body, code, title = KINDS[name]
    # Only where it is to be too short; a busy computer may need a while to interrupt a step.
    lab.configure(rig=f"grace_s: {0.3 if name.startswith('hung') else 30}\n", report_on=["exception"])
    lab.bench.steps(body)
    if name == "internal error":
        lab.bench.write("conftest.py", "def pytest_runtest_logfinish(): 1 / 0\n")
    result = lab.run()
    assert result.ret == code, result.stdout.str()
    assert lab.reached("created")["issue_number"] == 1
    (issue,) = lab.issues
    assert title in issue["title"]
    if name == "hung beyond its timeout":
        assert "in forever" in issue["body"]


TWO = """
def test_acquire(experiment):
    raise RuntimeError('the shutter is stuck')

@pytest.mark.post_acquisition
def test_save(experiment):
    open('/nowhere/at/all')

@pytest.mark.post_acquisition
def test_save_again(experiment):
    pass
"""


def test_every_failure_of_a_session_is_reported(lab: Lab) -> None:
    result = lab.fail(body=TWO)
    result.stdout.fnmatch_lines(["issue: created *issues/1*", "issue: created *issues/2*"])
    told = lab.bench.wait_for(lambda: len(lab.told()["reports"]) == 2 and lab.told())
    assert [report["issue_number"] for report in told["reports"]] == [1, 2]
    assert told["issue_number"] == 1, "the documented keys are those of the first failure"
    assert "stuck" in lab.issues[0]["title"]
    assert "FileNotFoundError" in lab.issues[1]["title"]


def test_two_rigs_share_one_issue(lab: Lab) -> None:
    lab.fail()
    lab.reached("created")
    text = (lab.bench.path / "rig.yaml").read_text()
    block = text[text.rindex("github_issue:") :]
    lab.bench.write("rig.yaml", f"rig_id: other\noutput_root_folder: sessions\nstate_directory: state2\n{block}")
    result = lab.fail()
    result.stdout.fnmatch_lines(["issue: commented *issues/1*"])
    assert len(lab.issues) == 1
    assert "other" in lab.github.comment_bodies(1)[0]


def test_a_session_does_not_wait_longer_than_for_its_link(lab: Lab) -> None:
    lab.configure(report_wait_s=110)
    result, taken_s = timed(lab)
    result.stdout.fnmatch_lines(["issue: created *"])
    assert taken_s < 100.0, "the sidecar looks after the issue for two minutes; nobody waits for that"


def test_a_busy_server_delays_the_report_and_not_the_session(lab: Lab) -> None:
    lab.configure(report_wait_s=110)
    lab.github.fault(status=429, headers={"Retry-After": "3600"}, times=1000)
    result, taken_s = timed(lab)
    assert taken_s < 100.0
    result.stdout.fnmatch_lines(["issue: queued (the server asks to wait*"])
    assert "in 3" in lab.command("outbox", "--rig-config", "rig.yaml").stdout
    assert lab.writes == []


# -- names given by the lab

HOOK = """
def pytest_openscope_fingerprint(failure):
    assert failure.step and failure.chain
    failure.message = "changed"
    {answer}
"""
TWICE = """
def test_acquire(experiment):
    raise RuntimeError("the hub is gone")

@pytest.mark.post_acquisition
def test_save(experiment):
    error = OSError("no such port")
    error.__notes__ = ["fingerprint: usb-hub"]
    raise error
"""


def test_a_hook_names_failures_of_one_defect(lab: Lab) -> None:
    lab.bench.write("conftest.py", HOOK.format(answer="return failure.fingerprint or 'usb-hub' if failure.step else None"))
    result = lab.fail(body=TWICE)
    told = lab.reached("created")
    result.stdout.fnmatch_lines(["issue: created *issues/1*"])
    assert told["fingerprint"] == fingerprint_of_name("usb-hub")
    assert len(told["reports"]) == len(lab.issues) == 1, "note and hook give the same name"
    metadata = lab.folders[0] / "launcher_metadata"
    events = [json.loads(line) for line in (metadata / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [event["values"] for event in events if event["event"] == "kept" and event["field"] == "failures"]
    failures = [failure for values in kept for failure in values]
    assert [failure["fingerprint"] for failure in failures] == ["usb-hub", "usb-hub"]
    assert failures[0]["message"] == "the hub is gone", "the hook was given a copy"
    assert f"Fingerprint: `{told['fingerprint']}`" in lab.issues[0]["body"].splitlines()


BROKEN_HOOKS = {
    "it raises": ("raise KeyError('no such table')", "KeyError: 'no such table'"),
    "it fails": ("import pytest; pytest.fail('never mind')", "RuntimeError: it ended with Failed: never mind"),
    "it returns a number": ("return 12", "TypeError: it returned 12 -> return a text"),
}


@pytest.mark.parametrize("name", list(BROKEN_HOOKS))
def test_a_broken_hook_is_shown_and_the_ordinary_name_used(lab: Lab, name: str) -> None:
    answer, said = BROKEN_HOOKS[name]
    lab.configure(enabled=False)
    lab.bench.write("conftest.py", HOOK.format(answer=answer))
    result = lab.fail()
    result.stdout.fnmatch_lines([f"helper failed: the hook pytest_openscope_fingerprint: {said}*"])
    assert "the hook pytest_openscope_fingerprint failed" in lab.bench.messages
    assert "Traceback (most recent call last)" in lab.bench.messages
    assert lab.bench.debug["failure"]["fingerprint"] == ""
    assert lab.bench.debug["failure"]["message"] == "the shutter is stuck"


def test_a_hook_does_not_disturb_runs_without_a_rig(lab: Lab) -> None:
    lab.bench.write("conftest.py", HOOK.format(answer="raise KeyError"))
    lab.bench.steps("def test_plain(): pass\n")
    lab.bench.run(rig=False).assert_outcomes(passed=1)


# -- servers that are away


def timed(lab: Lab, *arguments: object) -> tuple[Any, float]:
    started = time.monotonic()
    result = lab.fail(*arguments, here=False)
    return result, time.monotonic() - started


def closed_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def away(lab: Lab, how: str, wait_s: float = 1.0) -> Callable[[], None]:
    """Configure a server that does not answer; the result brings it back."""
    if how == "down":
        lab.configure(report_wait_s=wait_s, api_base_url=closed_port())
        return lambda: None
    lab.configure(report_wait_s=wait_s)
    fault = lab.github.fault(how={"dripping": "drip", "black hole": "hang"}[how], times=1000)

    def back() -> None:
        fault.times = 0

    return back


@pytest.mark.parametrize("how", ["down", "dripping", "black hole"])
def test_a_session_waits_no_longer_than_report_wait_s(lab: Lab, how: str) -> None:
    wait_s = 0.5
    lab.configure(enabled=False)
    plain, plain_s = timed(lab)
    away(lab, how, wait_s)
    result, taken_s = timed(lab)
    # On a busy computer no two sessions take the same time.
    allowed_s = 2 * plain_s + wait_s + 4.0
    if taken_s > allowed_s:
        # Of two measurements the shorter one says more.
        result, taken_s = timed(lab)
    assert taken_s < allowed_s, f"{taken_s:.2f} s, with reporting off {plain_s:.2f} s"
    assert result.ret == plain.ret == 1
    # Its sidecar may not even have counted the reports by then.
    result.stdout.fnmatch_lines(["issue: *goes out *with the next session)"])
    told = lab.reached("queued")
    assert told["issue_url"] is None
    assert lab.outbox()


#: A good session that goes on until an earlier one's report has been sent.
SENT_MEANWHILE = """
def test_acquire(experiment):
    earlier = sorted(experiment.session_folder.parent.glob("*/launcher_metadata/debug_state.json"))[0]
    deadline = time.monotonic() + 30
    while '"created"' not in earlier.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
"""


def test_what_was_not_sent_goes_with_the_next_session(lab: Lab) -> None:
    back = away(lab, "black hole", 0.3)
    lab.fail_unsent()
    back()
    make_due(lab)
    lab.bench.steps(SENT_MEANWHILE)
    assert lab.run().ret == 0, "it goes at the start"
    assert lab.told(0)["status"] == "created"
    assert len(lab.issues) == 1


def test_the_next_session_sends_although_nothing_is_to_recover(lab: Lab) -> None:
    fault = lab.github.fault(status=429, headers={"Retry-After": "3600"}, times=1000)
    lab.fail()
    lab.bench.wait_for(lambda: not sidecars_of(lab.bench.path))
    fault.times = 0
    make_due(lab)
    lab.bench.steps(SENT_MEANWHILE)
    result = lab.run()
    assert result.ret == 0
    assert "without its sidecar" not in result.stdout.str()
    assert lab.told(0)["status"] == "created"
    assert len(lab.issues) == 1


def make_due(lab: Lab) -> None:
    """Let the time pass after which a report is tried again."""
    for path in lab.outbox():
        report = json.loads(path.read_text(encoding="utf-8"))
        report["state"]["next_try"] = 0.0
        path.write_text(json.dumps(report), encoding="utf-8")
    (lab.bench.path / "state" / "ledger.json").unlink(missing_ok=True)


def test_the_outbox_by_hand(lab: Lab) -> None:
    back = away(lab, "black hole", 0.3)
    lab.fail_unsent()
    listed = lab.command("outbox", "list", "--rig-config", "rig.yaml")
    assert listed.returncode == 0
    assert lab.told()["fingerprint"] in listed.stdout
    assert "shutter is stuck" in listed.stdout
    back()
    make_due(lab)
    assert f"created  https://github.test/{REPO}/issues/1" in send_by_hand(lab)
    assert lab.told()["status"] == "created"
    dropped = lab.command("outbox", "drop", "all", "--rig-config", "rig.yaml")
    assert dropped.returncode == 0
    assert "dropped" in dropped.stdout
    assert "nothing waits" in lab.command("outbox", "--rig-config", "rig.yaml").stdout
    assert len(lab.issues) == 1


def test_a_report_that_was_dropped_unsent_says_so(lab: Lab) -> None:
    away(lab, "black hole", 0.3)
    lab.fail_unsent()
    assert lab.command("outbox", "drop", lab.told()["fingerprint"], "--rig-config", "rig.yaml").returncode == 0
    assert (lab.told()["status"], lab.told()["reason"]) == ("refused", "dropped by hand")
    assert lab.issues == []


READ_ONLY = {"full_name": REPO, "archived": True, "private": True}


def test_a_report_that_the_disk_does_not_take_is_named_in_the_summary(lab: Lab) -> None:
    lab.bench.write("state/outbox", "a file where the outbox should be")
    result = lab.fail()
    told = lab.reached("refused")
    assert "the outbox cannot be written" in told["reason"]
    result.stdout.fnmatch_lines(["issue: refused (the outbox cannot be written: *"])
    assert lab.github.requests == []


REFUSALS = {
    "archived": ({"path": f"/repos/{REPO}$", "status": 200, "content": READ_ONLY}, f"{REPO} is archived"),
    "401": ({"status": 401, "content": {"message": "Bad credentials"}}, "Bad credentials"),
    "404": ({"status": 404, "content": {"message": "Not Found"}}, "does not exist, or the token may not see it"),
    "410": ({"status": 410, "content": {"message": "Issues are disabled"}}, "Issues are disabled"),
    "403": ({"status": 403, "content": {"message": "Resource not accessible"}}, "Resource not accessible"),
}


@pytest.mark.parametrize("name", list(REFUSALS))
def test_a_refusal_is_final_and_said_plainly(lab: Lab, name: str) -> None:
    fault, text = REFUSALS[name]
    lab.github.fault(times=1000, **fault)
    result = lab.fail()
    told = lab.reached("refused")
    assert text in told["reason"]
    assert told["issue_url"] is None
    result.stdout.fnmatch_lines([f"issue: refused*{text}*"])
    assert f"report {told['fingerprint']}: refused ({told['reason']})" in lab.bench.messages
    lab.bench.wait_for(lambda: not lab.outbox())
    assert lab.writes == []


def test_a_locked_issue_is_left_alone_and_that_is_said(lab: Lab) -> None:
    lab.fail()
    lab.reached("created")
    lab.issues[0]["locked"] = True
    result = lab.fail()
    told = lab.reached("refused")
    assert told["reason"] == f"https://github.test/{REPO}/issues/1 is locked"
    result.stdout.fnmatch_lines(["issue: refused (*issues/1 is locked)"])
    assert lab.github.comment_bodies(1) == []


def test_github_check_creates_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    good = lab.command("github-check", "--rig-config", "rig.yaml")
    assert good.returncode == 0, good.stdout + good.stderr
    assert REPO in good.stdout
    assert "sanitize_launcher_log to true" in good.stdout
    monkeypatch.setenv(TOKEN_ENV, "ghp_" + "wrong1" * 6)
    bad = lab.command("github-check", "--rig-config", "rig.yaml")
    assert bad.returncode == 1
    assert "does not accept the token" in bad.stdout
    monkeypatch.delenv(TOKEN_ENV)
    assert lab.command("github-check", "--rig-config", "rig.yaml").returncode == 1
    assert lab.writes == []


# -- privacy


@pytest.mark.parametrize("how", ["sanitized", "public"])
def test_nobody_is_named_in_any_part_of_a_masked_report(lab: Lab, how: str) -> None:
    lab.configure(sanitize_launcher_log=how == "sanitized", include_rig_config=True)
    lab.github.repo["private"] = how != "public"
    result = lab.fail(body=LEAKY)
    lab.reached("created")
    assert "Session log" in lab.issues[0]["body"]
    lab.github.names["session"] = lab.folders[0].name
    lab.github.names_in_log = False
    lab.github.search()
    said = result.stdout.str()
    assert ("is public: everybody can read" in said) == (how == "public")
    assert ("names in the log were masked, because the repository is public" in said) == (how == "public")
    if how == "public":
        lab.fail(body=LEAKY.replace("bad camera", "other camera")).stdout.no_fnmatch_line("*everybody can read*")


def test_subject_and_user_are_named_if_asked_for(lab: Lab) -> None:
    lab.configure(include_subject_user=True)
    lab.github.names = {}
    lab.fail()
    lab.reached("created")
    body, title = lab.issues[0]["body"], lab.issues[0]["title"]
    assert f"**Subject:** `{SUBJECT}`" in body
    assert f"**User:** `{USER}`" in body
    assert SUBJECT not in title
