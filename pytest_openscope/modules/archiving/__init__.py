"""Archiving a session folder without loss: copied, checksummed, read back, resumed, nothing overwritten."""

from __future__ import annotations

#: Folder in ``launcher_metadata`` with the notes of archives that are owed; it is about the archive, and no part of it.
JOBS = "archive_jobs"
