"""The archive's manifest: what lies verified where, in a form that survives a crash at any moment.

While files are copied, each verified copy is a line of ``<manifest>.jsonl``, appended in one write. At the end of a run the
lines are folded into the manifest itself, a JSON file with the keys of the launcher's, which is replaced in one step; only
then are the lines removed. A crash leaves the old manifest and the lines, or the new manifest and lines that it already has.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...system import now_iso, remove_file, write_atomic


class Copy(NamedTuple):
    """A verified copy: whose it is (``size`` and ``mtime_ns`` of the original), where it lies and what was read back there."""

    size: int
    mtime_ns: int
    checksum: str
    algo: str
    path: str

    def is_of(self, size: int, mtime_ns: int) -> bool:
        """Tell whether the original is still the one that was copied."""
        return (self.size, self.mtime_ns) == (size, mtime_ns)


class Manifest:
    """One folder's manifest; :meth:`verified` and :meth:`removed` may be called from any thread.

    Raises:
        ValueError: the file that is there is no manifest; it stays untouched.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        self.journal = path.with_name(path.name + "l")
        self.copies: dict[tuple[str, str], Copy] = {}
        #: Keys of the copies that were verified since this object was made.
        self.fresh: set[tuple[str, str]] = set()
        self.gone: set[str] = set()
        self.errors: dict[str, str] = {}
        self._before: dict[str, Any] = {}
        self._head = {"created_at": now_iso(), **head}
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._load()

    def _load(self) -> None:
        if self.path.exists():
            data = json.loads(self.path.read_text(encoding="utf-8-sig"))
            if not isinstance(data, dict) or not isinstance(data.get("files", {}), dict):
                raise ValueError("it holds no files")
            self._head["created_at"] = data.get("created_at", self._head["created_at"])
            for name, entry in data.get("files", {}).items():
                if isinstance(entry, dict):
                    self._before[name] = entry
                    self._take_entry(name, entry)
        if self.journal.exists():
            for line in self.journal.read_bytes().split(b"\n")[:-1]:  # what follows the last newline is torn
                try:
                    self._take(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    continue  # a damaged line costs one more look at one file

    def _take_entry(self, name: str, entry: dict[str, Any]) -> None:
        for target, facts in (entry.get("copies") or {}).items():
            try:
                self.copies[name, target] = Copy(**facts)
            except TypeError:
                continue  # of another version: that file is looked at again
        if entry.get("original_removed"):
            self.gone.add(name)

    def _take(self, line: dict[str, Any]) -> None:
        if line.get("removed"):
            self.gone.add(str(line["file"]))
        else:
            self.copies[str(line["file"]), str(line["target"])] = Copy(**line["copy"])
            self.gone.discard(str(line["file"]))

    def verified(self, target: str, copies: Mapping[str, Copy]) -> None:
        """Put a target's copies on record, by the names of their files."""
        self._append({"file": name, "target": target, "copy": copy._asdict()} for name, copy in copies.items())
        for name, copy in copies.items():
            key = (name, target)
            self.copies[key] = copy
            self.fresh.add(key)

    def removed(self, name: str) -> None:
        """Put on record that an original was removed."""
        self._append([{"file": name, "removed": True}])
        self.gone.add(name)

    def _append(self, lines: Iterable[dict[str, Any]]) -> None:
        data = "".join(f"{json.dumps(line)}\n" for line in lines).encode("ascii")
        if not data:
            return
        with self._lock:
            if self._fd is None:
                self.journal.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
                self._fd = os.open(self.journal, flags, 0o644)
                data = b"\n" + data  # a line that a crash has torn must not swallow the next one
            os.write(self._fd, data)

    def close(self, targets: Mapping[str, str], report: Mapping[str, Any]) -> None:
        """Fold all lines into the manifest and remove them.

        Raises:
            OSError: the manifest cannot be written; the lines stay.
        """
        names = {name for name, _ in self.copies} | set(self._before) | set(self.errors) | self.gone
        now = now_iso()
        head = {**self._head, "updated_at": now, "report": dict(report)}
        # A line for each file: readable, and twenty times as fast as indented JSON.
        lines = ",\n".join(json.dumps({name: self._entry(name, targets, now)})[1:-1] for name in sorted(names))
        text = f'{json.dumps(head, indent=2).rstrip().removesuffix("}").rstrip()},\n  "files": {{\n{lines}\n}}}}\n'
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, text.encode("ascii"))
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
        remove_file(self.journal)

    def _entry(self, name: str, targets: Mapping[str, str], now: str) -> dict[str, Any]:
        """One file as the launcher writes it (``status``, ``checksum``, ``network_path`` …), and what a later run needs."""
        places = ("network", "backup")
        copies = {target: self.copies[name, target] for target in places if (name, target) in self.copies}
        if not copies and name not in self.errors:
            return dict(self._before.get(name, {}))
        error = self.errors.get(name)
        complete = error is None and all(target in copies for target in targets)
        entry: dict[str, Any] = {"status": "complete" if complete else "error" if error else "pending", "updated_at": now}
        if error:
            entry["error"] = error
        for target, copy in copies.items():
            entry.update({f"{target}_copy": True, f"{target}_path": copy.path})
            entry.update(checksum=copy.checksum, checksum_algo=copy.algo, size=copy.size)
        entry["copies"] = {target: copy._asdict() for target, copy in copies.items()}
        if name in self.gone:
            entry["original_removed"] = True
        return entry
