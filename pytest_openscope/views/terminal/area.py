"""The lines at the foot of a terminal that stand still while everything else scrolls above them.

The terminal itself keeps the two apart (its scrolling region, DECSTBM): whoever writes (pytest, a step with ``-s``, a program
that a step has started) needs to know nothing of the area, and is never wrapped, delayed or redrawn. A frame is one ``write``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...system import RELEASE_TERMINAL, keep_apart

_SAVE, _RESTORE = "\x1b7", "\x1b8"
_DOWN = "\x1bD"
#: Below this there is no room for an area.
_LEAST_ROWS, _LEAST_COLUMNS = 12, 40
_MOST_COLUMNS = 200


class Area:
    """The foot of the terminal behind a descriptor.

    Args:
        fd: the terminal; a duplicate of it is written to.
        ascii_only: the terminal shows no other characters.
    """

    def __init__(self, fd: int, ascii_only: bool = False) -> None:
        # On Windows this is a console stream, which takes UTF-8 whatever the code page; unbuffered: a write is a write.
        self._file = open(keep_apart(os.dup(fd)), "wb", buffering=0)  # noqa: SIM115 - closed by close()
        self._ascii_only = ascii_only
        self._shape: tuple[int, int, int] | None = None

    @property
    def width(self) -> int:
        """Columns that a line may have; 0 when the terminal is too small for an area."""
        columns, rows = os.get_terminal_size(self._file.fileno())
        return min(columns - 1, _MOST_COLUMNS) if columns >= _LEAST_COLUMNS and rows >= _LEAST_ROWS else 0

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines; the area grows when it must, and shrinks only with the terminal."""
        columns, rows = os.get_terminal_size(self._file.fileno())
        if self.width == 0:
            self.release()
            return
        lines = lines[: rows // 2]
        height = len(lines)
        if self._shape is not None and self._shape[:2] == (columns, rows):
            height = max(height, self._shape[2])
        parts = []
        if self._shape != (columns, rows, height):
            top = rows - height
            room = f"{_DOWN * height}\x1b[{height}A"
            parts.append(f"{RELEASE_TERMINAL}{room}{_SAVE}\x1b[1;{top}r{_RESTORE}")
            self._shape = (columns, rows, height)
        parts.append(_SAVE)
        for number, line in enumerate([*lines, *[""] * (height - len(lines))]):
            parts.append(f"\x1b[{rows - height + 1 + number};1H\x1b[0m{line}\x1b[0m\x1b[K")
        parts.append(_RESTORE)
        self._write("".join(parts))

    def release(self) -> None:
        """Take the area away."""
        if self._shape is not None:
            self._shape = None
            self._write(RELEASE_TERMINAL)

    def close(self) -> None:
        """Take the area away, for good."""
        try:
            self.release()
        finally:
            self._file.close()

    def _write(self, text: str) -> None:
        self._file.write(text.encode("ascii" if self._ascii_only else "utf-8", "replace"))
