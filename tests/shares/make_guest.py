"""Makes the small Linux computer (kernel and first file system) in which the kernel's own CIFS and NFS clients are tested.

Run as root on Debian: ``python tests/shares/make_guest.py``. Everything comes from Debian's package client: QEMU, busybox, an
NFS server in user space, and a kernel, which is unpacked, not installed. The result is kept in ``guest_folder()``; the rest of
the guest's programs are this computer's own files, which it sees read-only.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGES = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "ganesha.nfsd": "nfs-ganesha-vfs"}
KERNEL = "linux-image-amd64"
#: What the guest loads at its start; what these need comes along. The ciphers are asked for by name at the first use.
MODULES = (
    *("virtio_pci", "virtio_net", "virtio_console", "9pnet_virtio", "9p", "overlay", "cifs", "nfsv4", "nls_utf8"),
    *("ecb", "hmac", "md4", "md5", "cmac", "ccm", "gcm", "ctr", "seqiv", "arc4", "aesni_intel", "aes_generic", "des_generic"),
    *("sha256_generic", "sha512_generic", "ghash_generic"),
)


def guest_folder() -> Path:
    """Where the guest is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "openscope_guest")


INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /host /layer /new_root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module || echo "no $module"; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host
/bin/busybox mount -t tmpfs layer /layer
/bin/busybox mkdir /layer/upper /layer/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /new_root
for each in proc sys dev; do /bin/busybox mount --move /$each /new_root/$each; done
/bin/busybox mount -t tmpfs run /new_root/run
/bin/busybox mkdir -p /new_root/dev/shm /new_root/dev/pts
/bin/busybox mount -t tmpfs shm /new_root/dev/shm
/bin/busybox mount -t devpts pts /new_root/dev/pts
/bin/busybox ifconfig lo 127.0.0.1 up
/bin/busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
/bin/busybox route add default gw 10.0.2.2
read -r line < /new_root/proc/cmdline
for word in $line; do case $word in agent=*) agent=${word#agent=};; python=*) python=${word#python=};; esac; done
/bin/busybox chroot /new_root "$python" "$agent"
/bin/busybox poweroff -f
"""


def main() -> int:
    """Make what is missing; return the process's exit code."""
    folder = guest_folder()
    if not all(map(shutil.which, PACKAGES)):
        missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
    if (folder / "initramfs").exists():
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        depends = subprocess.run(["apt-cache", "depends", KERNEL], check=True, capture_output=True, text=True).stdout
        package = re.findall(r"Depends: (linux-image-\S+)", depends)[0]
        _run("apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", package, cwd=work)
        (archive,) = work.glob("*.deb")
        modules = _unpack(archive, work)
        (work / "initramfs.gz").write_bytes(gzip.compress(_first_file_system(modules), 1))
        (work / "kernel").replace(folder / "kernel")
        (work / "initramfs.gz").replace(folder / "initramfs")
    print(f"the guest is in {folder}")
    return 0


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, cwd=cwd, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def _unpack(archive: Path, work: Path) -> dict[str, bytes]:
    """Write the package's kernel to ``work``; return its modules by name."""
    modules: dict[str, bytes] = {}
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        for member in tar:
            name = Path(member.name).name
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            if name.startswith("vmlinuz-"):
                (work / "kernel").write_bytes(stream.read())
            elif name.endswith(".ko"):
                modules[name[:-3].replace("-", "_")] = stream.read()
    return modules


def _order(modules: dict[str, bytes]) -> list[str]:
    """Return the wanted modules, those that they need before them; what is built into the kernel is in none."""
    order: list[str] = []

    def add(name: str) -> None:
        if name in order or name not in modules:
            return
        found = re.search(rb"\0depends=([^\0]*)\0", modules[name])
        for needed in found.group(1).decode().replace("-", "_").split(",") if found else []:
            add(needed)
        order.append(name)

    for name in MODULES:
        add(name)
    return order


def _first_file_system(modules: dict[str, bytes]) -> bytes:
    """Return a cpio archive ("newc") of busybox, the modules and ``init``."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    order = _order(modules)
    entries: list[tuple[str, int, bytes]] = [
        ("bin", 0o040755, b""),
        ("bin/busybox", 0o100755, Path(busybox).read_bytes()),
        ("init", 0o100755, INIT.encode()),
        ("modules", 0o040755, b""),
        ("modules/order", 0o100644, "\n".join(f"{name}.ko" for name in order).encode()),
        *((f"modules/{name}.ko", 0o100644, modules[name]) for name in order),
        ("TRAILER!!!", 0, b""),
    ]
    parts = []
    for number, (name, mode, data) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]
    return b"".join(parts)


if __name__ == "__main__":
    sys.exit(main())
