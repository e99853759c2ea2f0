"""A network share for the stress tests: a FUSE mirror of a folder that is slow, hangs, or goes away as told.

Run as ``python fuse_share.py <folder> <mount point> <control file>``. The control file holds one word, read at every request:
``ok``, ``hang`` (every request waits), or a number of seconds that each request takes.
"""

from __future__ import annotations

import errno
import os
import sys
import time

import mfusepy as fuse


class Share(fuse.Operations):
    """Passes every request on to the folder, after what the control file asks for."""

    use_ns = True

    def __init__(self, folder: str, control: str) -> None:
        self.folder = folder
        self.control = control

    def _at(self, path: str) -> str:
        while True:
            with open(self.control, encoding="ascii") as stream:
                word = stream.read().strip()
            if word != "hang":
                break
            time.sleep(0.02)
        if word not in ("", "ok"):
            time.sleep(float(word))
        return self.folder + path

    def getattr(self, path, fh=None):
        try:
            found = os.lstat(self._at(path))
        except OSError as error:
            raise fuse.FuseOSError(error.errno) from None
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino")
        times = {f"st_{name}": getattr(found, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
        return {name: getattr(found, name) for name in names} | times

    def readdir(self, path, fh):
        return [".", "..", *(entry.name for entry in os.scandir(self._at(path)))]

    def _call(self, function, *args):
        try:
            return function(*args)
        except OSError as error:
            raise fuse.FuseOSError(error.errno or errno.EIO) from None

    def open(self, path, flags):
        return self._call(os.open, self._at(path), flags & ~os.O_APPEND)

    def create(self, path, mode, fi=None):
        return self._call(os.open, self._at(path), os.O_RDWR | os.O_CREAT, mode)

    def read(self, path, size, offset, fh):
        self._at(path)
        return self._call(os.pread, fh, size, offset)

    def write(self, path, data, offset, fh):
        self._at(path)
        return self._call(os.pwrite, fh, data, offset)

    def truncate(self, path, length, fh=None):
        self._call(os.truncate, self._at(path), length)
        return 0

    def fsync(self, path, datasync, fh):
        self._at(path)
        self._call(os.fsync, fh)
        return 0

    def flush(self, path, fh):
        return 0

    def release(self, path, fh):
        os.close(fh)
        return 0

    def mkdir(self, path, mode):
        return self._call(os.mkdir, self._at(path), mode)

    def unlink(self, path):
        return self._call(os.unlink, self._at(path))

    def rename(self, old, new):
        return self._call(os.rename, self._at(old), self.folder + new)

    def statfs(self, path):
        found = os.statvfs(self._at(path))
        return {name: getattr(found, name) for name in ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_files", "f_ffree")}


if __name__ == "__main__":
    fuse.FUSE(Share(sys.argv[1], sys.argv[3]), sys.argv[2], foreground=True, nothreads=False)
