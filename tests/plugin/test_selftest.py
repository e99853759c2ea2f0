"""``openscope selftest``: all of it on this computer, and on one that is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.cli.selftest.bench import Bench
from pytest_openscope.cli.selftest.checks import CHECKS

#: What only another system, or somebody who names a share, can show.
NOT_HERE = {"job-object"} if sys.platform != "win32" else {"interrupt-outside", "long-paths"}


def selftest(folder: Path, *arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run it with its temporary folder in ``folder``; return what it said and the rows of its JSON."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    names = {name: str(temporary) for name in ("TMPDIR", "TEMP", "TMP")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest_openscope", "selftest", "--output", str(folder / "table.json"), *arguments],
        cwd=folder,
        env={**os.environ, **names, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    print(done.stdout, done.stderr)
    assert not list(temporary.iterdir()), "it left something behind"
    table = folder / "table.json"
    return done, json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}


@pytest.mark.stress
def test_all_of_it_here(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    done, table = selftest(tmp_path, "--mirror", str(share), "--output", str(tmp_path / "table.md"))
    results = {row["check"]: row["result"] for row in table["checks"]}
    assert list(results) == [*CHECKS, "nothing-left"]
    assert {name: result for name, result in results.items() if result != "pass" and name not in NOT_HERE} == {}
    assert done.returncode == 0
    assert not list(share.iterdir())
    assert table["failed"] == 0
    assert {"pytest-openscope", "Python", "system", "clock monotonic"} <= set(table["facts"])
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    for row in table["checks"]:
        assert row["text"]
        assert f"| {row['check']} | {row['result']} |" in page
        assert f"{row['check']} " in done.stdout
        assert str(tmp_path) not in row["text"]


def test_what_is_broken_fails(tmp_path: Path) -> None:
    """A plugin that breaks every step, and a share that is a file: each is one line, and the exit code tells."""
    (tmp_path / "broken.py").write_text(
        "import pytest\n\n@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_call(item):\n    raise RuntimeError('broken')\n",
        encoding="utf-8",
    )
    share = tmp_path / "share"
    share.write_text("a file")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    only = [part for name in ("disk", "session-real", "mirror-share") for part in ("--only", name)]
    done, table = selftest(tmp_path, "--mirror", str(share), *only, PYTEST_PLUGINS="broken", PYTHONPATH=path)
    rows = {row["check"]: row for row in table["checks"]}
    assert {name: row["result"] for name, row in rows.items()} == {
        "disk": "pass",
        "session-real": "fail",
        "mirror-share": "fail",
        "nothing-left": "pass",
    }
    assert "exit code 1 instead of 0" in rows["session-real"]["text"]
    assert "no folder can be made in" in rows["mirror-share"]["text"]
    assert (done.returncode, table["failed"]) == (1, 2)
    assert "2 passed, 2 failed" in done.stdout


def test_wrong_options_are_told_together(tmp_path: Path) -> None:
    done, table = selftest(tmp_path, "--only", "dsik", "--output", "table.doc", "--output", "nowhere/table.md")
    assert (done.returncode, table) == (4, {})
    assert done.stderr.count("ERROR: ") == 3
    assert "--only dsik: no such check -> one of versions, clocks" in done.stderr


@pytest.mark.parametrize("page", ["docs/how-to/try-a-computer.md"])
def test_every_check_is_in_the_how_to(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    for name in (*CHECKS, "nothing-left"):
        assert f"`{name}`" in text, name


def test_sessions_of_two_rigs_may_begin_in_the_same_second(tmp_path: Path) -> None:
    """They have the same name then, in one share: each rig's own folder is looked at."""
    keys = {"centralized_log_directory": str(tmp_path / "share")}
    benches = [Bench(tmp_path / rig, rig_id=rig, **keys) for rig in ("one", "two")]
    session = Path("selftest_2026-03-04_05-06-07")
    folders = [tmp_path / "share" / "2026" / "03" / "04" / rig / session for rig in ("one", "two")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert [bench.in_mirror(session) for bench in benches] == [[folder] for folder in folders]
