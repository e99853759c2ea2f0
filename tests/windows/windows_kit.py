"""A rig on Windows whose sessions run in consoles of their own, and what they leave behind.

The scenes run on a real Windows and under Wine with Windows' CPython. Those that take long carry the marker ``stress``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from windows_limits import wine_version

from pytest_openscope.log.lines import LogEntry, read_log
from pytest_openscope.records.folder import METADATA

FLAGS = ("-p", "pytest_openscope.plugin", "-p", "pytest_timeout", "-p", "no:cacheprovider")
IDS = ("--subject-id", "mouse7", "--user-id", "ada", "--no-input")
CONSOLE = Path(__file__).with_name("windows_console.py")
HEAD = "import ctypes, logging, os, signal, subprocess, sys, threading, time\nfrom pathlib import Path\nimport pytest\n\n"
#: For a computer that does much else.
PATIENCE_S = 120.0
NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)


#: Seen with Wine 8: GenerateConsoleCtrlEvent refuses CTRL_BREAK_EVENT with error 6 (invalid handle), for all processes of a
#: console as for one group made with CREATE_NEW_PROCESS_GROUP, in one's own console as in another's, while it takes
#: CTRL_C_EVENT. And its C runtime makes no SIGBREAK of the event: a process with a handler ends at once with code 0.
WINE_REFUSES_BREAK = "6"


def deliver_event(pid: int, event: int) -> None:
    """Start the thread in a process by which a console tells it of an event."""
    if sys.platform == "win32":
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        handle, pointer = ctypes.c_void_p, ctypes.c_size_t
        kernel32.GetModuleHandleW.restype = kernel32.GetProcAddress.restype = handle
        kernel32.GetProcAddress.argtypes = [handle, ctypes.c_char_p]
        kernel32.OpenProcess.restype = kernel32.CreateRemoteThread.restype = handle
        kernel32.CreateRemoteThread.argtypes = [handle, handle, pointer, handle, pointer, ctypes.c_ulong, handle]
        kernel32.CloseHandle.argtypes = [handle]
        # At the same address in every process.
        routine = kernel32.GetProcAddress(kernel32.GetModuleHandleW("kernel32"), b"CtrlRoutine")
        process = kernel32.OpenProcess(0x1F0FFF, False, pid)
        thread = kernel32.CreateRemoteThread(process, None, 0, routine, event, 0, None)
        assert thread, ctypes.WinError(ctypes.get_last_error())
        kernel32.CloseHandle(thread)
        kernel32.CloseHandle(process)


@dataclass
class Finished:
    """An experiment's exit code and what it printed, as bytes and as text."""

    code: int
    printed: bytes

    @property
    def text(self) -> str:
        return self.printed.decode("utf-8", "replace")

    def show(self) -> Finished:
        """Print what it printed, whatever the tests' own stdout can take."""
        print(self.printed.decode("utf-8", "backslashreplace").encode("ascii", "backslashreplace").decode())
        return self


class Running:
    """An experiment that runs in a console of its own."""

    def __init__(self, lab: Lab, command: list[str], cwd: Path | None = None, **environment: str) -> None:
        self.lab, self._output = lab, lab.path / f"output{len(list(lab.path.glob('output*')))}.txt"
        self._operator = subprocess.Popen(
            [sys.executable, str(CONSOLE), str(self._output), *command],
            cwd=cwd or lab.path,
            env=lab.environment(**environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            creationflags=NO_WINDOW,
        )
        self.process = psutil.Process(int(self._answer()))

    def _answer(self) -> str:
        assert self._operator.stdout is not None
        return self._operator.stdout.readline().decode().strip()

    def type(self, key: str) -> None:
        """Type a key in its console."""
        assert self._operator.stdin is not None
        self._operator.stdin.write(key.encode() + b"\n")
        self._operator.stdin.flush()
        answer = self._answer()
        if key == "ctrl-break" and wine_version():
            assert answer == WINE_REFUSES_BREAK, "Wine has learnt CTRL_BREAK: let the scenes use it"
            self.deliver(1)
        else:
            assert answer == "sent"

    def deliver(self, event: int) -> None:
        """Let the console tell the process of an event as it does itself: by a thread in ``CtrlRoutine``.

        For what no program may generate: 2 the console is closed, 5 log-off, 6 shutdown (and, under Wine, 1 CTRL_BREAK).
        """
        deliver_event(self.process.pid, event)

    def kill(self) -> None:
        """End the experiment process as the Task Manager does (TerminateProcess)."""
        self.process.kill()

    def finish(self) -> Finished:
        """Wait for its end."""
        output, _ = self._operator.communicate(timeout=PATIENCE_S)
        code = int(output.split()[-1])
        # As the system knows it, unsigned, or as Python reports it.
        return Finished(code - 2**32 if code >= 2**31 else code, self._output.read_bytes()).show()

    def end(self) -> None:
        """Leave nothing behind."""
        for process in (self.process, self._operator):
            try:
                process.kill()
            except (psutil.Error, OSError):
                continue
        for stream in (self._operator.stdin, self._operator.stdout):
            if stream is not None:
                stream.close()
        self._operator.wait()


class Lab:
    """A folder with a rig, its steps and its sessions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._running: list[Running] = []
        self.rig()

    def write(self, name: str, text: str, encoding: str = "utf-8") -> Path:
        """Write a text file as it stands."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding=encoding)
        return path

    def rig(self, **keys: Any) -> None:
        """Write ``rig.yaml``."""
        lines = {"rig_id": "bench", "output_root_folder": "sessions", "state_directory": "state", **keys}
        self.write("rig.yaml", "".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items()))

    def steps(self, body: str) -> None:
        """Write ``test_experiment.py``."""
        self.write("test_experiment.py", HEAD + body)

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of an experiment: other pytest plugins stay out."""
        environ = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTEST_CURRENT_TEST")}
        return {**environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "LOCALAPPDATA": str(self.path / "local"), **changes}

    def begin(
        self, *arguments: object, cwd: Path | None = None, rig: str = "rig.yaml", ids: bool = True, **environment: str
    ) -> Running:
        """Begin an experiment in a console of its own."""
        who = IDS if ids else ("--no-input",)
        command = [sys.executable, "-m", "pytest", *FLAGS, "--rig-config", rig, *who, *map(str, arguments)]
        self._running.append(Running(self, command, cwd, **environment))
        return self._running[-1]

    def run(self, *arguments: object, **options: Any) -> Finished:
        """Run an experiment to its end."""
        return self.begin(*arguments, **options).finish()

    def tool(self, *arguments: object, **environment: str) -> Finished:
        """Run a command of ``openscope``."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest_openscope", *map(str, arguments)],
            cwd=self.path,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            creationflags=NO_WINDOW,
        )
        return Finished(done.returncode, done.stdout).show()

    @property
    def folders(self) -> list[Path]:
        """The session folders, oldest first."""
        roots = (self.path / "sessions", self.path / "sessions" / "dry_runs")
        return sorted(path for root in roots if root.is_dir() for path in root.iterdir() if (path / METADATA).is_dir())

    @property
    def folder(self) -> Path:
        """The only session's folder."""
        (only,) = self.folders
        return only

    def metadata(self, name: str, folder: Path | None = None) -> Any:
        """Return a JSON file of the only session, or of the one in ``folder``."""
        return json.loads(((folder or self.folder) / METADATA / name).read_text(encoding="utf-8"))

    @property
    def end_state(self) -> Any:
        return self.metadata("end_state.json")

    @property
    def debug_state(self) -> Any:
        return self.metadata("debug_state.json")

    @property
    def log(self) -> list[LogEntry]:
        return list(read_log(self.folder / METADATA / "launcher.log"))

    @property
    def messages(self) -> list[str]:
        return [entry.message for entry in self.log]

    def outcomes(self) -> dict[str, str]:
        """Step name to outcome, or why it was skipped."""
        return {step["name"]: step["outcome"] or f"skipped: {step['skipped']}" for step in self.end_state["steps"]}

    def wait_for(self, what: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
        """Wait until ``what`` gives something."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = what()
            except (OSError, ValueError, KeyError, psutil.Error):
                found = None
            if found:
                return found
            assert time.monotonic() < deadline, "it did not come in time"
            time.sleep(0.05)

    def kill(self, *processes: psutil.Process) -> None:
        """End processes by TerminateProcess, all before any of them is waited for."""
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert not psutil.wait_procs(processes, timeout=PATIENCE_S)[1]

    def wait_ended(self, outcome: str) -> None:
        """Wait until the sidecar has written the end of the only session, and has gone."""
        self.wait_for(lambda: self.end_state["outcome"] == outcome)
        self.wait_for(lambda: not self.processes())

    def processes(self) -> list[psutil.Process]:
        """Living processes that name this rig's folder, or a session of it, but for the operators."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except (psutil.Error, OSError):
                continue
            if str(self.path) in line and CONSOLE.name not in line and process.pid != os.getpid():
                found.append(process)
        return found

    def sidecar(self) -> psutil.Process:
        """The only session's sidecar."""
        (one,) = self.wait_for(lambda: [each for each in self.processes() if "sidecar" in " ".join(each.cmdline())])
        return one

    def close(self) -> None:
        """Leave nothing behind, whatever the test has come to."""
        for running in self._running:
            running.end()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("OPENSCOPE_SESSION_FOLDER", "").startswith(str(self.path)):
                    process.kill()
