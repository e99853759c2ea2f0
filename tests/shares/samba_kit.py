"""A Samba server of a test's own, and the clients that read and write its share.

Every server listens on port 445 of a loopback address of its own (127.x.y.z): some clients take no other port, and no two tests
meet.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import IO

import pytest
from undo import Undo, end_group

SHARE = "lab"
_SERVER = """\
[global]
interfaces = {address}/8
bind interfaces only = yes
smb ports = {port}
lock directory = {state}
state directory = {state}
cache directory = {state}
pid directory = {state}
private dir = {state}
ncalrpc dir = {state}/ncalrpc
log file = {state}/log.%m
server role = standalone server
map to guest = bad user
guest account = nobody
disable netbios = yes
disable spoolss = yes
load printers = no
[{share}]
path = {folder}
guest ok = yes
guest only = yes
read only = {read_only}
"""


def free_address() -> str:
    """Return an address of the loopback network at which nobody listens on port 445."""
    while True:
        address = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}.{random.randint(1, 250)}"
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, 445)):
                return address


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now and that no program is given by chance."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(what: object, timeout_s: float, reason: str) -> None:
    """Wait until ``what()`` is true."""
    assert callable(what)
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, reason
        time.sleep(0.02)


class Server:
    """A server's processes: started, stopped for a while, killed.

    Args:
        kind: what it serves.
        small: the share's folder is a file system of two megabytes.

    Attributes:
        home: a folder of its own.
        folder: what the share shows, seen from the server's side.
        central: the folder for the logs in it.
    """

    def __init__(self, undo: Undo, kind: str, *, small: bool = False, address: str = "127.0.0.1", port: int = 0) -> None:
        self._undo = undo
        # Below /tmp, not below pytest's folders, which other users may not enter.
        self.home = Path(tempfile.mkdtemp(prefix=f"openscope_{kind}_"))
        undo.later("folder", self.home)
        self.home.chmod(0o755)
        self.folder = self.home / "share"
        self.folder.mkdir()
        self.central = self.folder / "central"
        self.address, self.port = address, port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if small:
            self._make_small()

    def _make_small(self) -> None:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "openscope_share", str(self.folder)],
            capture_output=True,
            text=True,
        )
        if made.returncode:
            pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
        self._undo.later("mount", self.folder)

    def make_central(self) -> None:
        """Make the folder for the logs, as the share's owner would."""
        self.central.mkdir()
        shutil.chown(self.central, "nobody")

    def settings(self, read_only: bool = False) -> None:
        """Write the server's settings."""
        raise NotImplementedError

    def start(self) -> Server:
        """Start the server and wait until it listens."""
        raise NotImplementedError

    def open_files(self) -> list[str]:
        """Return what clients have open or locked on the share, as the server tells."""
        raise NotImplementedError

    def _listen(self, command: list[str]) -> None:
        for _ in range(10):
            if self._spawn(command):
                return
            # Another program has taken the port meanwhile; a server that was there before keeps its own.
            self.port = free_port() if self.port != 445 else 445
            self.settings()
        raise AssertionError(f"{command[0]} does not listen at {self.address}: {self.said()}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(5)
            return probe.connect_ex((self.address, self.port)) == 0

    def _spawn(self, command: list[str]) -> bool:
        """Start the server; False when it has ended before it listened."""
        with open(self.home / "said.txt", "ab") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        self._undo.later("group", self._process.pid)
        deadline = time.monotonic() + 60
        while self._process.poll() is None:
            if self._listens():
                return True
            assert time.monotonic() < deadline, f"{command[0]} does not listen: {self.said()}"
            time.sleep(0.02)
        self._undo.later("gone", self._process.pid)
        self._process = None
        return False

    def said(self) -> str:
        """Return the end of what the server printed."""
        return (self.home / "said.txt").read_text(encoding="utf-8", errors="replace")[-2000:]

    def hang(self) -> None:
        """Stop all its processes: connections stay, nothing is answered."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a stopped server go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill all its processes."""
        assert self._process is not None
        end_group(self._process.pid)
        self._process.wait(30)
        self._undo.later("gone", self._process.pid)
        self._process = None


class SambaServer(Server):
    """A Samba server with one share for guests, its files owned by ``nobody``.

    Args:
        small: the share's folder is a file system of two megabytes.
    """

    def __init__(self, undo: Undo, *, small: bool = False, address: str | None = None, port: int = 445) -> None:
        if sys.platform != "linux" or shutil.which("smbd") is None:
            pytest.skip("no Samba server is installed (Debian: apt-get install samba)")
        if os.geteuid() != 0:
            pytest.skip("the Samba server of the tests needs root: for its port, and to change to its guests' user")
        super().__init__(undo, "samba", small=small, address=address or free_address(), port=port)
        self._state = self.home / "state"
        self._state.mkdir()
        self.settings()
        self.make_central()

    def settings(self, read_only: bool = False) -> None:
        """Write the server's settings; a running one takes them at once."""
        text = _SERVER.format(
            address=self.address,
            port=self.port,
            state=self._state,
            share=SHARE,
            folder=self.folder,
            read_only="yes" if read_only else "no",
        )
        self._config = self.home / "smb.conf"
        self._config.write_text(text, encoding="utf-8")
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGHUP)

    def start(self) -> SambaServer:
        """Start the server and wait until it listens."""
        self._listen(["smbd", "--foreground", "--no-process-group", "--debug-stdout", "-s", str(self._config)])
        return self

    def open_files(self) -> list[str]:
        """Return what clients have open or locked on the share, as the server tells."""
        asked = ["smbstatus", "-s", str(self._config)]
        locks, ranges = (
            subprocess.run([*asked, option], capture_output=True, text=True, check=True).stdout for option in ("-L", "-B")
        )
        return [line for line in (locks + ranges).splitlines() if str(self.folder) in line]


class SmbNetFs:
    """A client: Debian's ``smbnetfs``, a FUSE file system on Samba's client library. It keeps locks to itself."""

    def __init__(self, undo: Undo, server: SambaServer) -> None:
        if shutil.which("smbnetfs") is None:
            pytest.skip("no SMB client for FUSE is installed (Debian: apt-get install smbnetfs fuse3)")
        if not Path("/dev/fuse").exists():
            pytest.skip("this computer has no FUSE (/dev/fuse)")
        home = Path(tempfile.mkdtemp(prefix="openscope_smbnetfs_"))
        undo.later("folder", home)
        (home / ".smb").mkdir(mode=0o700)
        (home / ".smb" / "smb.conf").write_text("[global]\nclient min protocol = SMB2\n", encoding="utf-8")
        settings = home / ".smb" / "smbnetfs.conf"
        settings.write_text('smb_query_browsers "false"\nauth "guest" ""\n', encoding="utf-8")
        settings.chmod(0o600)
        mount = home / "network"
        mount.mkdir()
        with open(home / "smbnetfs.txt", "wb") as stream:
            self._process = subprocess.Popen(
                ["smbnetfs", "-f", str(mount)],
                env={**os.environ, "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        undo.later("group", self._process.pid)
        undo.later("mount", mount)
        self.path = mount / server.address / SHARE
        self.central = self.path / "central"
        wait_until(lambda: self._is_up(mount), 30, (home / "smbnetfs.txt").read_text(encoding="utf-8"))

    def _is_up(self, mount: Path) -> bool:
        assert self._process.poll() is None
        with contextlib.suppress(OSError):
            return os.path.ismount(mount) and self.central.is_dir()
        return False


class KernelCifs:
    """A client: this computer's own kernel."""

    def __init__(self, undo: Undo, server: SambaServer) -> None:
        subprocess.run(["modprobe", "cifs"], check=False, capture_output=True) if shutil.which("modprobe") else None
        if "\tcifs\n" not in Path("/proc/filesystems").read_text(encoding="ascii"):
            pytest.skip("this computer's kernel has no CIFS")
        mount = Path(tempfile.mkdtemp(prefix="openscope_cifs_"))
        undo.later("folder", mount)
        options = f"username=guest,password=guest,ip={server.address},port={server.port},vers=3.1.1,soft"
        made = subprocess.run(
            ["mount", "-i", "-t", "cifs", "-o", options, f"//{server.address}/{SHARE}", str(mount)],
            capture_output=True,
            text=True,
        )
        if made.returncode:
            pytest.skip(f"this computer's kernel cannot mount the share: {made.stderr.strip()}")
        undo.later("mount", mount)
        self.path = mount
        self.central = mount / "central"


class SecondReader:
    """A client of other make: the package ``smbprotocol``, which speaks SMB in Python."""

    def __init__(self, server: SambaServer) -> None:
        self._smb = pytest.importorskip("smbclient", reason="the second reader needs the package smbprotocol")
        self._server = server
        self._cache: dict[str, object] = {}
        self._identity = str(uuid.uuid4())
        self._smb.ClientConfig(require_secure_negotiate=False)

    def read(self, path: str) -> bytes:
        """Return a file of the share, by its path below the share."""
        name = rf"\\{self._server.address}\{SHARE}\{path}".replace("/", "\\")
        stream: IO[bytes]
        with self._smb.open_file(name, mode="rb", share_access="rwd", **self._login) as stream:
            return stream.read()

    @property
    def _login(self) -> dict[str, object]:
        return {
            "username": "guest",
            "password": "guest",
            "port": self._server.port,
            "encrypt": False,
            "auth_protocol": "ntlm",
            "connection_cache": self._cache,
            "require_signing": False,
        }

    def close(self) -> None:
        """End the connection."""
        self._smb.reset_connection_cache(fail_on_error=False, connection_cache=self._cache)
