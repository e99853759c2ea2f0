"""An NFS 4 server of a test's own: nfs-ganesha, which needs nothing of the kernel's."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path

import pytest
from samba_kit import SHARE, Server
from undo import Undo

_SERVER = """\
NFS_CORE_PARAM {{
    Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1;
    Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}}
NFSV4 {{
    Lease_Lifetime = 10; Grace_Period = 12; RecoveryBackend = fs; RecoveryRoot = {state};
    Only_Numeric_Owners = true; Minor_Versions = 1, 2;
}}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT {{
    Export_Id = 1; Path = {folder}; Pseudo = /{share}; Access_Type = {access}; Protocols = 4; Transports = TCP; SecType = sys;
    Attr_Expiration_Time = 0; Squash = All_Squash; Anonymous_Uid = {user}; Anonymous_Gid = {user};
    FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = EVENT; }}
"""
#: Whose the clients' files are.
NOBODY = 65534


class NfsServer(Server):
    """A server of NFS 4.1 and 4.2 with one share, its files owned by ``nobody``.

    Args:
        small: the share's folder is a file system of two megabytes.
    """

    def __init__(self, undo: Undo, *, small: bool = False) -> None:
        if sys.platform != "linux" or shutil.which("ganesha.nfsd") is None:
            pytest.skip("no NFS server is installed (Debian: apt-get install nfs-ganesha-vfs)")
        if os.geteuid() != 0:
            pytest.skip("the NFS server of the tests needs root: to open files by their handles")
        super().__init__(undo, "nfs", small=small)
        (self.home / "state").mkdir()
        self.settings()
        self.make_central()

    def settings(self, read_only: bool = False) -> None:
        """Write the server's settings; a running one must be restarted."""
        values = {"port": self.port, "folder": self.folder, "share": SHARE, "user": NOBODY, "state": self.home / "state"}
        text = _SERVER.format(access="RO" if read_only else "RW", **values)
        (self.home / "ganesha.conf").write_text(text, encoding="utf-8")

    def start(self) -> NfsServer:
        """Start the server and wait until it listens."""
        config, pid = self.home / "ganesha.conf", self.home / "ganesha.pid"
        pid.unlink(missing_ok=True)
        self._listen(["ganesha.nfsd", "-F", "-f", str(config), "-p", str(pid), "-L", "STDOUT", "-N", "EVENT"])
        return self

    def open_files(self) -> list[str]:
        """Return the share's files that the server has locked for its clients."""
        files = {path.stat().st_ino: path for path in self.folder.rglob("*") if path.is_file()}
        # "1: OFDLCK ADVISORY WRITE -1 00:2e:4711 1099511627776 1099511627776"
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        found = []
        for line in lines:
            with contextlib.suppress(IndexError, ValueError):
                path = files.get(int(line.replace("-> ", "").split()[5].rpartition(":")[2]))
                if path is not None:
                    found.append(f"{path}: {line}")
        return found
