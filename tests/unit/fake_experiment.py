"""A stand-in for pytest in the sidecar's tests: writes journal and log, starts a sidecar, then lives or dies as told.

``python fake_experiment.py FOLDER JSON``: the JSON holds fields of the ``session`` event under ``session`` and what to do under
``plan``: a list of ``[action, argument…]``.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if sys.platform == "win32":
    import msvcrt

import psutil

from pytest_openscope.log.writer import LogWriter
from pytest_openscope.records.folder import METADATA
from pytest_openscope.records.journal import JOURNAL, Journal
from pytest_openscope.sidecar.link import SidecarClient
from pytest_openscope.system.processes import create_time
from pytest_openscope.system.times import now_iso


class Fake:
    def __init__(self, folder: Path, spec: dict[str, Any]) -> None:
        self.folder, self.metadata = folder, folder / METADATA
        self.metadata.mkdir(parents=True, exist_ok=True)
        self.log = LogWriter(self.metadata / "launcher.log")
        self.messages: list[dict[str, Any]] = []
        self.children: list[Any] = []
        faulthandler.enable(open(self.metadata / "faulthandler.log", "a"))  # noqa: SIM115
        self.journal = Journal(self.metadata / JOURNAL)
        fields = {
            "session_uuid": folder.name,
            "subject_id": "mouse1",
            "user_id": "tester",
            "rig_id": "rig1",
            "started": now_iso(),
            "pid": os.getpid(),
            "create_time": create_time(os.getpid()),
            "dry_run": False,
            "session_folder": str(folder),
            "session_log": f"{METADATA}/launcher.log",
            "state_directory": str(folder.parent / "state"),
            "mirror_directory": None,
            "resource_interval_s": 0.2,
            "on_crash": "stop",
            "import_path": sys.path,
            "stop": {"graceful_s": 1.0, "terminate_s": 1.0, "kill_s": 1.0},
            **spec.get("session", {}),
        }
        self.journal.write("session", **fields)
        if not spec.get("sidecar", True):
            SidecarClient._start = lambda client: None
        self.client = SidecarClient(folder, self.on_message, secrets=["s3cr3t-value"], alert_urls=spec.get("alert_urls", ()))

    def on_message(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        if message["type"] == "say":
            self.log.record(message["level"], message["logger"], message["text"])

    def run(self, plan: list[list[Any]]) -> None:
        for action, *arguments in plan:
            getattr(self, f"do_{action}")(*arguments)

    # -- actions -----------------------------------------------------------------------------------------------------

    def do_ready(self) -> None:
        until_s = time.monotonic() + 60.0
        while sum(message["type"] == "ready" for message in list(self.messages)) <= self.client.restarted:
            assert not self.client.gave_up
            assert time.monotonic() < until_s
            time.sleep(0.01)

    def do_tell(self, **more: Any) -> None:
        facts = {"pid": self.client.pid, "gave_up": self.client.gave_up, "restarted": self.client.restarted, **more}
        print(json.dumps(facts), flush=True)

    def do_log(self, text: str, count: int = 1) -> None:
        for number in range(count):
            self.log.record("INFO", "lab", f"{text} {number}")

    def do_collected(self) -> None:
        self.journal.write("collected")

    def do_ask(self, text: str) -> None:
        self.journal.write("waiting", text=text)

    def do_answer(self) -> None:
        self.journal.write("waiting_over")

    def do_record(self, text: str, phase: str = "", step: str = "", logger: str = "lab", level: str = "INFO") -> None:
        self.log.record(level, logger, text, phase, step)

    def do_hear(self, text: str) -> None:
        """Wait until the sidecar has said so."""
        while not any(text in message.get("text", "") for message in list(self.messages)):
            time.sleep(0.01)

    def do_wait_for(self, path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.01)

    def do_step(self, phase: str, step: str) -> None:
        self.journal.write("step_started", phase=phase, step=step, nodeid=f"test_x.py::{step}")

    def do_step_done(self, phase: str, step: str, outcome: str = "passed") -> None:
        self.journal.write("step_finished", phase=phase, step=step, outcome=outcome, duration_s=0.1)

    def do_deadline(self, seconds: float, what: str = "step timed out") -> None:
        self.journal.write("deadline", kill_at=time.monotonic() + seconds, what=what)

    def do_no_deadline(self) -> None:
        self.journal.write("deadline", kill_at=None, what="")

    def do_failure(self, message: str) -> None:
        self.journal.write("kept", field="failures", values=[{"kind": "exception", "outcome": "failed", "message": message}])

    def do_safe_state(self, device: str, command: list[str], timeout_s: float = 5.0) -> None:
        self.journal.write("safe_state", device=device, command=command, cwd=str(self.folder), timeout_s=timeout_s)

    def do_acquire(self, code: str, name: str = "camera", announce: bool = True) -> None:
        """Start a program; not announced, the session dies before it could name the process in its journal."""
        raw = self.folder / "acquisition"
        raw.mkdir(exist_ok=True)
        environment = {**os.environ, "OPENSCOPE_SESSION_FOLDER": str(self.folder), "OPENSCOPE_ACQUISITION": name}
        files = {"stdout": f"acquisition/{name}.stdout.log", "stderr": f"acquisition/{name}.stderr.log"}
        self.journal.write("acquisition_starting", name=name, command=["camera"], **files)
        with open(raw / f"{name}.stdout.log", "wb") as out, open(raw / f"{name}.stderr.log", "wb") as err:
            child = subprocess.Popen(
                [sys.executable, "-u", "-c", code], stdout=out, stderr=err, env=environment, start_new_session=True
            )
        self.children.append(child)
        if not announce:
            return
        self.journal.write(
            "acquisition_started", name=name, pid=child.pid, create_time=create_time(child.pid), command=["camera"], **files
        )

    def do_starting(self) -> None:
        self.journal.write("acquisition_starting", name="camera", command=["camera"], stdout="none", stderr="none")

    def do_batch(self, lines: list[str], raw_from: int, stream: str = "stdout", name: str = "camera") -> None:
        self.journal.write("acquisition_batch", name=name, stream=stream, raw_from=raw_from, log_size=self.log.size)
        for line in lines:
            self.log.record("INFO", f"acquisition.{stream}", line)

    def do_acquired(self, name: str = "camera") -> None:
        code = self.children[-1].wait()
        self.journal.write("acquisition_finished", name=name, returncode=code)

    def do_fork_worker(self) -> None:
        worker = os.fork()
        if worker == 0:
            time.sleep(30)
            os._exit(0)
        print(json.dumps({"worker": worker}), flush=True)

    def do_spawn_holder(self) -> None:
        """Leave a process that holds every descriptor, as a C library's fork would."""
        assert self.client._process is not None
        assert self.client._process.stdout is not None
        fd = self.client._process.stdout.fileno()
        if sys.platform == "win32":
            os.set_handle_inheritable(msvcrt.get_osfhandle(fd), True)
        else:
            os.set_inheritable(fd, True)
        sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
        holder = subprocess.Popen(sleep, close_fds=False, start_new_session=True)
        print(json.dumps({"worker": holder.pid}), flush=True)

    def do_kill_sidecar(self) -> None:
        assert self.client.pid
        psutil.Process(self.client.pid).kill()

    def do_sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def do_die(self) -> None:
        os.kill(os.getpid(), 9)  # TerminateProcess on Windows, and 9 its exit code

    def do_exit(self, code: int) -> None:
        os._exit(code)

    def do_os_exit(self, code: int) -> None:
        self.journal.write("exiting", code=code, text="File step.py, line 1, in body")
        os._exit(code)

    def do_segfault(self) -> None:
        if sys.platform == "win32":
            # What ctypes calls is guarded there: it would be an OSError.
            faulthandler._raise_exception(0xC0000005)
        else:
            ctypes.string_at(0)

    def do_hold_gil(self, seconds: int) -> None:
        if sys.platform == "win32":
            ctypes.PyDLL("kernel32").Sleep(seconds * 1000)
        else:
            ctypes.PyDLL(None).sleep(seconds)

    def do_chatter(self) -> None:
        """Log for ever; tells on stdout how many records are certainly in the log."""
        number = 0
        while True:
            self.log.record("INFO", "lab", f"record {number}")
            number += 1
            if number % 20 == 0:
                os.write(1, f"{number}\n".encode())

    def do_ending(self, outcome: str = "passed") -> None:
        self.journal.write("ending", outcome=outcome)

    def do_end(self, outcome: str = "passed", wait_s: float = 60.0, until: str = "done") -> None:
        """End as a session does; ``until`` the mirror's first word, the session leaves before the sidecar is done."""
        (self.metadata / "end_state.json").write_text(json.dumps({"outcome": outcome, "mirror": {"status": "pending"}}))
        self.log.close()
        self.journal.write("ending", outcome=outcome)
        self.journal.write("ended", outcome=outcome, exit_code=0)
        until_s = time.monotonic() + wait_s
        while until == "mirror" and self.client.mirror is None and time.monotonic() < until_s:
            time.sleep(0.01)
        done = self.client.wait_done(0.0 if until == "mirror" else wait_s)
        self.journal.write("bye")
        self.client.goodbye()
        print(json.dumps({"done": done, "mirror": self.client.mirror, "messages": self.messages}), flush=True)


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    Fake(Path(sys.argv[1]), given).run(given["plan"])
