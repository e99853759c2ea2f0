"""Starts Python programs of tests in forks of a process that has imported already what they need.

A session spends most of its processor time on imports, and the tests run hundreds. Each is a process of its own all the same,
with its own files, signals, exit code and death. What a fork does not show is the start of the interpreter itself: the command
line and environment that the system tells of the process, and modules that nothing has imported yet. Tests of these say
``fresh=True``.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import platform
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

#: Plugins are left out: pytest rewrites the assertions of one only while it is imported.
PLUGINS = ("pytest_openscope.plugin", "pytest_openscope.fixtures")
ROOMS = ("system", "log", "records", "config", "checks", "acquisition", "devices", "mirror", "sidecar", "views", "session")
#: What of the environment system and interpreter read when a program starts; but for what a fork can take over.
READ_AT_START = ("LD_", "LC_", "LANG", "TZ", "PYTHON")
TAKEN_OVER = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
ENVIRONMENT = dict(os.environ)
LIBRARIES = ("pytest", "_pytest.pytester", "pdb", "rapidfuzz.fuzz", "rapidfuzz.process", "unittest", "unittest.mock", "yaml")


def import_all() -> None:
    """Import what a session may import, plugins apart."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for room in ROOMS:
        package = importlib.import_module(f"pytest_openscope.{room}")
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if not found.ispkg and not found.name.rpartition(".")[2].startswith("__"):
                importlib.import_module(found.name)
    # What a session does once: it starts `uname`, and builds the validators of the configuration.
    platform.platform()
    models = sys.modules["pytest_openscope.config.models"]
    model: Any
    for model in vars(models).values():
        if isinstance(model, type) and issubclass(model, models.Section):
            model.model_rebuild()


class Process:
    """A program in a fork: what :class:`subprocess.Popen` is for one that was executed."""

    def __init__(self, args: list[str], answers: socket.socket) -> None:
        self.args = args
        self.returncode: int | None = None
        self._answers = answers
        self._lock = threading.Lock()
        self.pid = self._receive(None)

    def _receive(self, timeout_s: float | None) -> int:
        self._answers.settimeout(timeout_s)
        told = self._answers.recv(64)
        if not told:
            raise RuntimeError("the process that starts programs of tests has died")
        return int(told)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        # Another thread may wait for the end already.
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        try:
            if self.returncode is None:
                self.returncode = self._receive(None if deadline is None else max(0.0, deadline - time.monotonic()))
                self._answers.close()
            return self.returncode
        except (TimeoutError, BlockingIOError):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
        finally:
            self._lock.release()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


class _Server:
    """The process that is forked; one for each process that runs tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, str(Path(__file__).resolve()), str(theirs.fileno())]
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            environment["PYTHONPATH"] = str(Path(__file__).parents[1])
            self._process = subprocess.Popen(
                command,
                # Not in the folder of a test, which looks for what is left of its sessions there.
                cwd=os.sep,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self.close)

    def start(self, command: list[str], files: list[int], about: dict[str, Any]) -> Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {"command": command, **about}
        with theirs, self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [theirs.fileno(), *files])
        return Process(command, ours)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


_servers: list[_Server] = []
_starting = threading.Lock()


def start(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    terminal: bool = False,
    fresh: bool = False,
    **options: Any,
) -> Any:
    """Start ``python -m module …`` or ``python script.py …``, and return its process.

    Args:
        command: begins with the path of this Python.
        stdin: a file or descriptor, as for :class:`subprocess.Popen`; so are ``stdout`` and ``stderr``, pipes apart.
        terminal: stdin is the terminal from which Ctrl-C comes.
        fresh: start a new interpreter, as everywhere where processes cannot be forked, and where ``env`` says how one starts.
        options: others of :class:`subprocess.Popen`, for a new interpreter.
    """
    line = [str(part) for part in command]
    if fresh or options or sys.platform != "linux" or _changes_the_start(os.environ if env is None else env):
        if terminal:
            options.update(start_new_session=True, preexec_fn=_take_terminal)
        return subprocess.Popen(line, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, **options)
    with _starting:
        if not _servers:
            _servers.append(_Server())
    with open(os.devnull, "r+b") as nothing:
        files: list[int] = []
        for given, own in ((stdin, 0), (stdout, 1), (stderr, 2)):
            if given is None:
                files.append(own)
            elif given == subprocess.DEVNULL:
                files.append(nothing.fileno())
            elif given == subprocess.STDOUT:
                files.append(files[1])
            else:
                assert given != subprocess.PIPE, "let it write to a file"
                files.append(given if isinstance(given, int) else given.fileno())
        about = {"cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env), "terminal": terminal}
        return _servers[0].start(line, files, about)


def _changes_the_start(env: Mapping[str, str]) -> bool:
    changed = {name for name, _ in env.items() ^ ENVIRONMENT.items()}
    return any(name.startswith(READ_AT_START) and name not in TAKEN_OVER for name in changed)


def run(command: Sequence[str], *, timeout: float = 60.0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as :func:`start` does, and return its exit code and what it printed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(command, stdout=out, stderr=err, **options)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        for stream in (out, err):
            stream.seek(0)
        told, errors = (stream.read().decode("utf-8", "replace").replace("\r\n", "\n") for stream in (out, err))
    return subprocess.CompletedProcess(list(command), code, told, errors)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _serve(server: socket.socket) -> None:
    """Fork for every request, until nobody is left who may ask."""
    while True:
        request, files, _, _ = socket.recv_fds(server, 1 << 20, 4)
        if not request:
            os._exit(0)
        if os.fork() == 0:
            server.close()
            _keep(json.loads(request), files)
            return
        for file in files:
            os.close(file)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _keep(request: dict[str, Any], files: list[int]) -> None:
    """Fork the program, and tell its process ID and its exit code; returns in the program's process only."""
    answers, *streams = files
    pid = os.fork()
    if pid:
        for file in streams:
            os.close(file)
        os.write(answers, str(pid).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):
            os.write(answers, str(code).encode())
        os._exit(0)
    for number, file in enumerate(streams):
        os.dup2(file, number)
    if request["terminal"]:
        os.setsid()
        _take_terminal()
    for written in (sys.stdout, sys.stderr):
        written.reconfigure(line_buffering=written is sys.stderr or written.isatty())  # type: ignore[union-attr]
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    own = [request["cwd"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.orig_argv[:] = command = request["command"]
    sys.path[:2] = own  # this file's folder, and the project's
    if command[1] == "-m":
        sys.argv[:] = command[2:]
    else:
        sys.argv[:] = command[1:]
        sys.path[0] = str(Path(command[1]).resolve().parent)


def _run() -> None:
    """Run the program that the request names, as its interpreter would have."""
    command = sys.orig_argv
    if command[1] == "-m":
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(command[1], run_name="__main__")


if __name__ == "__main__":
    _socket = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    # Collections of a fork would touch, and so copy, every page of what was imported.
    gc.freeze()
    _serve(_socket)
    _run()
