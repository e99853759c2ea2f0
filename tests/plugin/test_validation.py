"""``--validate-rig`` on good rigs and on odd ones: every ready-made check seen to pass, and to fail, from the outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Rig

HEAD = "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\n"


def validate(bench: Rig, *arguments: object, here: bool = True, fresh: bool = False) -> pytest.RunResult:
    """Validate in this process, or in one of its own where something hangs or dies in it, or in a new interpreter."""
    line = ("--rig-config", "rig.yaml", "--no-input", "--validate-rig", *arguments)
    return bench.run_here(*line, ids=False, rig=False) if here else bench.run(*line, ids=False, rig=False, fresh=fresh)


def kept(bench: Rig) -> dict[str, Any]:
    checks: dict[str, Any] = json.loads((bench.path / "state" / "validation.json").read_text(encoding="utf-8"))["checks"]
    return checks


def statuses(bench: Rig) -> dict[str, str]:
    return {check: result["status"] for check, result in kept(bench).items()}


def rig_file(bench: Rig, text: str, head: str = HEAD) -> None:
    bench.write("rig.yaml", head + text)


class GitHub:
    """Answers for one repository, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        facts = {"full_name": "lab/rig", "has_issues": True, "permissions": {"push": True}}
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.command, self.path))
                good = self.headers["Authorization"].endswith(" good-token")
                self.send_response(200 if good else 401)
                self.end_headers()
                answer = [] if "/issues" in self.path else facts
                self.wfile.write(json.dumps(answer if good else {}).encode())

            do_POST = do_PATCH = do_PUT = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def github() -> Iterator[GitHub]:
    made = GitHub()
    yield made
    made.server.shutdown()
    made.server.server_close()


def git(place: Path, *arguments: str) -> None:
    place.mkdir(exist_ok=True)
    subprocess.run(["git", "-C", str(place), "-c", "user.name=x", "-c", "user.email=x@y", *arguments], check=True)


def tool(bench: Rig, name: str, output: str) -> None:
    """Put a program that prints ``output`` first on the PATH of the rig."""
    path = bench.write(f"bin/{name}", f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)


DRIVERS = """
import time

class Good:
    def check(self): return "LASER 7"

class Mute:
    pass

class Dead:
    def check(self): time.sleep(60)

class Wrong:
    def check(self): return False

class Stuck:
    def open(self): time.sleep(60)

class Closing:
    def close(self): raise OSError("jammed")
"""

FULL = """
centralized_log_directory: "{share}"
github_issue: {{enabled: true, repo: lab/rig, token_env: RIG_TOKEN, api_base_url: "{url}"}}
devices:
  laser: {{driver: "lab_drivers:Good"}}
  line: {{driver: serial, port: "{serial}", open_timeout_s: 2}}
requirements:
  free_gb: {free_gb}
  write_mb_per_s: {speed}
  fsync_ms: {fsync_ms}
  mirror_latency_ms: {latency_ms}
  clock_skew_s: {skew_s}
  clock_synchronised: true
  executables: ["{exe}"]
  repositories: [{repo}]
  serial_ports: ["{serial}"]
  tcp_ports: ["127.0.0.1:{port}"]
  no_processes: ["{process}"]
  packages_lock: {lock}
  memory_gb: {memory_gb}
  python: "{python}"
  environment: [{variable}]
"""
GOOD = {
    "free_gb": 0.001,
    "speed": 0.001,
    "fsync_ms": 60_000,
    "latency_ms": 60_000,
    "skew_s": 3600,
    "exe": Path(sys.executable).as_posix(),
    "repo": "clean",
    "process": "no-such-program",
    "lock": "good.lock",
    "memory_gb": 0.001,
    "python": ">=3.10",
    "variable": "PATH",
}
BAD = {
    "free_gb": 1e9,
    "speed": 1e9,
    "fsync_ms": 0,
    "latency_ms": 0,
    "exe": "no_such_bonsai",
    "repo": "not_cloned",
    "lock": "bad.lock",
    "memory_gb": 1e9,
    "python": "<3",
    "variable": "NO_SUCH_VARIABLE",
}


@pytest.fixture
def full(bench: Rig, github: GitHub, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A rig with one of everything."""
    pytest.importorskip("serial")
    bench.write("lab_drivers.py", DRIVERS)
    bench.write("good.lock", f"pytest=={pytest.__version__}\n")
    bench.write("bad.lock", "pytest==0.1\n")
    git(bench.path / "clean", "init", "-q")
    git(bench.path / "clean", "commit", "-q", "--allow-empty", "-m", "x")
    (bench.path / "share").mkdir()
    monkeypatch.setenv("RIG_TOKEN", "good-token")
    monkeypatch.setenv("PATH", os.pathsep.join([str(bench.path / "bin"), os.environ["PATH"]]))
    return bench


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo terminal stands for the serial port")
def test_everything_passes(full: Rig, github: GitHub) -> None:
    import pty

    tool(full, "timedatectl", "yes")
    ours, theirs = pty.openpty()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    rig_file(
        full, FULL.format(share=(full.path / "share").as_posix(), url=github.url, serial=os.ttyname(theirs), port=port, **GOOD)
    )
    try:
        result = validate(full)
    finally:
        os.close(ours)
        os.close(theirs)
    assert result.ret == 0, result.stdout.str()
    found = kept(full)
    assert set(statuses(full).values()) == {"pass"}
    groups = {check.partition("[")[0].partition(".")[0] for check in found}
    from pytest_openscope.checks.readiness import CHECK_GROUPS

    assert groups == set(CHECK_GROUPS) - {"acquisition"}  # of workflows, where there is one
    measured = {check: (one["unit"], one["limit"]) for check, one in found.items() if isinstance(one["value"], float)}
    assert measured == {
        "disk.free_space": ("GB", 0.001),
        "disk.write_speed": ("MB/s", 0.001),
        "disk.fsync": ("ms", 60_000),
        "mirror.latency": ("ms", 60_000),
        "mirror.clock_skew": ("s", 3600),
        "memory": ("GB", 0.001),
        "devices[laser]": ("ms", 10_000),
        "devices[line]": ("ms", 10_000),
    }
    assert len(found["repositories[clean]"]["value"]) == 40
    assert list((full.path / "sessions").glob("validations/validation_*/launcher_metadata/launcher.log"))
    assert not [path for path in (full.path / "share").rglob("*") if "probe" in path.name]
    assert {method for method, _ in github.asked} == {"GET"}
    assert "skipped" not in result.stdout.str()


@pytest.mark.skipif(sys.platform == "win32", reason="marks a left-over process as POSIX does")
def test_everything_fails(full: Rig, github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(full, "timedatectl", "no")
    monkeypatch.setenv("RIG_TOKEN", "old-token")
    sleeper = full.path / "left_over_camera"
    sleeper.symlink_to("/bin/sleep")
    with socket.create_server(("127.0.0.1", 0)) as server, subprocess.Popen([str(sleeper), "60"]) as process:
        port = server.getsockname()[1]
        bad = {**GOOD, **BAD, "skew_s": 0.5, "process": "left_over_camera"}
        rig_file(
            full, FULL.format(share=(full.path / "share").as_posix(), url=github.url, serial="/dev/tty_none", port=port, **bad)
        )
        # A server whose clock is an hour slow.
        full.write("site/sitecustomize.py", SLOW_CLOCK.format(share=str(full.path / "share")))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(full.path / "site"), os.environ["PYTHONPATH"]]))
        try:
            result = validate(full, here=False, fresh=True)
        finally:
            process.kill()
    assert result.ret == 1
    found = kept(full)
    passed = {check for check, status in statuses(full).items() if status != "fail"}
    assert passed == {"configuration", "disk.writable", "mirror.writable", "devices[laser]"}
    assert all(one["remedy"] for one in found.values() if one["status"] == "fail")
    assert "taken by" in found[f"tcp_ports[127.0.0.1:{port}]"]["message"]
    assert str(process.pid) in found["processes"]["message"]
    assert found["packages"]["message"] == f"pytest {pytest.__version__} (lock: 0.1)"
    assert found["mirror.clock_skew"]["value"] == pytest.approx(3600, abs=60)
    assert "does not accept the token" in found["github"]["message"]
    assert {method for method, _ in github.asked} == {"GET"}
    output = result.stdout.str()
    assert "disk.free_space: fail: free in " in output
    assert "limit 1e+09 GB] -> move finished sessions away" in output
    assert "issue:" not in output  # a finding is for who validates


SLOW_CLOCK = """
import os, pathlib
stat = pathlib.Path.stat
def slow(self, **more):
    facts = stat(self, **more)
    if str(self).startswith({share!r}) and "probe" in self.name:
        return os.stat_result([*facts[:7], facts[7], facts[8] - 3600, facts[9]])
    return facts
pathlib.Path.stat = slow
"""


def test_warnings_and_skips(bench: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings do not fail a validation, not even where warnings are errors; what is not declared is not shown."""
    git(bench.path / "changed", "init", "-q")
    git(bench.path / "changed", "commit", "-q", "--allow-empty", "-m", "x")
    bench.write("changed/new", "x")
    bench.write("pytest.ini", "[pytest]\nfilterwarnings = error\n")
    if sys.platform != "win32":
        tool(bench, "timedatectl", "no")
    monkeypatch.setenv("PATH", os.pathsep.join([str(bench.path / "bin"), os.environ["PATH"]]))
    monkeypatch.setenv("RIG_TOKEN", "x")
    report = "github_issue: {enabled: true, repo: lab/rig, token_env: RIG_TOKEN, api_base_url: 'http://127.0.0.1:9'}\n"
    rig_file(
        bench, report + "requirements: {repositories: [changed], serial_ports: ['loop://']}\nreadiness: {require: [clock]}\n"
    )
    result = validate(bench, "--junitxml", "junit.xml")
    assert result.ret == 0, result.stdout.str()
    found = statuses(bench)
    assert [found[check] for check in ("repositories[changed]", "github")] == ["warn", "warn"]
    assert found["clock"] == "warn" or sys.platform == "win32"
    assert [found[check] for check in ("packages", "serial_ports[loop://]", "mirror.writable")] == ["skip"] * 3
    assert "1 changed files" in result.stdout.str()
    assert "NOTSET" not in result.stdout.str()
    assert "python: pass: Python" in (bench.path / "junit.xml").read_text(encoding="utf-8")


def test_the_counts_and_the_names_of_a_validation_agree(bench: Rig) -> None:
    rig_file(bench, "requirements: {free_gb: 99999999}\n")
    result = validate(bench, "-k", "free_space")
    result.stdout.fnmatch_lines(
        ["1 check: 1 fail", "first failure: check disk.free_space: free in * limit 1e+08 GB[]] -> move*"]
    )
    rig_file(bench, "devices: {laser: {driver: 'lab_drivers:Good'}}\n")
    bench.write("lab_drivers.py", DRIVERS)
    result = validate(bench)
    collected = next(int(line.split()[1]) for line in result.stdout.lines if line.startswith("collected "))
    assert collected == sum(result.parseoutcomes().values())
    assert f"{collected} checks: " in result.stdout.str()
    assert "devices[laser]: pass" in result.stdout.str()


def test_configuration(bench: Rig) -> None:
    rig_file(bench, "requirements: {free_gb: '{rig_param:free}', timeout_s: 5}\nvalues: {free: lots}\n")
    validate(bench, "-k", "configuration")
    assert kept(bench)["configuration"]["status"] == "fail"
    assert "requirements.free_gb: a number expected, not text 'lots'" in kept(bench)["configuration"]["message"]
    rig_file(
        bench, "requirements: {free_gb: '{rig_param:free}'}\nvalues: {free: 0.001}\nparameters: {github_issue: {odd: 1}}\n"
    )
    assert validate(bench, "-k", "configuration or free_space").ret == 0
    assert kept(bench)["disk.free_space"]["limit"] == 0.001
    assert kept(bench)["configuration"]["status"] == "warn"
    rig_file(bench, "requirements: {free_bg: 1, fsync_ms: fast}\n")
    result = validate(bench)
    assert result.ret == 4
    assert "did you mean free_gb?" in result.stderr.str()
    assert "requirements.fsync_ms" in result.stderr.str()


def test_pyargs_is_the_same(bench: Rig) -> None:
    bench.write("lab_drivers.py", DRIVERS)
    rig_file(bench, "devices: {laser: {driver: 'lab_drivers:Good'}}\n")
    arguments = ("--rig-config", "rig.yaml", "--no-input", "--pyargs")
    assert bench.run_here(*arguments, "pytest_openscope.checks", ids=False, rig=False).ret == 0
    by_package = statuses(bench)
    (bench.path / "state" / "validation.json").unlink()
    assert validate(bench).ret == 0
    assert statuses(bench) == by_package
    assert by_package["devices[laser]"] == "pass"
    assert len(list((bench.path / "sessions" / "validations").iterdir())) == 2
    assert bench.run_here(*arguments, "pytest_openscope.checks.test_devices", ids=False, rig=False).ret == 0
    assert statuses(bench) == by_package  # a part of the suite takes nothing away


def test_without_a_rig_it_says_so(bench: Rig) -> None:
    result = bench.run("--validate-rig", rig=False)
    assert result.ret == 4
    assert "--validate-rig: no rig is given -> add --rig-config PATH" in result.stderr.str()
    result = bench.run("--pyargs", "pytest_openscope.checks", "-rs", rig=False)
    assert result.ret == 0
    assert "no rig to validate" in result.stdout.str()


def test_a_dead_output_disk_is_a_finding(bench: Rig) -> None:
    bench.write("disk", "a file")
    rig_file(bench, "", HEAD.replace("sessions", "disk/sessions"))
    result = validate(bench)
    assert result.ret == 1
    found = statuses(bench)
    assert found["disk.writable"] == "fail"
    assert {found[f"disk.{part}"] for part in ("free_space", "write_speed", "fsync")} == {"skip"}
    assert kept(bench)["disk.fsync"]["blocked_by"] == "disk.writable"
    assert found["python"] == "pass"
    assert list((bench.path / "state" / "validations").glob("validation_*/launcher_metadata/end_state.json"))


HUNG = """
import functools, os, time
place = {place!r}
def hang(function):
    def call(path, *args, **more):
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(place):
            time.sleep(600)
        return function(path, *args, **more)
    return functools.partial(call)  # pathlib of Python 3.10 makes methods of functions
for name in ("stat", "lstat", "mkdir", "open", "scandir", "listdir", "access", "statvfs"):
    setattr(os, name, hang(getattr(os, name)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="what hangs is made of POSIX calls")
def test_hung_disk_and_share_cost_their_time_only(bench: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.path / "hung").mkdir()
    text = f"centralized_log_directory: {bench.path.as_posix()}/hung/share\nmirror_wait_s: 0\nmirror_finish_s: 0\n"
    text += "requirements: {timeout_s: 4}\n"
    rig_file(bench, text, HEAD.replace("sessions", "hung/sessions"))
    bench.write("site/sitecustomize.py", HUNG.format(place=str(bench.path / "hung")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(bench.path / "site"), os.environ["PYTHONPATH"]]))
    started = time.monotonic()
    result = validate(bench, here=False, fresh=True)
    assert time.monotonic() - started < 55
    assert result.ret == 1
    for check in ("disk.writable", "mirror.writable"):
        assert kept(bench)[check]["status"] == "fail"
        assert "no answer within 4 s" in kept(bench)[check]["message"]
    assert statuses(bench)["python"] == "pass"


def test_devices(bench: Rig) -> None:
    bench.write("lab_drivers.py", DRIVERS)
    rig_file(
        bench,
        """
devices:
  good: {driver: "lab_drivers:Good"}
  mute: {driver: "lab_drivers:Mute"}
  dead: {driver: "lab_drivers:Dead", check_timeout_s: 0.2}
  wrong: {driver: "lab_drivers:Wrong"}
  stuck: {driver: "lab_drivers:Stuck", open_timeout_s: 0.2}
  bound: {driver: "lab_drivers:Stuck", open_timeout_s: 0.2, open_in_main_thread: true}
  closing: {driver: "lab_drivers:Closing"}
""",
    )
    started = time.monotonic()
    result = validate(bench, "-k", "test_device", here=False)
    assert time.monotonic() - started < 50
    assert result.ret == 1
    messages = {check: f"{one['status']}: {one['message']}" for check, one in kept(bench).items()}
    assert messages.pop("devices[good]").startswith("pass: says 'LASER 7'")
    assert messages.pop("devices[mute]").startswith("pass: opens and closes; its driver has no check()")
    assert messages["devices[dead]"] == "fail: TimeoutError: dead.check did not return within 0.2 s"
    assert "check() returned False" in messages["devices[wrong]"]
    assert "stuck.open did not return within 0.2 s" in messages["devices[stuck]"]
    assert messages["devices[bound]"] == "fail: TimeoutError: bound.open did not return within 0.2 s"
    assert "does not close: OSError: jammed" in messages["devices[closing]"]
    assert {one["status"] for check, one in kept(bench).items() if check in messages} == {"fail"}


def test_results_that_cannot_be_kept_are_told(bench: Rig) -> None:
    (bench.path / "state" / "validation.json").mkdir(parents=True)
    rig_file(bench, "devices: {}\n")
    result = validate(bench, "-k", "python")
    result.stdout.fnmatch_lines(["*results of the validation could not be kept:*"])


HOLDING = """
import ctypes

class Holding:
    def open(self):
        if hasattr(ctypes, "WinDLL"):
            ctypes.PyDLL("kernel32").Sleep(120_000)
        ctypes.PyDLL(None).usleep(120_000_000)
"""


def test_a_driver_that_lets_nothing_else_run_fails_its_check(bench: Rig) -> None:
    bench.write("lab_drivers.py", HOLDING)
    times = "open_timeout_s: 0.1, check_timeout_s: 0.1, close_timeout_s: 0.1, safe_state_timeout_s: 0.1"
    rig_file(bench, f"grace_s: 0.5\ndevices: {{laser: {{driver: 'lab_drivers:Holding', {times}}}}}\n")
    result = validate(bench, "-k", "test_device", here=False)
    # The sidecar ended it. A process that was ended has no exit code of its own on Windows.
    assert result.ret == 1 if sys.platform == "win32" else result.ret < 0
    assert "first failure" not in result.stdout.str(), "it came to its end"
    assert kept(bench)["devices[laser]"]["status"] == "fail"


OWN = """
import os, pytest

@pytest.mark.rig_check(expires="7d")
def test_water(devices):
    assert devices["laser"].check()

@pytest.mark.rig_check
def test_valve():
    assert "VALVE" not in os.environ, "valve stuck"

def test_other(): pass
"""


@pytest.fixture
def own(bench: Rig) -> Rig:
    bench.write("lab_drivers.py", DRIVERS)
    bench.write("own/test_own.py", OWN)
    rig_file(bench, "devices: {laser: {driver: 'lab_drivers:Good'}}\nreadiness: {require: [test_water], on_stale: warn}\n")
    return bench


def test_own_checks_with_the_suite_and_by_name(own: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert validate(own, "own").ret == 0
    assert (statuses(own)["test_water"], statuses(own)["test_valve"]) == ("pass", "pass")
    assert kept(own)["test_water"]["expires_s"] == 7 * 86400
    assert "expires_s" not in kept(own)["test_valve"]
    assert kept(own)["test_water"]["file"] == str(own.path / "own" / "test_own.py")
    assert "test_other" not in kept(own)
    assert "python" in kept(own)
    (own.path / "state" / "validation.json").unlink()
    monkeypatch.setenv("VALVE", "1")
    assert own.run_here("own/test_own.py").ret == 1
    assert statuses(own) == {"test_water": "pass", "test_valve": "fail"}
    assert kept(own)["test_water"]["expires_s"] == 7 * 86400
    assert kept(own)["test_valve"]["message"].startswith("valve stuck")
    (own.path / "state" / "validation.json").unlink()
    assert own.run_here("--dry-run", "own/test_own.py").ret == 1
    assert not (own.path / "state" / "validation.json").exists()


@pytest.mark.parametrize("mark", ["expires='a while'", "expires=-1", "expires=0", "'7d'", "expire='7d'"])
def test_wrong_marks_are_usage_errors(own: Rig, mark: str) -> None:
    own.write("own/test_own.py", OWN.replace("expires='7d'", mark).replace('expires="7d"', mark))
    result = own.run_here("--validate-rig", "own", "-k", "water")
    assert result.ret == 4
    assert "own/test_own.py::test_water: @pytest.mark.rig_check" in result.stderr.str()
    assert not (own.path / "state" / "validation.json").exists()


def test_of_two_checks_with_one_name_the_worse_counts(own: Rig) -> None:
    own.write("own/test_z.py", "import pytest\npytestmark = pytest.mark.rig_check\ndef test_valve(): assert 0, 'leaks'\n")
    own.write("own/test_zz.py", "import pytest\npytestmark = pytest.mark.rig_check\ndef test_valve(): pass\n")
    assert validate(own, "own", "-k", "valve").ret == 1
    assert kept(own)["test_valve"]["status"] == "fail"


def before(bench: Rig, **checks: str) -> None:
    content = {name: {"check": name, "status": status, "at": "2026-01-01T00:00:00+00:00"} for name, status in checks.items()}
    bench.write("state/validation.json", json.dumps({"rig_id": "bench", "checks": content}))


def test_what_was_not_run_keeps_its_result(own: Rig) -> None:
    """Neither ``-x`` nor an interrupt turns yesterday's failure into a skip, and neither drops what did not come again."""
    stop = "import os, pytest, signal\n@pytest.mark.rig_check\ndef test_aaa(): {}\n"
    for stopped_by, expected in (("assert 0", "fail"), ("signal.raise_signal(signal.SIGINT)", "pass")):
        before(own, test_aaa="pass", test_water="fail", python="fail", **{"devices[old]": "fail"})
        own.write("own/test_aaa.py", stop.format(stopped_by))
        validate(own, "-x", "own/test_aaa.py", "own/test_own.py", "-k", "aaa or water", here=False)
        assert statuses(own) == {"test_aaa": expected, "test_water": "fail", "python": "fail", "devices[old]": "fail"}


def test_a_driver_that_takes_the_process_with_it_has_failed(own: Rig) -> None:
    before(own, **{"devices[laser]": "pass"})
    own.write("lab_drivers.py", "import os\nclass Good:\n    def check(self): os._exit(7)\n")
    validate(own, "-k", "laser", here=False)
    assert kept(own)["devices[laser]"]["status"] == "fail"
    assert "the session did not come back" in kept(own)["devices[laser]"]["message"]


def test_what_the_rig_no_longer_has_is_dropped_by_a_whole_run(own: Rig) -> None:
    before(own, test_water="pass", **{"devices[old]": "fail", "tcp_ports[5555]": "fail"})
    assert validate(own).ret == 0
    assert {"devices[old]", "tcp_ports[5555]"}.isdisjoint(kept(own))
    assert statuses(own)["test_water"] == "pass"


def test_a_dry_run_warns_of_what_this_pc_lacks_and_keeps_nothing(own: Rig) -> None:
    text = "requirements: {executables: [no_such_bonsai], free_gb: 1.0e+9}\ndevices: {bad: {driver: 'lab_drivers:Wrong'}}\n"
    rig_file(own, "centralized_log_directory: /share\n" + text)
    result = validate(own, "--dry-run")
    output = result.stdout.str()
    assert result.ret == 0, output
    assert "executables[no_such_bonsai]: warn: no_such_bonsai is not there (on this PC; a dry run does not need it)" in output
    assert "disk.free_space: warn:" in output
    assert "mirror.writable: skip: a dry run does not touch it" in output
    assert "devices[bad]: pass" in output
    assert validate(own, "--dry-run", "--inject", "bad.check=RuntimeError:out").ret == 1
    assert not (own.path / "state" / "validation.json").exists()
