"""The archiver's engine: real folders, real threads, real kills; each fault is made where it happens at a rig."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import xxhash

from pytest_openscope.modules import parameters
from pytest_openscope.modules.archiving import engine, folders
from pytest_openscope.modules.archiving.engine import Archiver, Progress, Report
from pytest_openscope.modules.archiving.folders import FolderTarget, Source
from pytest_openscope.modules.archiving.parameters import ArchiverParameters, read_parameters
from pytest_openscope.modules.archiving.sources import PARTIAL
from pytest_openscope.modules.context import ModuleFailed

MB = 1024 * 1024


class Bench:
    """A session folder and its two targets."""

    def __init__(self, folder: Path) -> None:
        self.session, self.network, self.backup = folder / "session", folder / "network", folder / "backup"
        self.session.mkdir()
        self.target: type[FolderTarget] = FolderTarget
        self.told: list[Progress] = []

    def write(self, name: str, content: bytes | str = "") -> Path:
        path = self.session / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def parameters(self, **given: Any) -> ArchiverParameters:
        places = {"network_dir": str(self.network), "backup_dir": str(self.backup), "retry_delay_s": 0.01}
        return read_parameters({**places, **given}, self.session)

    def archiver(self, **given: Any) -> Archiver:
        archiver = Archiver(self.parameters(**given), on_progress=self.told.append)
        archiver.targets = [self.target(one.name, one.place, str(self.session)) for one in archiver.targets]
        return archiver

    def run(self, **given: Any) -> Report:
        return self.archiver(**given).run()

    @property
    def manifest_path(self) -> Path:
        return self.session / "launcher_metadata" / "session_archiver_manifest.json"

    def manifest(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        return loaded

    def assert_equal(self, *targets: Path, without: Iterable[str] = ()) -> None:
        """Every original is in each target, byte by byte, and nothing else is there."""
        here = {name: data for name, data in tree(self.session).items() if name not in without}
        here = {name: data for name, data in here.items() if "session_archiver_manifest" not in name}
        for target in targets or (self.network, self.backup):
            assert tree(target) == here


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def reasons(report: Report) -> dict[tuple[str, str], str]:
    return {(problem.name, problem.place): problem.reason for problem in report.problems}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes that differ everywhere, so that a shifted or repeated block is seen."""
    return b"".join(hashlib.blake2b(f"{seed}:{i}".encode()).digest() for i in range(size // 64 + 1))[:size]


# -- copies, checksums, the manifest ---------------------------------------------------------------------------------------


def test_every_file_is_in_both_places_with_its_time_and_on_record(bench: Bench) -> None:
    bench.write("a.txt", "alpha")
    bench.write("deep/er/b.bin", pattern(9 * MB))
    bench.write("empty")
    os.utime(bench.session / "a.txt", ns=(1, 1_600_000_000_123_456_700))
    report = bench.run(checksum_algo="sha256")
    assert report.complete
    assert (report.copied, report.already, report.problems) == (6, 0, [])
    bench.assert_equal()
    assert (bench.network / "a.txt").stat().st_mtime_ns == (bench.session / "a.txt").stat().st_mtime_ns
    entry = bench.manifest()["files"]["deep/er/b.bin"]
    assert entry["status"] == "complete"
    assert entry["checksum"] == hashlib.sha256(pattern(9 * MB)).hexdigest()
    assert entry["network_path"] == str(bench.network / "deep/er/b.bin")
    assert entry["backup_path"] == str(bench.backup / "deep/er/b.bin")
    assert entry["network_copy"] is entry["backup_copy"] is True
    assert not bench.manifest_path.with_name(bench.manifest_path.name + "l").exists()


def test_the_default_checksum_is_xxh3_of_128_bits(bench: Bench) -> None:
    bench.write("a", "alpha")
    bench.run()
    entry = bench.manifest()["files"]["a"]
    assert (entry["checksum_algo"], entry["checksum"]) == ("xxh3", xxhash.xxh3_128(b"alpha").hexdigest())


def test_a_second_run_copies_and_reads_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a", "alpha")
    bench.write("big", pattern(5 * MB))
    bench.run()
    monkeypatch.setattr(Archiver, "_archive", lambda *_: pytest.fail("a verified file was touched"))
    report = bench.run()
    assert report.complete
    assert (report.copied, report.already) == (0, 4)
    assert bench.manifest()["files"]["big"]["status"] == "complete"


def test_skip_completed_false_reads_both_sides_again(bench: Bench) -> None:
    bench.write("a", "alpha")
    bench.run()
    (bench.network / "a").write_text("alphA")
    assert bench.run().complete, "nobody looked, as asked"
    report = bench.run(skip_completed=False)
    assert "another file of the same size" in reasons(report)["a", "network"]


def test_a_copy_that_somebody_removed_is_made_again(bench: Bench) -> None:
    bench.write("a", "alpha")
    bench.run()
    (bench.backup / "a").unlink()
    assert bench.run().copied == 1
    bench.assert_equal()


def test_another_place_is_filled_although_the_old_one_is_on_record(bench: Bench, tmp_path: Path) -> None:
    bench.write("a", "alpha")
    bench.run()
    report = bench.run(network_dir=str(tmp_path / "elsewhere"))
    assert (report.copied, report.already) == (1, 1)
    bench.assert_equal(tmp_path / "elsewhere", bench.backup)


def test_one_copy_alone_when_the_other_is_switched_off(bench: Bench) -> None:
    bench.write("a", "alpha")
    assert bench.run(copy_to_backup=False).complete
    assert not bench.backup.exists()
    assert bench.manifest()["files"]["a"]["status"] == "complete"


def test_the_progress_ends_at_all_bytes_and_knows_the_rate(bench: Bench) -> None:
    bench.write("a", pattern(3 * MB))
    bench.run()
    last = bench.told[-1]
    assert (last.files_done, last.bytes_done, last.bytes) == (1, 6 * MB, 6 * MB)
    assert last.rate > 0
    assert last.left_s == 0
    assert "1 of 1 files" in str(last)
    assert "100 %" in str(last)


# -- what lies at the target already ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 3 * MB])
@pytest.mark.parametrize("other", ["same size", "another size"])
def test_a_different_file_at_the_target_is_named_and_stays(bench: Bench, size: int, other: str) -> None:
    bench.write("a", pattern(size))
    bench.write("b", "beta")
    bench.network.mkdir()
    foreign = pattern(size if other == "same size" else size + 1, seed=2)
    (bench.network / "a").write_bytes(foreign)
    report = bench.run()
    assert "another file" in reasons(report)["a", "network"]
    assert str(bench.network / "a") in reasons(report)["a", "network"]
    assert (bench.network / "a").read_bytes() == foreign
    assert (bench.backup / "a").read_bytes() == pattern(size), "the other copy is made all the same"
    assert (bench.network / "b").read_text() == "beta"
    assert bench.manifest()["files"]["a"]["status"] == "error"


def test_the_same_file_at_the_target_is_put_on_record_and_not_written(bench: Bench) -> None:
    bench.write("a", "alpha")
    bench.network.mkdir()
    (bench.network / "a").write_text("alpha")
    before = (bench.network / "a").stat()
    report = bench.run()
    assert report.complete
    assert (report.copied, report.already) == (1, 1)
    after = (bench.network / "a").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_appears_while_ours_is_copied_is_not_replaced(bench: Bench) -> None:
    """Another program writes the same name between our look and our rename."""

    class Raced(FolderTarget):
        def publish(self, name: str, replace: bool) -> None:
            (Path(self.place) / name).write_text("foreign")
            super().publish(name, replace)

    bench.write("a", "alpha")
    bench.target = Raced
    report = bench.run()
    assert set(reasons(report)) == {("a", "network"), ("a", "backup")}
    assert tree(bench.network) == {"a": b"foreign"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX: a folder of Windows holds one of them only")
def test_names_that_differ_in_case_only_do_not_overwrite_each_other(bench: Bench) -> None:
    """On a share that does not tell them apart, the second one meets another file."""

    class Blind(FolderTarget):
        def _final(self, name: str) -> str:
            return super()._final(name.lower())

    bench.write("A", "alpha")
    bench.write("a", "another alpha")
    bench.target = Blind
    report = bench.run(workers=1)
    assert [problem.reason.partition(" (")[0] for problem in report.problems] == ["another file is there already"] * 2 or [
        problem.reason.partition(":")[0] for problem in report.problems
    ] == ["another file is there already"] * 2
    assert tree(bench.network) == {"a": b"alpha"}


@pytest.mark.skipif(sys.platform == "win32", reason="rename itself refuses there")
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("answer", [errno.EINVAL, None])
def test_a_share_that_cannot_rename_without_replacing_or_link_is_published_to_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: int | None, links: bool
) -> None:
    def refused(*_: object, **__: object) -> int:
        assert answer
        ctypes.set_errno(answer)
        return -1

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    function = folders._linux_function
    rename = refused if answer else None
    monkeypatch.setattr(folders, "_linux_function", lambda name: rename if name == "renameat2" else function(name))
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    bench.write("a", "alpha")
    bench.write("big", pattern(3 * MB))
    assert bench.run().complete
    bench.assert_equal()
    bench.write("c", "gamma")
    (bench.network / "c").write_text("foreign")
    assert "another file" in reasons(bench.run())["c", "network"]
    assert (bench.network / "c").read_text() == "foreign"


def test_a_name_is_given_in_one_step_and_never_taken_from_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":
        monkeypatch.setattr(os, "link", lambda *_: pytest.fail("there was a moment with two names"))
    partial, final = tmp_path / "partial", tmp_path / "ä"
    partial.write_text("ours")
    folders.give_name(str(partial), str(final))
    assert tree(tmp_path) == {"ä": b"ours"}
    partial.write_text("newer")
    with pytest.raises(FileExistsError) as caught:
        folders.give_name(str(partial), str(final))
    assert "ä" in str(caught.value)
    assert tree(tmp_path) == {"ä": b"ours", "partial": b"newer"}
    with pytest.raises(FileNotFoundError):
        folders.give_name(str(tmp_path / "absent"), str(tmp_path / "b"))


def test_a_copy_of_a_record_that_has_grown_is_renewed_but_never_a_foreign_one(bench: Bench) -> None:
    def run() -> Report:
        return Archiver(bench.parameters(), may_change=lambda name: name.startswith("launcher_metadata/")).run()

    log = bench.write("launcher_metadata/launcher.log", "one\n")
    data = bench.write("data", "one")
    assert run().complete
    log.write_text("one\ntwo\n")
    data.write_text("one and two")
    report = run()
    assert set(reasons(report)) == {("data", "network"), ("data", "backup")}, "data do not change once archived"
    assert (bench.network / "launcher_metadata/launcher.log").read_text() == "one\ntwo\n"
    log.write_text("one\ntwo\nthree\n")
    (bench.network / "launcher_metadata/launcher.log").write_text("foreign")
    assert ("launcher_metadata/launcher.log", "network") in reasons(run())
    assert (bench.network / "launcher_metadata/launcher.log").read_text() == "foreign"
    assert (bench.backup / "launcher_metadata/launcher.log").read_text() == "one\ntwo\nthree\n"


# -- what goes wrong with one file -------------------------------------------------------------------------------------------


def disturbed(when: str, disturb: Callable[[FolderTarget, str], None]) -> type[FolderTarget]:
    """A target at which something happens just before one of its methods."""

    class Disturbed(FolderTarget):
        def begin(self, name: str, source: Source, replace: bool) -> Any:
            if when == "begin":
                disturb(self, name)
            return super().begin(name, source, replace)

        def settle(self, names: Sequence[str]) -> None:
            super().settle(names)
            if when == "settled":
                for name in names:
                    disturb(self, name)

    return Disturbed


@pytest.mark.parametrize("size", [10, 6 * MB])
def test_what_the_disk_garbled_is_found_discarded_and_copied_again(bench: Bench, size: int) -> None:
    garbled: list[str] = []

    def garble(target: FolderTarget, name: str) -> None:
        if name == "a" and target.name == "network" and not garbled:
            garbled.append(name)
            with open(target._partial(name), "r+b") as stream:
                stream.seek(size // 2)
                stream.write(b"\xff\x00")

    bench.write("a", pattern(size))
    bench.target = disturbed("settled", garble)
    report = bench.run()
    assert garbled
    assert report.complete
    bench.assert_equal()


def test_a_disk_that_always_garbles_is_named_and_never_gets_the_name(bench: Bench) -> None:
    def garble(target: FolderTarget, name: str) -> None:
        if target.name == "network" and name == "a":
            Path(target._partial(name)).write_bytes(b"alphA")

    bench.write("a", "alpha")
    bench.write("b", "beta")
    bench.target = disturbed("settled", garble)
    report = bench.run()
    assert reasons(report) == {("a", "network"): "what was read back differs from what was written"}
    assert tree(bench.network) == {"b": b"beta"}
    assert tree(bench.backup) == {"a": b"alpha", "b": b"beta"}


def test_a_file_that_changes_all_the_time_is_named_and_not_published(bench: Bench) -> None:
    path = bench.write("growing", "x")
    bench.write("b", "beta")

    def grow(target: FolderTarget, name: str) -> None:
        if name == "growing":
            with open(path, "ab") as stream:
                stream.write(b"x")

    bench.target = disturbed("begin", grow)
    report = bench.run()
    assert reasons(report) == {("growing", "original"): "changed while it was copied"}
    assert "growing" not in tree(bench.network)
    bench.target = FolderTarget
    assert bench.run().complete
    bench.assert_equal()


def test_a_file_that_changed_once_is_copied_as_it_is_now(bench: Bench) -> None:
    path = bench.write("a", "old")
    changed: list[str] = []

    def change(target: FolderTarget, name: str) -> None:
        if not changed:
            changed.append(name)
            path.write_text("newer")

    bench.target = disturbed("begin", change)
    assert bench.run().complete
    bench.assert_equal()
    assert (bench.network / "a").read_text() == "newer"


def test_a_file_that_vanishes_is_named_and_the_others_are_archived(bench: Bench) -> None:
    bench.write("a", "alpha")
    gone = bench.write("b", "beta")
    bench.write("c", "gamma")
    bench.target = disturbed("begin", lambda target, name: gone.unlink(missing_ok=True))
    report = bench.run(workers=1)
    assert reasons(report) == {("b", "original"): "has vanished"}
    assert set(tree(bench.network)) == {"a", "c"}


def test_a_locked_file_is_named_as_such_and_archived_once_it_is_free(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows says it: ERROR_SHARING_VIOLATION."""
    locked = bench.write("a", "alpha")
    bench.write("b", "beta")
    opened = os.open

    def refuse(path: Any, *rest: Any, **named: Any) -> int:
        if str(path).endswith(str(locked)):  # on Windows in its long form
            error = PermissionError(errno.EACCES, "used by another process")
            error.winerror = 32  # type: ignore[attr-defined]
            raise error
        return opened(path, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    report = bench.run()
    assert reasons(report) == {("a", "original"): "is locked by another program"}
    assert set(tree(bench.network)) == {"b"}
    monkeypatch.undo()
    assert bench.run().complete
    bench.assert_equal()


def test_a_target_that_cannot_be_written_costs_nothing_of_the_other(bench: Bench) -> None:
    for number in range(40):
        bench.write(f"f{number}", str(number))
    bench.network.write_text("a file where the folder should be")
    report = bench.run()
    assert {problem.place for problem in report.problems} == {"network"}
    assert len(report.problems) == 40
    bench.assert_equal(bench.backup)


def test_a_dead_target_is_not_asked_for_each_of_its_files(bench: Bench) -> None:
    asked: list[str] = []

    class Dead(FolderTarget):
        def begin(self, name: str, source: Source, replace: bool) -> Any:
            if self.name == "network":
                asked.append(name)
                raise OSError(errno.EHOSTDOWN, "Host is down")
            return super().begin(name, source, replace)

        def probe(self) -> None:
            if self.name == "network":
                raise OSError(errno.EHOSTDOWN, "Host is down")

    for number in range(500):
        bench.write(f"f{number:03}", str(number))
    bench.target = Dead
    report = bench.run(max_retries=0, workers=1)
    assert len(asked) == 8
    assert len(report.problems) == 500
    assert "cannot be written to: Host is down" in str(report.problems[-1])
    bench.assert_equal(bench.backup)


def test_a_full_disk_is_told_as_such(bench: Bench) -> None:
    class Full(FolderTarget):
        def begin(self, name: str, source: Source, replace: bool) -> Any:
            copying = super().begin(name, source, replace)
            if self.name == "backup" and name == "big":
                copying.put = lambda block: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space"))
            return copying

    bench.write("big", pattern(3 * MB))
    bench.write("small", "s")
    bench.target = Full
    assert reasons(bench.run()) == {("big", "backup"): "does not fit: no space is left there"}
    assert (bench.backup / "small").exists()


# -- names --------------------------------------------------------------------------------------------------------------------


def test_long_and_foreign_names(bench: Bench) -> None:
    bench.write("ä" * 100 + "/" + "日本語" * 20 + "/" + "n" * 251 + ".bin", "long")
    bench.write("deep/" * 60 + "file", "deep")
    bench.write("with blank & 'quote' [x] #1 %20.txt", "odd")
    bench.write("🐭.csv", "mouse")
    assert bench.run().complete
    bench.assert_equal()
    assert bench.run().already == 8


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_text(bench: Bench) -> None:
    with open(os.path.join(os.fsencode(bench.session), b"bad\xff\xfe"), "wb") as stream:
        stream.write(b"x")
    assert bench.run().complete
    assert [os.fsencode(path.name) for path in bench.network.iterdir()] == [b"bad\xff\xfe"]
    assert bench.run().already == 2


def test_a_name_that_the_target_cannot_hold_is_named(bench: Bench) -> None:
    class Short(FolderTarget):
        def publish(self, name: str, replace: bool) -> None:
            if self.name == "network" and len(name) > 140:
                raise OSError(errno.ENAMETOOLONG, "File name too long")
            super().publish(name, replace)

    bench.write("n" * 200, "long")
    bench.target = Short
    assert reasons(bench.run()) == {("n" * 200, "network"): "has a name or path that is too long there"}


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes need rights there")
def test_links_and_pipes(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("x")
    bench.write("a", "alpha")
    (bench.session / "link").symlink_to(bench.session / "a")
    (bench.session / "folder").symlink_to(tmp_path / "outside")
    (bench.session / "broken").symlink_to(tmp_path / "nothing")
    os.mkfifo(bench.session / "pipe")
    report = bench.run()
    assert set(reasons(report)) == {("folder", "original"), ("broken", "original")}
    assert set(report.passed_over) == {"pipe"}
    assert tree(bench.network) == {"a": b"alpha", "link": b"alpha"}


# -- which files --------------------------------------------------------------------------------------------------------------


def test_includes_and_excludes_are_names_or_paths(bench: Bench) -> None:
    for name in ("a.csv", "video/a.avi", "video/tmp/b.avi", "notes.txt"):
        bench.write(name, name)
    assert bench.run(include_patterns=["*.avi", "*.csv"], exclude_patterns="video/tmp/*").complete
    assert set(tree(bench.network)) == {"a.csv", "video/a.avi"}


def test_the_routing_manifest_says_what_comes_first(bench: Bench) -> None:
    for name in ("a", "b", "z/last"):
        bench.write(name, name)
    entries = [{"type": "slap2", "files": ["z\\last", "missing.h5"]}, {"type": "notes", "files": ["b"]}]
    routing = bench.write("launcher_metadata/routing_manifest.json", json.dumps({"entries": entries}))
    order: list[str] = []
    bench.target = disturbed("begin", lambda target, name: order.append(name) if target.name == "network" else None)
    report = bench.run(routing_manifest=str(routing), workers=1)
    assert order == ["z/last", "b", "a", "launcher_metadata/routing_manifest.json"]
    assert report.remarks == ["the routing manifest names missing.h5, which is not there"]
    routing.write_text("{")
    assert "is no routing manifest" in bench.run(routing_manifest=str(routing)).remarks[0]


def test_a_dry_run_touches_nothing(bench: Bench) -> None:
    bench.write("a", "alpha")
    before = tree(bench.session)
    report = bench.run(dry_run=True)
    assert report.would == [f"a -> {bench.network / 'a'}, {bench.backup / 'a'}"]
    assert tree(bench.session) == before
    assert not bench.network.exists()


# -- removing originals --------------------------------------------------------------------------------------------------------


def test_originals_stay_unless_asked(bench: Bench) -> None:
    bench.write("a", "alpha")
    bench.run()
    assert (bench.session / "a").exists()


def test_an_original_goes_only_when_both_copies_are_verified(bench: Bench) -> None:
    bench.write("a", "alpha")
    bench.write("sub/b", "beta")
    bench.network.mkdir()
    (bench.network / "a").write_text("foreign")
    report = bench.run(remove_originals=True, remove_empty_dirs=True)
    assert (bench.session / "a").read_text() == "alpha", "one of its copies is missing"
    assert not (bench.session / "sub").exists()
    assert report.removed == 1
    assert bench.manifest()["files"]["sub/b"]["original_removed"] is True
    (bench.network / "a").unlink()
    assert bench.run(remove_originals=True).removed == 1
    assert tree(bench.network) == tree(bench.backup) == {"a": b"alpha", "sub/b": b"beta"}
    assert bench.manifest()["files"]["sub/b"]["status"] == "complete", "an earlier run's entries stay"


def test_an_original_stays_when_a_copy_was_altered_after_an_earlier_run(bench: Bench) -> None:
    bench.write("a", "alpha")
    bench.run()
    (bench.backup / "a").write_text("alphA")
    report = bench.run(remove_originals=True)
    assert "not what it was" in reasons(report)["a", "backup"]
    assert (bench.session / "a").exists()


def test_an_original_that_changed_after_it_was_copied_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.write("a", "alpha")
    holds = Archiver._holds

    def change(self: Archiver, source: Source, target: Any) -> bool:
        path.write_text("alpha and more")
        return holds(self, source, target)

    monkeypatch.setattr(Archiver, "_holds", change)
    report = bench.run(remove_originals=True)
    assert "changed after it was copied" in reasons(report)["a", "original"]
    assert path.read_text() == "alpha and more"


# -- interruptions ------------------------------------------------------------------------------------------------------------

CHILD = """
import sys, json, threading
from pathlib import Path
from pytest_openscope.modules.archiving import folders
from pytest_openscope.modules.archiving.engine import Archiver
from pytest_openscope.modules.archiving.parameters import read_parameters
hold_at, put = int(sys.argv[3]), folders.FileCopying.put
def held(copying, block):
    put(copying, block)
    if hold_at and copying._position >= hold_at:
        threading.Event().wait(60)
folders.FileCopying.put = held
report = Archiver(read_parameters(json.loads(sys.argv[2]), Path(sys.argv[1]))).run()
print(json.dumps(report.as_json()))
"""


def start(bench: Bench, hold_at: int = 0, **given: Any) -> subprocess.Popen[bytes]:
    """Archive in a process of its own, which stands still in a large file after ``hold_at`` bytes."""
    places = {"network_dir": str(bench.network), "backup_dir": str(bench.backup), "retry_delay_s": 0.01, **given}
    command = [sys.executable, "-c", CHILD, str(bench.session), json.dumps(places), str(hold_at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def finish(bench: Bench, **given: Any) -> dict[str, Any]:
    process = start(bench, **given)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    loaded: dict[str, Any] = json.loads(out)
    return loaded


def partials(bench: Bench) -> list[Path]:
    return [path for folder in (bench.network, bench.backup) for path in folder.rglob(".openscope-*") if path.is_file()]


def kill_when(process: subprocess.Popen[bytes], happened: Callable[[], bool]) -> bool:
    """``kill -9`` at the moment that something has happened; False when the process was faster."""
    while process.poll() is None:
        if happened():
            process.kill()
            process.wait()
            return True
    return False


@pytest.mark.parametrize("part", [0.02, 0.4, 0.9])
def test_a_kill_in_the_middle_of_a_file(bench: Bench, part: float) -> None:
    size = 80 * MB
    bench.write("big", pattern(MB) * 80)
    bench.write("small", "s")

    def sizes() -> Iterator[int]:
        for path in partials(bench):
            with contextlib.suppress(FileNotFoundError):
                yield path.stat().st_size

    halfway = int(part * size)
    assert kill_when(start(bench, hold_at=halfway), lambda: any(there >= halfway for there in sizes()))
    assert "big" not in tree(bench.network), "an incomplete file has the name of a whole one"
    report = finish(bench)
    assert report["complete"]
    bench.assert_equal()
    assert not partials(bench)


def test_a_kill_between_files_copies_nothing_twice(bench: Bench) -> None:
    for number in range(24):
        bench.write(f"{number:02}", pattern(3 * MB, number))

    def journal() -> Path:
        return bench.manifest_path.with_name(bench.manifest_path.name + "l")

    assert kill_when(start(bench, workers=1), lambda: journal().exists() and journal().read_bytes().count(b"\n") > 12)
    on_record = sum(1 for line in journal().read_bytes().splitlines() if line.endswith(b"}"))
    made = {path: path.stat().st_ino for folder in (bench.network, bench.backup) for path in folder.iterdir()}
    report = finish(bench)
    assert report["complete"]
    assert report["copies_already_there"] >= on_record
    assert report["copies_made"] + report["copies_already_there"] == 48
    assert all(path.stat().st_ino == inode for path, inode in made.items() if not PARTIAL.fullmatch(path.name))
    bench.assert_equal()


@pytest.mark.parametrize("left", [b"", b"garbage", pattern(5 * MB)[: 2 * MB], pattern(5 * MB) + b"too long", pattern(5 * MB)])
def test_whatever_an_interrupted_copy_left_is_made_right(bench: Bench, left: bytes) -> None:
    bench.write("big", pattern(5 * MB))
    bench.network.mkdir()
    target = FolderTarget("network", str(bench.network), str(bench.session))
    Path(target._partial("big")).write_bytes(left)
    assert bench.run().complete
    bench.assert_equal()


@pytest.mark.skipif(sys.platform == "win32", reason="it renames in one step there")
def test_a_kill_between_the_two_names_of_a_copy_leaves_one(bench: Bench) -> None:
    bench.write("a", "alpha")
    bench.network.mkdir()
    (bench.network / "a").write_text("alpha")
    target = FolderTarget("network", str(bench.network), str(bench.session))
    os.link(bench.network / "a", target._partial("a"))
    assert bench.run().already == 1
    bench.assert_equal()


def test_what_is_right_of_an_interrupted_copy_is_not_written_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("big", pattern(9 * MB))
    bench.network.mkdir()
    target = FolderTarget("network", str(bench.network), str(bench.session))
    Path(target._partial("big")).write_bytes(pattern(9 * MB)[: 7 * MB])
    written: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(len(data)) or write(fd, data))
    assert bench.run(copy_to_backup=False).complete
    assert sum(size for size in written if size > 1000) == 2 * MB


def test_torn_and_damaged_lines_of_the_manifests_journal_cost_a_look_only(bench: Bench) -> None:
    bench.write("a", "alpha")
    bench.write("b", "beta")
    archiver = bench.archiver()
    archiver.manifest.close = lambda *_: None  # type: ignore[method-assign]
    archiver.run()
    journal = bench.manifest_path.with_name(bench.manifest_path.name + "l")
    data = journal.read_bytes()
    journal.write_bytes(b"not json\n" + data[:-20])
    bench.write("c", "gamma")
    assert bench.run().complete
    bench.assert_equal()
    assert {entry["status"] for entry in bench.manifest()["files"].values()} == {"complete"}


def test_a_manifest_of_the_launcher_is_gone_on_with(bench: Bench) -> None:
    bench.write("a", "alpha")
    bench.network.mkdir()
    (bench.network / "a").write_text("alpha")
    entry = {"status": "complete", "checksum": hashlib.sha256(b"alpha").hexdigest(), "network_path": str(bench.network / "a")}
    bench.write("launcher_metadata/session_archiver_manifest.json", json.dumps({"created_at": "then", "files": {"a": entry}}))
    assert bench.run().complete
    assert bench.manifest()["created_at"] == "then"
    bench.assert_equal()


def test_a_file_that_is_no_manifest_stays_untouched(bench: Bench) -> None:
    path = bench.write("launcher_metadata/session_archiver_manifest.json", "[1, 2]")
    with pytest.raises(ValueError):
        bench.run()
    assert path.read_text() == "[1, 2]"


def test_stop_ends_within_a_moment_and_the_rest_follows(bench: Bench) -> None:
    for number in range(30):
        bench.write(f"{number:02}", pattern(MB) * 4)
    archiver = bench.archiver(workers=2)
    archiver._on_progress = lambda _: archiver.stop.set()
    began = time.monotonic()
    report = archiver.run()
    assert time.monotonic() - began < 20
    assert report.stopped
    assert not report.complete
    assert bench.run().complete
    bench.assert_equal()


@pytest.mark.stress
@pytest.mark.parametrize("count", [400, 3000], ids=["threads", "helpers"])
def test_kills_at_random_moments_until_all_is_there(bench: Bench, count: int) -> None:
    import random

    rng = random.Random(7)
    for number in range(count):
        bench.write(f"s{number % 7}/{number}", pattern(rng.randrange(20_000), number))
    for number in range(6):
        bench.write(f"big{number}", pattern(MB, number) * rng.randrange(5, 60))
    kills = 0
    for _ in range(60):
        process = start(bench)
        try:
            process.wait(rng.uniform(0.15, 0.9))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:
            break
        originals = tree(bench.session)
        for folder in (bench.network, bench.backup):
            for name, data in (tree(folder) if folder.exists() else {}).items():
                if not PARTIAL.fullmatch(Path(name).name):
                    assert originals[name] == data, f"{name} has its name and is not whole"
    assert finish(bench)["complete"]
    assert kills
    bench.assert_equal()


# -- many small files, by helper processes ------------------------------------------------------------------------------------


@pytest.fixture
def helped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Every unit of small files goes to a helper first."""
    monkeypatch.setattr(engine, "_HELPED_FILES", 1)
    return bench


def many(bench: Bench, count: int) -> None:
    for number in range(count):
        bench.write(f"s{number % 7}/{number:04}", pattern(number * 37 % 20_000, number))


def untouched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that the helpers leave to the engine itself, noted as it sees to them."""
    left: list[str] = []
    copy = Archiver._copy
    monkeypatch.setattr(Archiver, "_copy", lambda self, task, *rest: left.append(task.source.name) or copy(self, task, *rest))
    return left


def test_helpers_copy_verify_and_record_plain_files_alone(helped: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    left = untouched(monkeypatch)
    many(helped, 600)
    helped.write("empty")
    helped.write("ä/日本語/" + "n" * 251, "odd")
    os.utime(helped.session / "empty", ns=(1, 1_600_000_000_123_456_700))
    archiver = helped.archiver(checksum_algo="sha256")
    report = archiver.run()
    assert report.complete
    assert (report.copied, report.already, left) == (1204, 0, [])
    assert archiver.progress().files_done == 602
    assert archiver.progress().bytes_done == archiver.progress().bytes
    helped.assert_equal()
    assert (helped.backup / "empty").stat().st_mtime_ns == (helped.session / "empty").stat().st_mtime_ns
    files = helped.manifest()["files"]
    assert {name: entry["checksum"] for name, entry in files.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in tree(helped.network).items()
    }
    assert not partials(helped)


@pytest.mark.timeout(600)  # a minute and a half under Wine
def test_many_small_files_go_to_helpers_and_few_do_not(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    start_helper = Archiver._start_helper
    monkeypatch.setattr(Archiver, "_start_helper", lambda *args: started.append(args) or start_helper(*args))
    bench.write("a", "alpha")
    bench.run()
    assert not started
    many(bench, 2100)
    assert bench.run().complete
    assert len(started) == 4, "one for each worker"
    bench.assert_equal()


def test_helpers_leave_whatever_is_in_the_way_to_the_engine(helped: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    many(helped, 50)
    foreign, same, left_over, changed = "s0/0007", "s1/0008", "s2/0009", "s3/0010"
    for name in (foreign, same, left_over):
        (helped.network / name).parent.mkdir(parents=True)
    (helped.network / foreign).write_bytes(b"foreign")
    (helped.network / same).write_bytes((helped.session / same).read_bytes())
    inode = (helped.network / same).stat().st_ino
    partial = Path(FolderTarget("network", str(helped.network), str(helped.session))._partial(left_over))
    partial.write_bytes((helped.session / left_over).read_bytes()[:100] + b"rubbish")
    archiver = helped.archiver()
    find = archiver._lacking

    def change(files: Iterable[Source]) -> Any:
        tasks = find(files)
        (helped.session / changed).write_bytes(b"newer")
        return tasks

    monkeypatch.setattr(archiver, "_lacking", change)
    left = untouched(monkeypatch)
    report = archiver.run()
    assert set(left) == {foreign, same, changed}
    assert set(reasons(report)) == {(foreign, "network")}
    assert (report.copied, report.already) == (98, 1)
    assert (helped.network / foreign).read_bytes() == b"foreign"
    assert (helped.network / same).stat().st_ino == inode
    (helped.network / foreign).unlink()
    assert helped.run().complete
    helped.assert_equal()


def numbers_made(bench: Bench, *names: str) -> list[list[int]]:
    """Let a helper's part copy these files; return which of them it has made, for each target."""
    facts = {name: (bench.session / name).stat() for name in names}
    wanted = [(name, one.st_size, one.st_mtime_ns, [0, 1]) for name, one in facts.items()]
    places = [FolderTarget(place.name, str(place), "s") for place in (bench.network, bench.backup)]
    (made,) = folders.make_copies(wanted, str(bench.session), "xxh3", places)
    return [[number for number, _ in copies] for copies in made]


def test_a_helper_never_names_what_the_disk_garbled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a", "alpha")
    bench.write("b", "beta")
    settle = FolderTarget.settle

    def garble(self: FolderTarget, names: Sequence[str]) -> None:
        settle(self, names)
        if self.name == "network":
            (bench.network / folders.partial_name("a", "s")).write_bytes(b"alphA")

    monkeypatch.setattr(FolderTarget, "settle", garble)
    assert numbers_made(bench, "a", "b") == [[1], [0, 1]]
    assert tree(bench.network) == {"b": b"beta"}
    assert tree(bench.backup) == {"a": b"alpha", "b": b"beta"}


def test_a_helper_replaces_nothing_that_appears_meanwhile(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a", "alpha")
    settle = FolderTarget.settle

    def race(self: FolderTarget, names: Sequence[str]) -> None:
        (bench.network / "a").write_text("other")
        settle(self, names)

    monkeypatch.setattr(FolderTarget, "settle", race)
    assert numbers_made(bench, "a") == [[], [0]]
    assert tree(bench.network) == {"a": b"other"}


def test_a_helper_does_not_ask_a_dead_target_for_each_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    begin = FolderTarget.begin

    def dead(self: FolderTarget, name: str, *rest: Any) -> folders.FileCopying:
        if self.name == "network":
            asked.append(name)
            raise OSError(errno.EHOSTDOWN, "Host is down")
        return begin(self, name, *rest)

    monkeypatch.setattr(FolderTarget, "begin", dead)
    names = [bench.write(f"f{number:02}", str(number)).name for number in range(40)]
    assert numbers_made(bench, *names) == [[], list(range(40))]
    assert len(asked) == 1


def test_a_target_that_helpers_cannot_write_is_named_and_costs_nothing_of_the_other(helped: Bench) -> None:
    many(helped, 60)
    helped.network.write_text("a file where the folder should be")
    report = helped.run()
    assert {problem.place for problem in report.problems} == {"network"}
    assert len(report.problems) == 60
    helped.assert_equal(helped.backup)
    helped.network.unlink()
    assert helped.run().complete
    helped.assert_equal()


def test_no_helper_can_be_started(helped: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders.Helper, "__init__", lambda *_: (_ for _ in ()).throw(OSError(errno.EAGAIN, "no process")))
    many(helped, 20)
    assert helped.run().complete
    helped.assert_equal()


def test_a_helper_that_dies_costs_a_look_only(helped: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    many(helped, 300)
    copy = folders.Helper.copy

    def die(self: folders.Helper, files: Any) -> Any:
        made = copy(self, files)
        self.kill()
        return made

    monkeypatch.setattr(folders.Helper, "copy", die)
    assert helped.run().complete
    helped.assert_equal()
    assert not partials(helped)


@pytest.mark.timeout(600)
def test_helpers_end_with_the_process_that_was_killed(bench: Bench) -> None:
    many(bench, 3000)
    process = start(bench)

    def helpers() -> list[psutil.Process]:
        return [one for one in psutil.Process(process.pid).children() if "folders" in " ".join(one.cmdline())]

    found: list[psutil.Process] = []

    def copying() -> bool:
        found[:] = helpers()
        return bool(found) and bool(partials(bench))

    assert kill_when(process, copying), "the run was over before the kill"
    gone, alive = psutil.wait_procs(found, timeout=30)
    assert len(gone) == len(found)
    assert not alive
    originals = tree(bench.session)
    for folder in (bench.network, bench.backup):
        for name, data in tree(folder).items():
            if not PARTIAL.fullmatch(Path(name).name):
                assert originals[name] == data, f"{name} has its name and is not whole"
    assert finish(bench)["complete"]
    bench.assert_equal()
    assert not partials(bench)


def test_stop_ends_helpers_too_and_the_rest_follows(helped: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    many(helped, 600)
    archiver = helped.archiver(workers=2)
    begin = archiver._start_helper

    def begin_and_stop() -> Any:
        helper = begin()
        archiver.stop.set()
        return helper

    monkeypatch.setattr(archiver, "_start_helper", begin_and_stop)
    report = archiver.run()
    assert report.stopped
    # The second one is not begun where the first one's start already heard the stop.
    assert {helper._process.returncode for helper in archiver._helpers} == {-signal.SIGKILL if sys.platform != "win32" else 1}
    assert helped.run().complete
    helped.assert_equal()


# -- parameters ---------------------------------------------------------------------------------------------------------------


def problems_of(given: dict[str, Any]) -> dict[str, str]:
    return {one.key: one.remedy for one in parameters.read_parameters(ArchiverParameters, {}, given)[1]}


def test_every_mistake_is_named_at_once() -> None:
    found = problems_of({"netwrok_dir": "/x", "max_retries": -1, "checksum_algo": "md4", "when": "later", "rig": 1})
    assert set(found) == {"netwrok_dir", "max_retries", "checksum_algo", "when"}
    assert found["netwrok_dir"] == "did you mean network_dir?"


def test_placeholders_are_no_mistakes() -> None:
    assert problems_of({"network_dir": "{rig_param:archive}", "max_retries": "{retries}", "backup_dir": "$ARCHIVE/x"}) == {}


def test_a_plain_secret_is_refused_a_variable_is_not() -> None:
    assert set(problems_of({"network_storage_options": {"secret": "hunter2"}})) == {"network_storage_options"}
    assert problems_of({"network_storage_options": {"secret": "env:ARCHIVE_SECRET", "endpoint_url": "http://x"}}) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backup_dir": None}, "backup_dir is missing"),
        ({"network_dir": None, "backup_dir": None}, "network_dir is missing (or set copy_to_network to false); backup_dir"),
        ({"copy_to_network": False, "copy_to_backup": False}, "nothing would be archived"),
        ({"copy_to_backup": False, "remove_originals": True}, "remove_originals needs both copies"),
        ({"backup_dir": "inside"}, "lies in the folder that is archived"),
        ({"backup_dir": "../network"}, "are the same place"),
        ({"backup_dir": ".."}, "holds the folder that is archived"),
    ],
)
def test_what_cannot_be_archived_is_refused(bench: Bench, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ModuleFailed) as failed:
        bench.parameters(**given)
    assert message in str(failed.value)


@pytest.mark.skipif(sys.platform == "win32", reason="these are paths there")
@pytest.mark.parametrize("place", [r"\\allen\aind\scratch", r"C:\Archive", "C:/Archive"])
def test_a_windows_path_is_refused_elsewhere(bench: Bench, place: str) -> None:
    with pytest.raises(ModuleFailed, match="is a Windows path"):
        bench.parameters(network_dir=place)
