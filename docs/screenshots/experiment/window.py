"""Draws what a microscope might see: bright cells and a vessel on a dark field. No camera, no library."""

from __future__ import annotations

import math
import random
import struct
import zlib
from pathlib import Path


def draw(path: Path, size_px: int = 320) -> None:
    """Write the picture as PNG."""
    source = random.Random(5)
    cells = [
        (source.uniform(0, size_px), source.uniform(0, size_px), source.uniform(4, 8), source.uniform(60, 190))
        for _ in range(70)
    ]
    rows = bytearray()
    for y in range(size_px):
        rows.append(0)
        for x in range(size_px):
            vessel = abs(y - size_px * 0.62 - 26 * math.sin(x / 55))
            light = 34 - (22 if vessel < 9 else 0)
            for cell_x, cell_y, radius, brightness in cells:
                if abs(x - cell_x) < 18 and abs(y - cell_y) < 18 and vessel > 9:
                    far = math.hypot(x - cell_x, y - cell_y)
                    light += brightness * math.exp(-(((far - radius * 0.5) / (radius * 0.55)) ** 2))
            level = max(0, min(255, int(light)))
            rows += bytes((level // 6, level, level // 4))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size_px, size_px, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows), 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
