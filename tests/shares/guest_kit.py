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
from share_kit import own_folder
from undo import Undo

HERE = Path(__file__).parent
#: The host, as the guest sees it.
HOST = "10.0.2.2"


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
        self._mounts = 0
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

    def fetch(self, folder: Path, to: Path) -> None:
        """Copy a folder of the guest to ``to``."""
        data = base64.b64decode(self._ask(60, what="fetch", folder=str(folder))["tar"])
        shutil.rmtree(to, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(to, filter="tar")

    def processes(self, *words: object) -> list[tuple[str, str]]:
        """State and command line of the guest's processes that name one of the words."""
        return [(state, line) for state, line in self._ask(60, what="processes", words=[*map(str, words)])["found"]]

    def mount(self, kind: str, source: str, options: str) -> Path:
        """Mount a share; return where."""
        self._mounts += 1
        path = Path("/srv", f"{kind}{self._mounts}")
        self.run("mkdir", "-p", path)
        self.run("mount", "-i", "-t", kind, "-o", options, source, path, timeout_s=120)
        return path

    def mount_cifs(self, server: SambaServer, *options: str) -> Path:
        """Mount a Samba server of the host's as a client of its own; return where its folder for the logs is."""
        given = ("username=guest", "password=guest", f"ip={HOST}", f"port={server.port}", "nosharesock", *options)
        return self.mount("cifs", f"//{HOST}/{SHARE}", ",".join(given)) / "central"

    def unmount(self) -> None:
        """Take away all mounts of shares."""
        for number in range(self._mounts, 0, -1):
            self.run("sh", "-c", f"umount -l /srv/*{number} 2>/dev/null || true")
        self._mounts = 0


class GuestMirror:
    """A session log in the guest that is mirrored to a share; what is written there is fetched to look at it.

    Attributes:
        place: its folder in the guest.
        folder: the session's folder, as fetched.
    """

    def __init__(self, guest: Guest, here: Path, server: Server, central: Path, rig_id: str = "bench") -> None:
        self.guest, self.server, self.central, self.rig_id = guest, server, central, rig_id
        self.place = Path("/srv", f"{rig_id}_{uuid.uuid4().hex[:8]}")
        self._here = here / rig_id
        self.folder = self._here / f"session_of_{rig_id}"

    def start(self) -> GuestMirror:
        """Start to log and to mirror."""
        self.guest.run("mkdir", "-p", self.place)
        command = (sys.executable, HERE / "guest_mirror.py", self.place, self.central, self.rig_id)
        self.pid = self.guest.start(*command, cwd=self.place, output=self.place / "output.txt")
        return self

    def wait_for(self, what: Callable[[], Any], timeout_s: float = 120) -> None:
        """Wait until ``what`` of what it has written is true."""
        deadline = time.monotonic() + timeout_s
        found = False
        while not found:
            assert time.monotonic() < deadline, f"it did not come in time: {self.status()}, told {self.told()}"
            # Not again and again: it would take the guest's processor from the mirror.
            time.sleep(0.5)
            self.guest.fetch(self.place, self._here)
            with contextlib.suppress(OSError, ValueError):
                found = bool(what())

    def told(self) -> str:
        """What an operator was told, and what the program itself said."""
        return "".join(
            (self._here / name).read_text(encoding="utf-8") for name in ("told", "output.txt") if (self._here / name).exists()
        )

    def status(self) -> str:
        """The mirror's status."""
        path = self._here / "status"
        return path.read_text(encoding="ascii") if path.exists() else "none"

    @property
    def own(self) -> Path:
        """The session's own copy, on the server."""
        return own_folder(self.server.central, self.folder, self.rig_id) / "launcher.log"

    def wait_copied(self) -> None:
        """Wait until the copy, and the day's log, have grown from now on."""
        self.wait_for(lambda: self._sizes())
        before = self._sizes()
        self.wait_for(lambda: all(now > then for now, then in zip(self._sizes(), before, strict=True)))

    def _sizes(self) -> tuple[int, int]:
        return self.own.stat().st_size, (self.own.parents[2] / "launcher.log").stat().st_size

    def ask_to_stop(self) -> None:
        """End the log."""
        self.guest.write(self.place / "stop", b"")

    def wait_verified(self, timeout_s: float = 240) -> None:
        """Wait until the mirror is whole and its processes are gone."""
        self.wait_for(lambda: self.status() == "verified", timeout_s)
        self.wait_for(lambda: not self.guest.processes(self.place, self.central), timeout_s)
        assert self.guest.wait(self.pid, 60) == 0, self.told()


def _processor() -> list[str]:
    """QEMU's options: KVM where the processor has what an ordinary kernel needs, else QEMU's own processor, which is slow."""
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    usable = (
        flags is not None and bool({"svm", "vmx"} & set(flags.group(1).split())) and os.access("/dev/kvm", os.R_OK | os.W_OK)
    )
    return ["-accel", "kvm", "-cpu", "host"] if usable else ["-accel", "tcg", "-cpu", "max"]
