"""The history's database: one DuckDB file on this computer, brought up to date from the sources, and written out as Parquet."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...system import read_json, remove_file, replace_file, write_json
from .finding import SETTLED_DAYS, Known, Search, Source, text_of
from .reading import DRY_RUN, TABLES, Rows

if TYPE_CHECKING:
    import duckdb

#: Raised whenever a column or its meaning changes.
_VERSION = 1
_CONFIG: dict[str, Any] = {
    # Nothing is loaded from the network; what is needed is in the package.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": "2GB",
}
_FOLDERS = (
    "path VARCHAR, source VARCHAR, stamp VARCHAR, kind VARCHAR, settled BOOLEAN, session_id BIGINT, date DATE, rig VARCHAR"
)


class HistoryError(Exception):
    """There can be no answer now; the text says why and what to do."""


class Database:
    """An open database; whoever has it open has it alone.

    Raises:
        duckdb.Error: the file is damaged, or open in another program.
        HistoryError: another version of this package has made it.
    """

    def __init__(self, path: Path) -> None:
        import duckdb

        self.path = path
        self.connection: duckdb.DuckDBPyConnection = duckdb.connect(str(path), config=_CONFIG)
        self.connection.execute("SET threads = least(4, current_setting('threads'))")
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET enable_progress_bar = false")
        self._create()

    def close(self) -> None:
        """Write what is in the write-ahead log into the file and close it."""
        self.connection.close()

    def _create(self) -> None:
        run = self.connection.execute
        run("CREATE TABLE IF NOT EXISTS facts (name VARCHAR PRIMARY KEY, value VARCHAR)")
        if self.fact("version") not in ("", str(_VERSION)):
            # It may know sessions whose folders are gone, so nothing of it is thrown away.
            self.close()
            remedy = "give another one with --database, which reads all sessions"
            raise HistoryError(f"{self.path} was made by another version of pytest-openscope -> {remedy}")
        for name, columns in TABLES.items():
            run(f"CREATE TABLE IF NOT EXISTS {name} ({', '.join(f'{column} {kind}' for column, kind in columns.items())})")
        run(f"CREATE TABLE IF NOT EXISTS folders ({_FOLDERS})")
        run("CREATE TABLE IF NOT EXISTS days (source VARCHAR, date DATE)")
        run("CREATE TABLE IF NOT EXISTS partitions (date DATE, rig VARCHAR, run BIGINT)")
        given = [str(_VERSION), uuid.uuid4().hex]
        run("INSERT OR IGNORE INTO facts VALUES ('version', $1), ('run', '0'), ('id', $2)", given)

    def fact(self, name: str) -> str:
        """Return one of the database's own facts; "" where it is unknown."""
        found = self.connection.execute("SELECT value FROM facts WHERE name = $1", [name]).fetchone()
        return str(found[0]) if found else ""

    def update(self, sources: Iterable[Source], today: date, full: bool, told: Callable[[int], None]) -> list[str]:
        """Read what is new or has changed in the sources; return what could not be read.

        Each batch is a transaction: an end in the middle loses nothing that was read, and nothing is read twice.

        Args:
            full: look at sessions too that ended long ago.
            told: called with the number of sessions read so far.
        """
        problems: list[str] = []
        count = 0
        run = int(self.fact("run") or 0) + 1
        for source in sources:
            search = Search(source, self._known(source, today, full), today)
            for batch in search.changed():
                self._take(source, batch, run)
                count += len(batch)
                told(count)
            if search.listed:
                days = [day.isoformat() for day in dict.fromkeys(search.listed)]
                self.connection.execute(
                    "DELETE FROM days WHERE source = $1 AND date IN (SELECT unnest($2::VARCHAR[])::DATE)",
                    [
                        source.name,
                        days,
                    ],
                )
                self.connection.execute("INSERT INTO days SELECT $1, unnest($2::VARCHAR[])::DATE", [source.name, days])
            problems += search.problems
        return problems

    def _known(self, source: Source, today: date, full: bool) -> Known:
        settled = "settled AND date < $2 AND NOT $3"
        given = [source.name, today - timedelta(SETTLED_DAYS), full]
        asked = self.connection.execute(f"SELECT path FROM folders WHERE source = $1 AND {settled}", given)
        alone = {path for (path,) in asked.fetchall()}
        asked = self.connection.execute(f"SELECT path, stamp FROM folders WHERE source = $1 AND NOT ({settled})", given)
        stamps: dict[str, str] = dict(asked.fetchall())
        if not source.central or full:
            return Known(alone, stamps)
        days = self.connection.execute(
            "SELECT date FROM days WHERE source = $1 "
            "AND date NOT IN (SELECT date FROM folders WHERE source = $1 AND NOT settled)",
            [source.name],
        )
        return Known(alone, stamps, frozenset(day for (day,) in days.fetchall()))

    def _take(self, source: Source, batch: Sequence[Rows], run: int) -> None:
        """Put a batch in the place of what was known of its folders, all of it or nothing."""
        import duckdb

        do = self.connection.execute
        do("BEGIN")
        try:
            paths = [text_of(rows.place.path) for rows in batch]
            before = do(
                "SELECT DISTINCT session_id, date, rig FROM folders WHERE path IN (SELECT unnest($1::VARCHAR[]))", [paths]
            ).fetchall()
            do("DELETE FROM folders WHERE path IN (SELECT unnest($1::VARCHAR[]))", [paths])
            # Of several copies of a session one that has ended is better, and then the one that changed last.
            best: dict[int, Rows] = {}
            for rows in batch:
                other = best.get(rows.session_id)
                if other is None or _rank(rows) >= _rank(other):
                    best[rows.session_id] = rows
            elsewhere = dict(
                do(
                    "SELECT session_id, max((settled, split_part(stamp, ':', 1))) FROM folders "
                    "WHERE session_id IN (SELECT unnest($1::BIGINT[])) GROUP BY ALL",
                    [[*best, *(number for number, _, _ in before)]],
                ).fetchall()
            )
            taken = [
                rows for number, rows in best.items() if number not in elsewhere or _rank(rows) >= tuple(elsewhere[number])
            ]
            gone = {rows.session_id for rows in taken} | {one for one, _, _ in before if one not in elsewhere}
            for name in TABLES:
                do(f"DELETE FROM {name} WHERE session_id IN (SELECT unnest($1::BIGINT[]))", [list(gone)])
            for name, columns in TABLES.items():
                values = [row for rows in taken if rows.kind != DRY_RUN for row in rows.tables[name]]
                self._insert(name, list(columns.values()), values)
            folders = [
                (path, source.name, rows.stamp, rows.kind, rows.settled, rows.session_id, rows.day, rows.rig)
                for path, rows in zip(paths, batch, strict=True)
            ]
            self._insert("folders", ["VARCHAR"] * 4 + ["BOOLEAN", "BIGINT", "DATE", "VARCHAR"], folders)
            # The places of before and of now, so that a partition that a session has left is written too.
            touched = {(day, rig) for _, day, rig in before} | {(rows.day, rows.rig) for rows in taken}
            self._insert("partitions", ["DATE", "VARCHAR", "BIGINT"], [(day, rig, run) for day, rig in touched])
            do("INSERT OR REPLACE INTO facts VALUES ('run', $1)", [str(run)])
            do("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error, RuntimeError):
                do("ROLLBACK")
            raise

    def _insert(self, table: str, kinds: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        # Whole columns at once: DuckDB takes single rows a hundred times slower.
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            taken = ", ".join(f"unnest(${number}::{kind}[])" for number, kind in enumerate(kinds, 1))
            self.connection.execute(f"INSERT INTO {table} SELECT {taken}", columns)

    def write_parquet(self, target: Path, sources: Sequence[Source], full: bool) -> int:
        """Write the tables below ``target`` as ``TABLE/date=YYYY-MM-DD/rig=NAME/WRITER.parquet``; return the number of files.

        Only partitions that have changed since this database last wrote there are written, each file replaced at once.

        Raises:
            OSError: the folder cannot be written.
        """
        names = sorted(source.name for source in sources)
        made_by = "\x1f".join((platform.node(), os.fspath(self.path), *names))
        writer = hashlib.sha256(made_by.encode("utf-8", "backslashreplace")).hexdigest()[:8]
        target.mkdir(parents=True, exist_ok=True)
        mark = target / f"_history-{writer}.json"
        before = read_json(mark) or {}
        since = before.get("run") if before.get("database") == self.fact("id") and not full else None
        since = since if isinstance(since, int) else -1
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE due AS SELECT DISTINCT date, rig FROM partitions WHERE run > $1", [since]
        )
        run = int(self.fact("run") or 0)
        folder = target / f"_writing-{writer}"
        # One that was killed has left it.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            count = sum(self._write_table(name, target, folder, writer, names) for name in TABLES)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        write_json(mark, {"database": self.fact("id"), "run": run, "sources": names})
        return count

    def _write_table(self, name: str, target: Path, folder: Path, writer: str, sources: Sequence[str]) -> int:
        columns, join, order = (
            "s.session_uuid, s.rig_id, s.rig, s.date, s.started, t.*",
            f"JOIN {name} t USING (session_id)",
            "",
        )
        if name == "sessions":
            columns, join = "s.*", ""
        elif "position" in TABLES[name]:
            order = ", position"
        path = str(folder / name).replace("'", "''")
        # In order and by one thread, so that each partition is one file.
        self.connection.execute("SET threads = 1")
        try:
            self.connection.execute(
                f"COPY (SELECT {columns} FROM sessions s {join} "
                "WHERE (s.date, s.rig) IN (SELECT (date, rig) FROM due) AND s.session_id IN "
                f"(SELECT session_id FROM folders WHERE source IN ({', '.join(_quoted(one) for one in sources)})) "
                f"ORDER BY s.date, s.rig, s.started, s.session_id{order}) "
                f"TO '{path}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (date, rig), FILENAME_PATTERN 'part_{{i}}')"
            )
        finally:
            self.connection.execute("RESET threads")
        written: set[Path] = set()
        for file in sorted((folder / name).glob("*/*/*.parquet")):
            part = int(re.sub(r"\D", "", file.stem) or 0)
            place = target / name / file.parent.parent.name / file.parent.name
            place.mkdir(parents=True, exist_ok=True)
            written.add(place / (f"{writer}.parquet" if part == 0 else f"{writer}-{part}.parquet"))
            replace_file(file, place / (f"{writer}.parquet" if part == 0 else f"{writer}-{part}.parquet"))
        for day, rig in self.connection.execute("SELECT date, rig FROM due").fetchall():
            place = target / name / f"date={day}" / f"rig={rig}"
            for file in place.glob(f"{writer}*.parquet"):
                if file not in written:
                    remove_file(file)
        shutil.rmtree(folder / name, ignore_errors=True)
        return len(written)


def _rank(rows: Rows) -> tuple[bool, str]:
    return rows.settled, rows.stamp.partition(":")[0]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
