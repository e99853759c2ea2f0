"""The checks, each on a rig of its own; every one returns what it saw in a sentence, or raises why it did not see it."""

from __future__ import annotations

import importlib.metadata
import locale
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ...records import DEBUG_STATE
from ...system import ClockWatch, Job, boot_id, create_time, is_alive, remove_file, replace_file, send_break, write_atomic
from .bench import LINES, SESSION_S, Bench, CheckError, SkipError, kill, kill_all, processes_of, require, wait_for
from .github import REPO, TOKEN, TOKEN_ENV, Github

#: Where the lines of a program must be, once each.
_LINE = "acquisition.python.stdout"
_FREE_GB = 1.0
#: The monotonic clock of Windows ticks every 15.6 ms.
_COARSEST_S = 0.020
_CODE_PAGES = ("cp437", "cp1252", "utf-8")
#: Names that somebody gives to a folder sooner or later.
ODD_NAME = "Zoë's rig (2) & 50% – 実験 #1"
_LONG_CHARS = 270
#: What is in a folder when it is removed, a virus scanner too, has left by then.
_LETS_GO_S = 30.0


@dataclass
class Place:
    """Where the checks work: ``folder`` is theirs, ``mirror`` a share that was named; ``facts`` go into the report."""

    folder: Path
    mirror: Path | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def bench(self, name: str, **keys: object) -> Bench:
        """Make a rig."""
        return Bench(self.folder / name, **keys)


# -- the computer


def versions(place: Place) -> str:
    """Python, pytest and system, for whoever reads the table."""
    from ... import __version__

    names = ("pytest", "pytest-timeout", "psutil", "pydantic")
    place.facts.update(
        {
            "pytest-openscope": __version__,
            "Python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.architecture()[0]})",
            "system": platform.platform(),
            "processors": str(os.cpu_count()),
            "code pages": ", ".join(_code_pages()),
            "long paths": _long_paths(),
            "boot": boot_id() or "has no name here",
            **{name: importlib.metadata.version(name) for name in names},
        }
    )
    plugins = {entry.name for entry in importlib.metadata.entry_points(group="pytest11")}
    require("openscope" in plugins, "pytest does not find the plugin: install the package with pip, do not copy it")
    return f"pytest-openscope {__version__} on Python {platform.python_version()}, {platform.system()} {platform.release()}"


def _code_pages() -> list[str]:
    found = [f"locale {locale.getpreferredencoding(False)}", f"files {sys.getfilesystemencoding()}"]
    if sys.platform == "win32":
        import ctypes

        kernel32 = ctypes.WinDLL("kernel32")
        found += [f"console {kernel32.GetConsoleOutputCP()}", f"ANSI {kernel32.GetACP()}", f"OEM {kernel32.GetOEMCP()}"]
    return found


def _long_paths() -> str:
    if sys.platform != "win32":
        return "no limit of 260"
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return "enabled" if winreg.QueryValueEx(key, "LongPathsEnabled")[0] else "not enabled"
    except OSError:
        return "not enabled"


def clocks(place: Place) -> str:
    """The clocks are fine enough, never go back, and agree."""
    shown = []
    watch, until = ClockWatch(), time.monotonic() + 0.5
    for name in ("time", "monotonic", "perf_counter"):
        info = time.get_clock_info(name)
        place.facts[f"clock {name}"] = f"{info.implementation}, resolution {info.resolution:g} s"
        shown.append(f"{name} {info.resolution:.2g} s")
    step_s, last, now = 1.0, time.monotonic(), 0.0
    while now < until:
        now = time.monotonic()
        require(now >= last, "the monotonic clock went back")
        if now > last:
            step_s, last = min(step_s, now - last), now
    require(step_s <= _COARSEST_S, f"the monotonic clock moves in steps of {step_s:.3f} s")
    change = watch.look()
    require(change is None, f"{change.text if change else ''} within half a second")
    return f"resolution: {', '.join(shown)}; smallest step seen {step_s:.2g} s"


def disk(place: Place) -> str:
    """There is room for a session, and files are written at a speed."""
    free_gb = shutil.disk_usage(place.folder).free / 1e9
    require(free_gb >= _FREE_GB, f"only {free_gb:.2f} GB are free on the disk of the temporary folder")
    began = time.perf_counter()
    for number in range(100):
        write_atomic(place.folder / f"small{number}", b"x" * 1000)
    each_ms = (time.perf_counter() - began) * 10
    for number in range(100):
        remove_file(place.folder / f"small{number}")
    place.facts["small file"] = f"{each_ms:.1f} ms"
    return f"{free_gb:.0f} GB free; a small file takes {each_ms:.1f} ms (a virus scanner shows here)"


def replaced(place: Place) -> str:
    """A file is replaced although another process has it open for a moment, as scanners and indexers do."""
    target, ready = place.folder / "held.json", place.folder / "held.ready"
    target.write_bytes(b"old")
    code = f"import time; f = open({str(target)!r}, 'rb'); open({str(ready)!r}, 'w').close(); time.sleep(0.7)"
    with subprocess.Popen([sys.executable, "-c", code]) as holder:
        wait_for(ready.exists, "the process that holds the file did not come up")
        began = time.perf_counter()
        write_atomic(target, b"new")
        took_s = time.perf_counter() - began
        other = place.folder / "held.other"
        other.write_bytes(b"newer")
        replace_file(other, target)
        holder.wait()
    require(target.read_bytes() == b"newer", "the file has its old content")
    return f"replaced after {took_s:.2f} s while it was open elsewhere"


def jobs(place: Place) -> str:
    """A job object knows the whole tree of a program."""
    if sys.platform != "win32":
        raise SkipError("job objects are Windows' own; elsewhere process groups do their work")
    grandchild = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    code = f"input(); import subprocess, sys, time; {grandchild}; time.sleep(60)"
    job, process = Job(), subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        job.add(process.pid)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        wait_for(lambda: len(list(job.pids())) >= 2, "the job does not list a grandchild", 10.0)
        seen = list(job.pids())
    finally:
        job.close()
        kill(process.pid)
        process.wait()
    return f"a job listed {len(seen)} processes of a tree"


# -- sessions that go well


def real_session(place: Place) -> str:
    """A whole session: program, log, states, mirror, each line once."""
    bench = place.bench("real")
    bench.run(code=0)
    folder = bench.session()
    end = bench.ended(folder, "passed")
    lines = [entry.message for entry in bench.log(folder) if entry.logger == _LINE]
    require(lines == [f"line {number}" for number in range(LINES)], f"the log has {len(lines)} of {LINES} lines of the program")
    require(not end["helper_failures"], f"helpers failed: {end['helper_failures']}")
    bench.assert_mirrored(1)
    return f"passed in {end['duration_s']:.1f} s, {LINES} lines of its program in the log and once in the mirror"


def dry_session(place: Place) -> str:
    """The same without hardware."""
    bench = place.bench("dry")
    bench.run("--dry-run", code=0)
    end = bench.ended(bench.session(), "passed")
    simulated = any("is simulated" in entry.message for entry in bench.log(bench.session()))
    require(end["dry_run"] and simulated, "nothing was simulated")
    require(not list(bench.share.iterdir()), "a dry run wrote to the mirror")
    return "passed, the program simulated, nothing in the mirror"


def odd_paths(place: Place) -> str:
    """Sessions in folders with blanks, signs and other alphabets, printed in each code page."""
    bench = place.bench(f"odd/{ODD_NAME}")
    for page in _CODE_PAGES:
        ended = bench.run("--dry-run", "--param", "notes=µ – é 実験", env={"PYTHONIOENCODING": page, "PYTHONUTF8": "0"})
        require(ended.code == 0, f"with {page} a session ended with exit code {ended.code}: {ended.text[-300:]}")
        bad = [word for word in ("UnicodeEncodeError", "UnicodeDecodeError", "Traceback") if word in ended.text]
        require(not bad, f"with {page} it printed {bad}")
    require(len(bench.sessions) == len(_CODE_PAGES), f"there are {len(bench.sessions)} sessions")
    for folder in bench.sessions:
        bench.ended(folder, "passed")
    return f"{len(_CODE_PAGES)} sessions in a folder named {ODD_NAME}, printed as {', '.join(_CODE_PAGES)}"


def long_paths(place: Place) -> str:
    """A session whose folder's path is longer than 260 characters."""
    root = place.folder / "long"
    while len(str(root)) < _LONG_CHARS:
        root /= "a-folder-with-a-long-name"
    bench = place.bench("longrig", output_root_folder=str(root))
    ended = bench.run()
    if ended.code == 4 and "cannot be created" in ended.text and sys.platform == "win32":
        raise SkipError(f"Windows refuses paths over 260 characters (long paths: {_long_paths()}), and a session says so")
    require(ended.code == 0, f"it ended with exit code {ended.code}: {ended.text[-300:]}")
    found = [path for path in root.iterdir() if path.is_dir()]
    require(len(found) == 1, f"{len(found)} session folders")
    bench.ended(found[0], "passed")
    return f"passed in a folder whose path has {len(str(found[0]))} characters"


# -- sessions that end badly


def failed_step(place: Place) -> str:
    """A step fails, post-acquisition runs all the same."""
    bench = place.bench("failed")
    bench.write(
        "def test_acquire(): assert 1 == 2, 'the shutter is stuck'\n\n"
        "@pytest.mark.post_acquisition\ndef test_save(): open('saved', 'w').close()\n"
    )
    bench.run(code=1)
    bench.ended(bench.session(), "failed")
    require((bench.folder / "saved").exists(), "post-acquisition did not run")
    told = bench.state(bench.session(), DEBUG_STATE)["failure"]["message"]
    require("the shutter is stuck" in told, f"debug_state.json says {told!r}")
    return "exit code 1, the failure described, post-acquisition ran"


def timed_out(place: Place) -> str:
    """A step that takes too long is ended by its own process."""
    bench = place.bench("timeout")
    bench.write(
        "@pytest.fixture\ndef laser():\n    yield\n    open('off', 'w').close()\n\n"
        "@pytest.mark.timeout(1)\ndef test_acquire(laser): time.sleep(300)\n"
    )
    bench.run(code=1)
    end = bench.ended(bench.session(), "timeout")
    require((bench.folder / "off").exists(), "the fixture's end did not run")
    return f"ended after {end['steps'][0]['duration_s']:.1f} s of 300, its fixture's end ran"


def hung_in_c(place: Place) -> str:
    """A call into a driver that never comes back and holds the interpreter: only the sidecar can end that process."""
    bench = place.bench("hung", grace_s=1)
    sleep = 'ctypes.PyDLL("kernel32").Sleep(300_000)' if sys.platform == "win32" else "ctypes.PyDLL(None).sleep(300)"
    bench.write(
        "@pytest.mark.timeout(1)\n"
        "def test_acquire(acquisition):\n    acquisition.start(command=ENDLESS)\n"
        f"    wait_for('test_experiment.py')\n    {sleep}\n"
    )
    ended = bench.run()
    require(ended.code not in (0, 2, 4), f"it ended with exit code {ended.code}")
    bench.ended(bench.session(), "timeout")
    bench.assert_gone("the program of the acquisition runs on")
    return f"ended by the sidecar (exit code {ended.code}), the program of the acquisition too"


def killed_experiment(place: Place) -> str:
    """The experiment process is killed, as by the task manager: the sidecar finishes the session."""
    bench = place.bench("killed")
    running, folder = bench.start_waiting()
    kill_all(bench.pid(folder))
    running.end()
    end = bench.ended(folder, "crashed")
    bench.assert_gone("the program of the acquisition, or the sidecar, runs on")
    bench.assert_mirrored(1)
    return f"crashed, as it should; ended by the sidecar after {end['duration_s']:.1f} s, the program stopped, the mirror whole"


def killed_sidecar(place: Place) -> str:
    """The sidecar is killed: the session goes on, and another one is started."""
    bench = place.bench("sidecar")
    running, folder = bench.start_waiting()
    kill_all(bench.sidecars(folder)[0])
    wait_for(lambda: len(bench.sidecars(folder)) > 1, "no second sidecar was started")
    bench.go()
    ended = running.end()
    require(ended.code == 0, f"the session ended with exit code {ended.code}")
    bench.ended(folder, "passed")
    bench.assert_mirrored(1)
    return "the session passed, a second sidecar did the rest"


def killed_both(place: Place) -> str:
    """Experiment and sidecar are gone at once, as after a power cut: recovery finishes the session."""
    bench = place.bench("both")
    running, folder = bench.start_waiting()
    sidecar, experiment = bench.sidecars(folder)[0], bench.pid(folder)
    # The sidecar first: it would finish the session, the session would only start another one, and has no time to.
    kill_all(sidecar, experiment)
    running.end()
    for one in bench.sidecars(folder)[1:]:
        kill_all(one)
    done = bench.command("recover", "--rig-config", "rig.yaml")
    require(done.code == 0, f"recover ended with exit code {done.code}: {done.text[-300:]}")
    bench.ended(folder, "crashed")
    bench.assert_gone("something of the session runs on")
    bench.assert_mirrored(1)
    return "finished by recover: crashed, the program stopped, the mirror whole"


def interrupted(place: Place) -> str:
    """Ctrl-C within the process: the session ends in order."""
    bench = place.bench("interrupt")
    bench.write(
        "def test_acquire():\n    signal.raise_signal(signal.SIGINT)\n    time.sleep(300)\n\n"
        "@pytest.mark.post_acquisition\ndef test_save(): open('saved', 'w').close()\n"
    )
    bench.run(code=2)
    bench.ended(bench.session(), "interrupted")
    require((bench.folder / "saved").exists(), "post-acquisition did not run")
    return "exit code 2, post-acquisition ran"


def interrupted_from_outside(place: Place) -> str:
    """CTRL_BREAK (Windows) or SIGINT from another process, while a program acquires."""
    bench = place.bench("break")
    if sys.platform == "win32":
        running, folder = bench.start_waiting(creationflags=subprocess.CREATE_NEW_PROCESS_GROUP)
        name = "CTRL_BREAK"
    else:
        running, folder = bench.start_waiting(start_new_session=True)
        name = "SIGINT"
    try:
        if sys.platform == "win32":
            send_break(running.process.pid)
        else:
            os.kill(bench.pid(folder), signal.SIGINT)
    except OSError as error:
        bench.go()
        running.end()
        raise SkipError(f"{name} cannot be sent from here ({error}): call this from a console window; Wine has none") from None
    ended = running.end()
    require(ended.code == 2, f"it ended with exit code {ended.code} after {name}")
    bench.ended(folder, "interrupted")
    bench.assert_gone("something of the session runs on")
    return f"exit code 2 after {name}, the program stopped"


def outlived_console(place: Place) -> str:
    """All that belongs to the console is ended at once; the sidecar, which does not, finishes the session."""
    bench = place.bench("console")
    if sys.platform == "win32":
        # Without a window; what is ended is every process that is attached to it.
        running, folder = bench.start_waiting(creationflags=subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP)
        sidecar = bench.sidecars(folder)[0]
        members = _console_of(bench.pid(folder))
        require(sidecar not in members, "the sidecar is attached to the experiment's console")
        # Not the tree of the one that was started: as its child, the sidecar would be among them.
        for pid in {running.process.pid, bench.pid(folder), *members} - {os.getpid()}:
            kill_all(pid)
    else:
        running, folder = bench.start_waiting(start_new_session=True)
        sidecar = bench.sidecars(folder)[0]
        require(os.getsid(sidecar) != os.getsid(running.process.pid), "the sidecar is in the experiment's session")
        os.killpg(running.process.pid, signal.SIGKILL)
    running.end()
    bench.ended(folder, "crashed")
    bench.assert_gone("something of the session runs on")
    return "the sidecar had left the console, and finished the session when the rest of it was ended"


def _console_of(pid: int) -> set[int]:
    """Return the processes that share the console of ``pid``, asked from a process of its own."""
    code = (
        "import ctypes, sys; k = ctypes.WinDLL('kernel32'); k.FreeConsole(); ok = k.AttachConsole(int(sys.argv[1]));"
        "room = (ctypes.c_ulong * 256)(); n = k.GetConsoleProcessList(room, 256) if ok else 0; print(*room[:n])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(pid)], stdout=subprocess.PIPE, timeout=30)
    return {int(word) for word in done.stdout.split()}


def two_starts(place: Place) -> str:
    """A second start on a rig that is in use is refused, and disturbs nothing."""
    bench = place.bench("two")
    running, folder = bench.start_waiting()
    second = bench.run()
    require(second.code == 4, f"the second start ended with exit code {second.code} instead of 4")
    require(len(bench.sessions) == 1, "the second start made a session folder")
    bench.go()
    require(running.end().code == 0, "the first session did not pass")
    bench.ended(folder, "passed")
    return "the second one ended with exit code 4, the first one passed"


def reported(place: Place) -> str:
    """Two sessions with one defect make one issue, on a GitHub of our own."""
    github = Github()
    try:
        block = {"enabled": True, "repo": REPO, "token_env": TOKEN_ENV, "api_base_url": github.url}
        bench = place.bench("report", github_issue=block, report_wait_s=60)
        bench.write("def test_acquire(): raise RuntimeError('the shutter is stuck')\n")
        for number in (0, 1):
            bench.run(code=1, env={TOKEN_ENV: TOKEN})
            wait_for(partial(_issue_is_told, bench, number), "debug_state.json does not tell of the issue", SESSION_S)
        require(len(github.issues) == 1, f"{len(github.issues)} issues were opened for one defect")
        body = github.issues[0]["body"]
        require("the shutter is stuck" in body, "the issue does not name the failure")
        require(TOKEN not in body, "the token is in the issue")
        # What still looks for a second rig's issue has nothing to look for here.
        for process in processes_of(bench.folder):
            kill(process.pid)
    finally:
        github.close()
    return "two failures, one issue"


def _issue_is_told(bench: Bench, number: int) -> bool:
    told = bench.state(bench.session(number), DEBUG_STATE).get("github") or {}
    return any(report.get("issue_url") for report in told.get("reports") or ())


def mirrored(place: Place) -> str:
    """The share that was named: two sessions at once, one of them killed, all lines once."""
    if place.mirror is None:
        raise SkipError("no share was named -> add --mirror, e.g. --mirror \\\\server\\share\\folder")
    with _folder_on(place.mirror) as share:
        one = place.bench("share1", centralized_log_directory=str(share), rig_id="selftest-one", mirror_wait_s=20)
        other = place.bench("share2", centralized_log_directory=str(share), rig_id="selftest-two", mirror_wait_s=20)
        running, folder = other.start_waiting()
        began = time.perf_counter()
        one.run(code=0)
        took_s = time.perf_counter() - began
        kill_all(other.pid(folder))
        running.end()
        other.ended(folder, "crashed")
        one.assert_mirrored(1)
        other.assert_mirrored(1)
        for bench in (one, other):
            bench.assert_gone("a mirror worker runs on")
    return f"two sessions at once, one of them killed: copies identical, each line once in the day's log ({took_s:.1f} s)"


@contextmanager
def _folder_on(mirror: Path) -> Iterator[Path]:
    share = mirror / f"openscope-selftest-{uuid.uuid4().hex[:12]}"
    try:
        share.mkdir(parents=True)
    except OSError as error:
        raise CheckError(f"no folder can be made in {mirror}: {error.strerror or error}") from None
    try:
        yield share
    finally:
        remove(share)


def remove(folder: Path) -> None:
    """Remove a folder; on Windows whoever was in it may take a moment to let go."""
    until = time.monotonic() + _LETS_GO_S
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > until:
            return
        time.sleep(0.05)


def known_again(place: Place) -> str:
    """A process is known by pid and start time, and no other one is taken for it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = create_time(process.pid)
        require(is_alive(process.pid, started), "a living process is taken for dead")
        require(started is not None and not is_alive(process.pid, started + 60), "another process is taken for it")
        process.communicate(b"\n")
    require(not is_alive(process.pid, started), "a dead process is taken for alive")
    return "a living process is known, another one and a dead one are not taken for it"


#: In the order of the table.
CHECKS: dict[str, Callable[[Place], str]] = {
    "versions": versions,
    "clocks": clocks,
    "disk": disk,
    "process-known": known_again,
    "file-replaced": replaced,
    "job-object": jobs,
    "session-real": real_session,
    "session-dry": dry_session,
    "odd-paths": odd_paths,
    "long-paths": long_paths,
    "step-fails": failed_step,
    "step-timeout": timed_out,
    "hung-c-call": hung_in_c,
    "kill-experiment": killed_experiment,
    "kill-sidecar": killed_sidecar,
    "kill-both": killed_both,
    "interrupt": interrupted,
    "interrupt-outside": interrupted_from_outside,
    "console-gone": outlived_console,
    "two-starts": two_starts,
    "report": reported,
    "mirror-share": mirrored,
}
