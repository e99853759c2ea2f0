"""The history's database: one DuckDB file on this computer, brought up to date from the sources, and written out as Parquet."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import sys
import uuid
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...system import read_json, remove_file, replace_file, write_json
from ..values import whole_text
from .finding import SETTLED_DAYS, Search, Source
from .reading import TABLES, Rows

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
#: Its own tables: folders that were read, days of central directories that need no look, runs that changed a partition.
_OWN = {
    "folders": "path VARCHAR, source VARCHAR, stamp VARCHAR, kind VARCHAR, settled BOOLEAN, session_id BIGINT, date DATE, "
    "rig VARCHAR",
    "days": "source VARCHAR, date DATE",
    "partitions": "date DATE, rig VARCHAR, run BIGINT",
}
_TELL_EVERY = 5000


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
        if not path.exists():
            # Whoever is killed while DuckDB writes the first blocks leaves a file that it calls damaged.
            new = path.with_name(path.name + ".new")
            remove_file(new)
            duckdb.connect(str(new)).close()
            replace_file(new, path)
        self.connection: duckdb.DuckDBPyConnection = duckdb.connect(str(path), config=_CONFIG)
        run = self.connection.execute
        run("SET threads = least(4, current_setting('threads'))")
        run("SET TimeZone = 'UTC'")
        run("SET enable_progress_bar = false")
        run("CREATE TABLE IF NOT EXISTS facts (name VARCHAR PRIMARY KEY, value VARCHAR)")
        if self.fact("version") not in ("", str(_VERSION)):
            # It may know sessions whose folders are gone, so nothing of it is thrown away.
            self.connection.close()
            remedy = "give another one with --database, which reads all sessions"
            raise HistoryError(f"{self.path} was made by another version of pytest-openscope -> {remedy}")
        for name, columns in {**_OWN, **TABLES}.items():
            run(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
        given = [str(_VERSION), uuid.uuid4().hex]
        run("INSERT OR IGNORE INTO facts VALUES ('version', $1), ('run', '0'), ('id', $2)", given)

    def fact(self, name: str) -> str:
        """Return one of the database's own facts; "" where it is unknown."""
        found = self.connection.execute("SELECT value FROM facts WHERE name = $1", [name]).fetchone()
        return str(found[0]) if found else ""

    def update(self, sources: Iterable[Source], full: bool) -> list[str]:
        """Read what is new or has changed in the sources; return what could not be read.

        Each batch is a transaction: an end in the middle loses nothing that was read, and nothing is read twice.

        Args:
            full: look at sessions too that ended long ago.
        """
        problems: list[str] = []
        count = 0
        run = int(self.fact("run")) + 1
        for source in sources:
            search = self._search(source, full)
            for batch in search.changed():
                self._take(source, batch, run)
                if count // _TELL_EVERY < (count + len(batch)) // _TELL_EVERY:
                    say(f"{count + len(batch)} sessions read")
                count += len(batch)
            self.connection.execute(
                "DELETE FROM days WHERE source = $1 AND date IN (SELECT unnest($2::DATE[]))", [source.name, search.listed]
            )
            self._insert("days", [(source.name, day) for day in search.listed])
            problems += search.problems
        return problems

    def _search(self, source: Source, full: bool) -> Search:
        known = self.connection.execute(
            "SELECT path, CASE WHEN settled AND date < $2 AND NOT $3 THEN NULL ELSE stamp END FROM folders WHERE source = $1",
            [source.name, date.today() - timedelta(SETTLED_DAYS), full],
        ).fetchall()
        days = self.connection.execute(
            "SELECT date FROM days WHERE source = $1 AND NOT $2 "
            "AND date NOT IN (SELECT date FROM folders WHERE source = $1 AND NOT settled)",
            [source.name, full],
        ).fetchall()
        return Search(source, dict(known), {day for (day,) in days})

    def _take(self, source: Source, batch: Sequence[Rows], run: int) -> None:
        """Put a batch in the place of what was known of its folders, all of it or nothing."""
        import duckdb

        do = self.connection.execute
        do("BEGIN")
        try:
            paths = [whole_text(str(rows.place.path)) for rows in batch]
            before = do(
                "SELECT DISTINCT session_id, date, rig FROM folders WHERE path IN (SELECT unnest($1::VARCHAR[]))", [paths]
            ).fetchall()
            do("DELETE FROM folders WHERE path IN (SELECT unnest($1::VARCHAR[]))", [paths])
            folders = [
                (path, source.name, rows.stamp, rows.kind, rows.settled, rows.session_id, rows.day, rows.rig)
                for path, rows in zip(paths, batch, strict=True)
            ]
            self._insert("folders", folders)
            # Of several copies of a session one that has ended is better, and then the one that changed last.
            best = dict(
                do(
                    "SELECT session_id, arg_max(path, (settled, split_part(stamp, ':', 1))) FROM folders "
                    "WHERE session_id IN (SELECT unnest($1::BIGINT[])) GROUP BY ALL",
                    [[*(rows.session_id for rows in batch), *(number for number, _, _ in before)]],
                ).fetchall()
            )
            taken = [rows for path, rows in zip(paths, batch, strict=True) if best[rows.session_id] == path]
            gone = {rows.session_id for rows in taken} | {number for number, _, _ in before if number not in best}
            for name in TABLES:
                do(f"DELETE FROM {name} WHERE session_id IN (SELECT unnest($1::BIGINT[]))", [list(gone)])
                self._insert(name, [row for rows in taken for row in rows.tables.get(name, ())])
            # The places of before and of now, so that a partition that a session has left is written too.
            touched = {(day, rig) for _, day, rig in before} | {(rows.day, rows.rig) for rows in taken}
            self._insert("partitions", [(day, rig, run) for day, rig in touched])
            do("INSERT OR REPLACE INTO facts VALUES ('run', $1)", [str(run)])
            do("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error, RuntimeError):
                do("ROLLBACK")
            raise

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        # Whole columns at once: DuckDB takes single rows a hundred times slower.
        if rows:
            kinds = self.connection.table(table).types
            columns = ", ".join(f"unnest(${number}::{kind}[])" for number, kind in enumerate(kinds, 1))
            self.connection.execute(
                f"INSERT INTO {table} SELECT {columns}", [list(column) for column in zip(*rows, strict=True)]
            )

    def write_parquet(self, target: Path, sources: Sequence[Source], full: bool) -> None:
        """Write the tables below ``target`` as ``TABLE/date=YYYY-MM-DD/rig=NAME/WRITER.parquet``.

        Only partitions that have changed since this database last wrote there are written, each file replaced at once.

        Raises:
            OSError: the folder cannot be written.
        """
        names = sorted(source.name for source in sources)
        made_by = "\x1f".join((platform.node(), str(self.path), *names))
        writer = hashlib.sha256(made_by.encode("utf-8", "backslashreplace")).hexdigest()[:8]
        target.mkdir(parents=True, exist_ok=True)
        mark = target / f"_history-{writer}.json"
        before = read_json(mark) or {}
        since = before["run"] if before.get("database") == self.fact("id") and not full else -1
        due = self.connection.execute("SELECT DISTINCT date, rig FROM partitions WHERE run > $1", [since]).fetchall()
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE due AS SELECT * FROM sessions "
            "WHERE (date, rig) IN (SELECT (date, rig) FROM partitions WHERE run > $1) "
            "AND session_id IN (SELECT session_id FROM folders WHERE source IN (SELECT unnest($2)))",
            [since, names],
        )
        folder = target / f"_writing-{writer}"
        # One that was killed has left it.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            for name in TABLES:
                self._write_table(name, folder / name)
                for day, rig in due:
                    part = Path(name, f"date={day}", f"rig={rig}")
                    _replace_files(folder / part, target / part, writer)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        write_json(mark, {"database": self.fact("id"), "run": int(self.fact("run")), "sources": names})

    def _write_table(self, name: str, folder: Path) -> None:
        query = f"SELECT s.session_uuid, s.rig_id, s.rig, s.date, s.started, t.* FROM due s JOIN {name} t USING (session_id)"
        if name == "sessions":
            query = "SELECT * FROM due s"
        order = "s.date, s.rig, s.started, s.session_id" + (", position" if "position" in TABLES[name] else "")
        path = str(folder).replace("'", "''")
        # In order and by one thread, so that each partition is one file.
        self.connection.execute("SET threads = 1")
        try:
            self.connection.execute(
                f"COPY ({query} ORDER BY {order}) "
                f"TO '{path}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (date, rig), FILENAME_PATTERN 'part_{{i}}')"
            )
        finally:
            self.connection.execute("RESET threads")


def _replace_files(written: Path, place: Path, writer: str) -> None:
    """Put the files that were written for a partition into its place, and remove those of this writer that are no more."""
    kept = set()
    for number, file in enumerate(sorted(written.glob("*.parquet"))):
        place.mkdir(parents=True, exist_ok=True)
        kept.add(place / (f"{writer}-{number}.parquet" if number else f"{writer}.parquet"))
        replace_file(file, place / (f"{writer}-{number}.parquet" if number else f"{writer}.parquet"))
    for file in place.glob(f"{writer}*.parquet"):
        if file not in kept:
            remove_file(file)


def say(text: str) -> None:
    """Tell somebody who waits."""
    print(text, file=sys.stderr, flush=True)
