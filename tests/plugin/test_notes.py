"""``note`` from another process: in the log, the record and the end state of the session that runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import warm


def note(bench: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_openscope", "note", *arguments]
    return warm.run(command, cwd=bench.path)


def test_a_note_reaches_the_running_session(bench: Any) -> None:
    bench.steps(
        "def test_waits(experiment):\n"
        "    (experiment.session_folder / 'ready').touch()\n"
        "    while not (experiment.session_folder / 'go').exists():\n        time.sleep(0.02)\n"
    )
    running = bench.start()
    bench.wait_for(lambda: (bench.folder / "ready").exists())
    first = note(bench, "the animal sneezed: größer\nthan before", "--rig-config", "rig.yaml")
    assert (first.returncode, first.stdout.strip()) == (0, f"noted in {bench.folder.name}"), first.stderr
    second = note(bench, "again", "--state-directory", "state", "--session", bench.folder.name)
    assert second.returncode == 0
    for arguments, told in ((("x", "--session", "other"), "no session runs here"), ((" ",), "the text is empty")):
        refused = note(bench, *arguments, "--state-directory", "state")
        assert (refused.returncode, told in refused.stderr) == (4, True)
    (bench.folder / "go").touch()
    assert running.wait(30) == 0
    assert bench.end["notes"] == ["the animal sneezed: größer\nthan before", "again"]
    (entry,) = [entry for entry in bench.log if entry.message.startswith("the animal sneezed")]
    assert (entry.phase, entry.step, entry.logger) == ("acquisition", "test_waits", "pytest_openscope.notes")
    late = note(bench, "too late", "--rig-config", "rig.yaml")
    assert (late.returncode, "no session runs here" in late.stderr) == (4, True)


@pytest.mark.parametrize("lost", ["experiment", "sidecar"])
def test_a_note_is_never_taken_by_nobody(bench: Any, lost: str) -> None:
    """A sidecar that is gone cannot take it, and that is told; what a dying experiment left lies in its record."""
    bench.steps(
        "def test_waits(experiment):\n"
        "    import psutil\n"
        "    (helper,) = [one for one in psutil.Process().children() if 'sidecar' in ' '.join(one.cmdline())]\n"
        "    (experiment.session_folder / 'ready').write_text(str(helper.pid))\n"
        "    time.sleep(60)\n"
    )
    running = bench.start()
    pid = int(bench.wait_for(lambda: (bench.folder / "ready").read_text()))
    if lost == "experiment":
        assert note(bench, "before the crash", "--state-directory", "state").returncode == 0
        bench.wait_for(lambda: "before the crash" in bench.messages)
        running.kill()
        running.wait()
        bench.wait_for(lambda: bench.end["outcome"] == "crashed")
        assert bench.end["notes"] == ["before the crash"]
        return
    import psutil

    psutil.Process(pid).suspend()  # it hangs
    try:
        told = note(bench, "who hears me", "--state-directory", "state")
        assert (told.returncode, "did not take it within 5 s" in told.stderr) == (1, True)
        assert list((bench.folder / "launcher_metadata" / "inbox").iterdir()) == []
    finally:
        psutil.Process(pid).resume()
        running.kill()
        running.wait()
