"""Make the library of Windows that Debian's Wine lacks; programs written in Rust ask it for random bytes.

Its one function, `ProcessPrng(buffer, length)`, is the same as `SystemFunction036` (`RtlGenRandom`) of `advapi32`,
which Wine has: a library without code, whose export is a forwarder.

    python bcryptprimitives.py <prefix>/drive_c/windows/system32/bcryptprimitives.dll
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

LIBRARY, FUNCTION, FORWARDED_TO = b"bcryptprimitives.dll\0", b"ProcessPrng\0", b"ADVAPI32.SystemFunction036\0"
SECTION, ON_DISK = 0x1000, 0x200  # where the only section starts, in memory and in the file


def exports() -> bytes:
    """The export directory, its three tables of one entry each, and the three texts."""
    tables = SECTION + 40
    texts = tables + 4 + 4 + 2
    library, function, forwarded_to = texts, texts + len(LIBRARY), texts + len(LIBRARY) + len(FUNCTION)
    directory = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, library, 1, 1, 1, tables, tables + 4, tables + 8)
    return directory + struct.pack("<IIH", forwarded_to, function, 0) + LIBRARY + FUNCTION + FORWARDED_TO


def library() -> bytes:
    """The whole file: headers of a 64-bit DLL and one read-only section."""
    section = exports()
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x2022)
    optional = struct.pack("<HBBIIIIIQIIHHHHHHIIIIHHQQQQII", *(
        0x20B, 14, 0, 0, ON_DISK, 0, 0, SECTION, 0x3_7A5C_0000, SECTION, ON_DISK, 6, 2, 0, 0, 6, 2,
        0, 2 * SECTION, ON_DISK, 0, 3, 0x140, 1 << 20, 1 << 12, 1 << 20, 1 << 12, 0, 16,
    ))  # fmt: skip
    directories = struct.pack("<II", SECTION, len(section)) + bytes(15 * 8)
    row = struct.pack("<8sIIIIIIHHI", b".edata", len(section), SECTION, ON_DISK, ON_DISK, 0, 0, 0, 0, 0x4000_0040)
    headers = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64) + b"PE\0\0" + coff + optional + directories + row
    return headers.ljust(ON_DISK, b"\0") + section.ljust(ON_DISK, b"\0")


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(library())
