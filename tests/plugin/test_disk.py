"""The disk of the session folder is full in the middle: the run goes on, and what is on the disk is true."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from share_kit import assert_mirrored, mirror_status, processes_of, session_log, use_share

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a tmpfs is the small disk, of which Windows has no like")

#: The last step looks at what earlier steps left room for; ``ran`` is written elsewhere.
FILLING = """
import pathlib

def test_acquire():
    log = logging.getLogger("lab")
    while not list(pathlib.Path("sessions").glob("*/*/resource_usage.json")):
        time.sleep(0.01)
    for number in range({records}):
        log.info("record %d %s", number, "x" * 100)

def test_room():
    {room}

@pytest.mark.post_acquisition
def test_save():
    logging.getLogger("lab").info("the last words")
    open("ran", "w").close()
"""


@pytest.fixture
def small_disk(bench: Any) -> Iterator[Path]:
    """``sessions`` on a disk of 2 MB."""
    path = bench.path / "sessions"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    if shutil.which("mount") is None:
        pytest.skip("no mount command")
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def assert_states_are_valid(bench: Any) -> None:
    names = sorted(path.name for path in (bench.folder / "launcher_metadata").glob("*.json"))
    assert {"end_state.json", "debug_state.json", "resource_usage.json"} <= set(names)
    for name in names:
        json.loads((bench.folder / "launcher_metadata" / name).read_text(encoding="utf-8"))
    assert not list((bench.folder / "launcher_metadata").glob(".*.tmp"))


def test_a_full_disk(bench: Any, small_disk: Path) -> None:
    bench.steps(FILLING.format(records=20_000, room="pass"))
    result = bench.run()
    assert (bench.path / "ran").exists()
    bench.wait_for(lambda: not processes_of(bench.path))
    end = bench.end
    assert (result.ret, end["outcome"], end["exit_code"]) == (1, "error", 1)
    assert set(bench.outcomes().values()) == {"passed"}
    log = session_log(bench.folder)
    assert log.endswith(b"\n")
    records = [entry.message for entry in bench.log if entry.logger == "lab"]
    kept = [text for text in records if text.startswith("record ")]
    assert kept == [f"record {number} {'x' * 100}" for number in range(len(kept))], "a torn or doubled record"
    lost = 20_000 - len(kept) + ("the last words" not in records)
    assert end["lost_records"] >= lost > 0
    printed = result.stdout.str() + result.stderr.str()
    assert printed.count("cannot be written") <= 2
    assert "No space left" in printed
    assert "log records lost" in printed
    assert "Traceback" not in printed
    assert len(result.errlines) < 10
    assert_states_are_valid(bench)
    assert "lost" in json.dumps(bench.debug["failure"])


def test_a_disk_that_has_room_again(bench: Any, small_disk: Path) -> None:
    """The log goes on, says how many records are missing in that place, and the ending is in it."""
    hog = small_disk / "hog"
    hog.write_bytes(bytes(1_000_000))
    room = f"os.unlink({str(hog)!r}); logging.getLogger('lab').info('room')"
    bench.steps(FILLING.format(records=10_000, room=room))
    result = bench.run()
    bench.wait_for(lambda: not processes_of(bench.path))
    assert (result.ret, bench.end["outcome"]) == (1, "error")
    messages = [entry.message for entry in bench.log]
    (note,) = [text for text in messages if "log records (" in text]
    assert str(bench.end["lost_records"]) in note
    assert messages.index(note) < messages.index("room") < messages.index("the last words")
    assert messages[-1].startswith("outcome: error, exit code 1, lost log records ")
    assert_states_are_valid(bench)


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["real", "dry run"])
def test_a_disk_that_is_full_before_is_refused(bench: Any, small_disk: Path, dry_run: tuple[str, ...]) -> None:
    (small_disk / "hog").write_bytes(bytes(1_500_000))
    bench.steps("def test_acquire():\n    pass\n")
    result = bench.run(*dry_run)
    assert result.ret == 4
    printed = result.stdout.str() + result.stderr.str()
    assert "the disk is full: 0.5" in printed
    assert "--output-root" in printed
    assert "Traceback" not in printed
    assert [path.name for path in small_disk.iterdir()] == ["hog"]
    assert not list(bench.path.glob("state/**/*.json"))
    (small_disk / "hog").unlink()
    assert bench.run(*dry_run).ret == 0


def test_a_full_disk_is_mirrored(bench: Any, small_disk: Path) -> None:
    share = use_share(bench, bench.path / "share")
    share.mkdir()
    bench.steps(FILLING.format(records=20_000, room="pass"))
    result = bench.run()
    assert result.ret == 1
    bench.wait_for(lambda: mirror_status(bench.folder) == "verified")
    bench.wait_for(lambda: not processes_of(bench.path))
    assert_mirrored(share, ("bench", bench.folder))
