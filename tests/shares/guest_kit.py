"""A small Linux computer in QEMU, whose kernel has the CIFS and NFS clients that this one's may lack."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from make_guest import guest_folder
from samba_kit import SHARE, SambaServer, Server
from scenes import Session
from share_kit import own_folder
from undo import Undo

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Kills all programs that work in a folder, or name it.
_KILL_ALL = """\
for each in /proc/[0-9]*; do
  [ "$each" = "/proc/$$" ] && continue
  case "$(readlink "$each/cwd") $(tr '\\0' ' ' < "$each/cmdline")" in *"$1"*) kill -KILL "${each#/proc/}";; esac
done 2> /dev/null
true
"""
#: The host, as the guest sees it.
HOST = "10.0.2.2"
ADDRESS = "10.0.2.15"


class Guest:
    """A running guest. Its programs are this computer's, read-only; what it writes is in its memory."""

    def __init__(self, undo: Undo) -> None:
        qemu = shutil.which("qemu-system-x86_64")
        folder = guest_folder()
        if qemu is None or not (folder / "initramfs").exists():
            pytest.skip("there is no guest for QEMU (as root on Debian: python tests/shares/make_guest.py)")
        self.home = Path(tempfile.mkdtemp(prefix="openscope_guest_"))
        undo.later("folder", self.home)
        path = self.home / "agent.sock"
        words = f"console=ttyS0 quiet panic=-1 edd=off python={sys.executable} agent={HERE / 'guest_agent.py'}"
        command = [
            *(qemu, "-m", "1024", "-smp", "1", "-display", "none", "-no-reboot", "-nodefaults", "-monitor", "none"),
            *_processor(),
            *("-serial", f"file:{self.home / 'console.txt'}"),
            *("-kernel", str(folder / "kernel"), "-initrd", str(folder / "initramfs"), "-append", words),
            *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
            *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
            *("-chardev", f"socket,id=agent,path={path},server=on,wait=off", "-device", "virtio-serial-pci"),
            *("-device", "virtserialport,chardev=agent,name=agent"),
        ]
        with open(self.home / "qemu.txt", "wb") as stream:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, cwd="/"
            )
        undo.later("group", self._process.pid)
        deadline = time.monotonic() + 300
        self._socket = socket.socket(socket.AF_UNIX)
        while self._socket.connect_ex(str(path)):
            assert self._process.poll() is None, (self.home / "qemu.txt").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "QEMU does not start"
            time.sleep(0.05)
        self._buffered = b""
        self._mounted: list[Path] = []
        assert self._line(300) == {"ready": True}

    def _line(self, timeout_s: float) -> Any:
        self._socket.settimeout(timeout_s)
        while b"\n" not in self._buffered:
            try:
                data = self._socket.recv(1 << 20)
            except TimeoutError:
                raise AssertionError(f"the guest does not answer: {self.console()}") from None
            assert data, f"the guest is gone: {self.console()}"
            self._buffered += data
        line, _, self._buffered = self._buffered.partition(b"\n")
        return json.loads(line)

    def console(self) -> str:
        """Return the end of what the guest's kernel said."""
        return (self.home / "console.txt").read_text(encoding="utf-8", errors="replace")[-3000:]

    def _ask(self, patience_s: float, /, **what: Any) -> Any:
        self._socket.settimeout(patience_s)
        self._socket.sendall(json.dumps(what).encode() + b"\n")
        reply = self._line(patience_s + 60)
        assert "error" not in reply, reply["error"]
        return reply

    def run(self, *command: object, cwd: object = "/", data: bytes = b"", timeout_s: float = 60, check: bool = True) -> bytes:
        """Run a command to its end; return what it printed."""
        asked = {"command": [*map(str, command)], "cwd": str(cwd), "input": base64.b64encode(data).decode()}
        reply = self._ask(timeout_s, what="run", timeout_s=timeout_s, **asked)
        output = base64.b64decode(reply["output"])
        assert not check or reply["code"] == 0, (
            f"{command}: {reply['code']}\n{output.decode(errors='replace')}\n{self.console()}"
        )
        return output

    def write(self, path: Path, data: bytes) -> None:
        """Write a file of the guest."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1"', "sh", path, data=data)

    def start(self, *command: object, cwd: Path, output: Path, **environment: str) -> int:
        """Start a command; return its process id."""
        asked = {"command": [*map(str, command)], "cwd": str(cwd), "output": str(output), "environment": environment}
        return int(self._ask(60, what="start", **asked)["pid"])

    def wait(self, pid: int, timeout_s: float) -> int:
        """Wait for what was started; return its exit code."""
        deadline = time.monotonic() + timeout_s
        while (code := self._ask(60, what="poll", pid=pid)["code"]) is None:
            assert time.monotonic() < deadline, "the guest's program does not end"
            time.sleep(0.2)
        return int(code)

    def fetch(self, folder: Path, to: Path, clear: bool = True) -> None:
        """Copy a folder of the guest to ``to``."""
        data = base64.b64decode(self._ask(60, what="fetch", folder=str(folder))["tar"])
        if clear:
            shutil.rmtree(to, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(to, filter="tar")

    def processes(self, *words: object) -> list[tuple[str, str]]:
        """State and command line of the guest's processes that name one of the words."""
        return [(state, line) for state, line in self._ask(60, what="processes", words=[*map(str, words)])["found"]]

    def mount(self, kind: str, source: str, options: str) -> Path:
        """Mount a share; return where."""
        path = Path("/srv", f"{kind}_{uuid.uuid4().hex[:8]}")
        self.run("mkdir", "-p", path)
        self.run("mount", "-i", "-t", kind, "-o", options, source, path, timeout_s=120)
        self._mounted.append(path)
        return path

    def mount_cifs(self, server: SambaServer, *options: str) -> Path:
        """Mount a Samba server of the host's as a client of its own; return where its folder for the logs is."""
        given = ("username=guest", "password=guest", f"ip={HOST}", f"port={server.port}", "nosharesock", *options)
        return self.mount("cifs", f"//{HOST}/{SHARE}", ",".join(given)) / "central"

    def mount_nfs(self, server: Server, version: str = "4.2") -> Path:
        """Mount an NFS server of the host's; clients of different versions are different clients to it."""
        options = f"vers={version},proto=tcp,port={server.port},addr={HOST},clientaddr={ADDRESS},sec=sys"
        return self.mount("nfs4", f"{HOST}:/{SHARE}", options) / "central"

    def unmount(self) -> None:
        """Take away all mounts of shares; no program had a file or a folder of theirs open any more."""
        mounted, self._mounted = self._mounted, []
        deadline = time.monotonic() + 60
        # A killed worker lets go of its files a moment after its end.
        while (used := self._open_below(mounted)) and time.monotonic() < deadline:
            time.sleep(1.0)
        # What a failed test has left behind must not disturb the next one.
        self.run("sh", "-c", _KILL_ALL, "sh", "/srv/")
        # At once, since a server that hangs after a failed test would hold up every other way.
        for path in reversed(mounted):
            self.run("umount", "-i", "-l", path)
        assert not used, used
        mounts = self.run("cat", "/proc/mounts").decode()
        assert " cifs " not in mounts
        assert " nfs4 " not in mounts

    def _open_below(self, folders: list[Path]) -> list[str]:
        """Return what programs have open below folders, or work in."""
        links = self.run("sh", "-c", "ls -l /proc/[0-9]*/cwd /proc/[0-9]*/fd 2>/dev/null || true").decode().splitlines()
        return [link for link in links for path in folders if str(path) in link]


class GuestMirror:
    """Session logs in the guest that one program mirrors to a share.

    Args:
        patience_s: for so long after the logs' end the program tries to finish the mirrors.

    Attributes:
        place: its folder in the guest.
        told: what an operator was told, and what the program itself said, as last fetched.
        status: the mirrors' status, as last fetched.
    """

    def __init__(self, guest: Guest, here: Path, server: Server, central: Path, *rigs: str, patience_s: float = 400.0) -> None:
        self.guest, self.server, self.central = guest, server, central
        self.rigs, self.patience_s = rigs or ("bench",), patience_s
        self.place = Path("/srv", f"mirror_{uuid.uuid4().hex[:8]}")
        self._here = here / self.place.name
        self.status = self.told = ""
        guest.run("mkdir", "-p", self.place / "says")

    def start(self) -> GuestMirror:
        """Start to log and to mirror; after the logs' end: go on with what the mirrors lack, as ``recover`` does."""
        command = (sys.executable, HERE / "guest_mirror.py", self.place, self.central, self.patience_s, *self.rigs)
        self.pid = self.guest.start(*command, cwd=self.place, output=self.place / "says" / "output.txt")
        return self

    @property
    def sessions(self) -> list[tuple[str, Path]]:
        """Rig and session folder of each, as :meth:`fetch` has fetched them."""
        return [(rig_id, self._here / f"session_of_{rig_id}") for rig_id in self.rigs]

    def fetch(self) -> None:
        """Fetch all that was written."""
        self.guest.fetch(self.place, self._here)

    def logged(self) -> bytes:
        """Return the first rig's session log, as fetched."""
        return (self.sessions[0][1] / "launcher_metadata" / "launcher.log").read_bytes()

    def wait_for(self, what: Callable[[], Any], timeout_s: float = 400) -> None:
        """Wait until ``what`` is true; what the program says is fetched before."""
        deadline = time.monotonic() + timeout_s
        says = self._here.with_name(f"{self._here.name}_says")
        found = False
        while not found:
            assert time.monotonic() < deadline, f"it did not come in time: {self.status}, told {self.told}"
            # Not again and again: it would take the guest's processor from the mirror.
            time.sleep(1.0)
            self.guest.fetch(self.place / "says", says)
            texts = {path.name: path.read_text(encoding="utf-8") for path in says.iterdir()}
            self.status, self.told = texts.get("status", ""), texts.get("told", "") + texts.get("output.txt", "")
            with contextlib.suppress(OSError, ValueError):
                found = bool(what())

    def told_away(self) -> int:
        """How often an operator was told that the share cannot be written, not counting workers that start slowly."""
        return self.told.count("cannot be written") - self.told.count(
            "cannot be written (the mirror's process is not running yet"
        )

    def wait_told_away(self, times: int = 1) -> None:
        """Wait until an operator was told so often that the share cannot be written."""
        self.wait_for(lambda: self.told_away() >= times)

    def wait_back(self) -> None:
        """Wait until the last thing that an operator was told is that the share answers again."""
        self.wait_for(lambda: "answers again" in self.told.splitlines()[-1])

    def own(self, rig_id: str | None = None) -> Path:
        """A session's own copy, on the server."""
        rig_id = rig_id or self.rigs[0]
        folder: Path = own_folder(self.server.central, Path(f"session_of_{rig_id}"), rig_id)
        return folder / "launcher.log"

    def wait_copied(self) -> None:
        """Wait until the copies, and the day's log, have grown from now on."""
        self.wait_for(lambda: all(self._sizes()))
        before = self._sizes()
        self.wait_for(lambda: all(now > then for now, then in zip(self._sizes(), before, strict=True)))

    def _sizes(self) -> list[int]:
        copies = [self.own(rig_id) for rig_id in self.rigs]
        return [path.stat().st_size for path in (*copies, copies[0].parents[2] / "launcher.log")]

    def workers(self) -> list[tuple[str, str]]:
        """Its processes that touch the share, or wait for their turn to."""
        return [found for found in self.guest.processes(self.place) if "mirror.worker" in found[1]]

    def ask_to_stop(self) -> None:
        """End the logs."""
        self.guest.write(self.place / "stop", b"")

    def wait_end(self, timeout_s: float = 400) -> None:
        """Wait until the program has ended, as it should."""
        code = self.guest.wait(self.pid, timeout_s)
        self.wait_for(lambda: True)
        assert code == 0, self.told

    def wait_verified(self, timeout_s: float = 500) -> None:
        """Wait until the mirrors are whole and their processes are gone."""
        self.wait_for(lambda: self.status == "verified", timeout_s)
        self.wait_end()
        self.wait_gone()
        self.fetch()

    def wait_gone(self, timeout_s: float = 400) -> None:
        """Wait until no process is left."""
        self.wait_for(lambda: not self.guest.processes(self.place), timeout_s)


class GuestSession(Session):
    """A whole session (``pytest --rig-config``) in the guest; what it writes is fetched into the rig's folder here."""

    #: An emulated processor that shares this computer's with other tests takes its time for a record.
    stall_s = 20.0
    pause_s = 0.05
    lasts_s = 900.0

    def __init__(self, bench: Any, guest: Guest, server: Server, central: Path, **keys: Any) -> None:
        self.guest = guest
        self.place = Path("/srv", f"whole_{uuid.uuid4().hex[:8]}")
        # The report of a session takes an emulated processor minutes.
        super().__init__(bench, server, central, session_report=False, **keys)

    def launch(self) -> None:
        for path in filter(Path.is_file, self.bench.path.iterdir()):
            self.guest.write(self.place / path.name, path.read_bytes())
        environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "XDG_STATE_HOME": f"{self.place}/xdg", "PYTHONPATH": str(ROOT)}
        output = self.place / "output.txt"
        self.pid = self.guest.start(*self.bench.command(), cwd=self.place, output=output, **environment)

    def join(self, timeout_s: float) -> int:
        return self.guest.wait(self.pid, 4 * timeout_s)

    def sync(self) -> None:
        self.guest.fetch(self.place, self.bench.path, clear=False)

    def wait_for(self, what: Callable[[], Any], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + 6 * timeout_s
        while True:
            # As in GuestMirror.
            time.sleep(1.0)
            self.sync()
            with contextlib.suppress(OSError, ValueError, KeyError):
                if what():
                    return
            if time.monotonic() > deadline:
                left = self.guest.processes(self.place, self.central)
                raise AssertionError(f"it did not come in time: {left}\n{self.output[-3000:]}\n{self.guest.console()}")

    def ask_to_stop(self) -> None:
        self.guest.write(self.place / "stop", b"")

    def kill(self) -> None:
        """Kill the experiment's process."""
        self.guest.run("kill", "-KILL", self.pid)
        self.guest.wait(self.pid, 60)

    def left(self, stuck_too: bool) -> list[str]:
        return [line for state, line in self.guest.processes(self.place, self.central) if stuck_too or state != "D"]

    def wait_gone(self, stuck_too: bool = True, timeout_s: float = 60) -> None:
        self.wait_for(lambda: not self.left(stuck_too), timeout_s)


def _processor() -> list[str]:
    """QEMU's options: KVM where the processor has what an ordinary kernel needs, else QEMU's own processor, which is slow."""
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    usable = (
        flags is not None and bool({"svm", "vmx"} & set(flags.group(1).split())) and os.access("/dev/kvm", os.R_OK | os.W_OK)
    )
    return ["-accel", "kvm", "-cpu", "host"] if usable else ["-accel", "tcg", "-cpu", "max"]
