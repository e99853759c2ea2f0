"""The archiver in whole sessions: in the step, in the background, after kills, and what the next session does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import warm
from share_kit import living_processes, processes_of

RECORD = "import os, pathlib\npathlib.Path(os.environ['OUTPUT_FOLDER'], 'data.bin').write_bytes(os.urandom(3_000_000))\n"
WORKER = "pytest_openscope.modules.archiving.jobs"


def experiment(bench: Any, *, script: str = RECORD, **parameters: Any) -> None:
    bench.write("record.py", script)
    places = {
        "network_dir": str(bench.path / "network" / "{session_uuid}"),
        "backup_dir": f"{bench.path}\\backup\\{{session_uuid}}",
        "routing_manifest": "{output_session_folder}\\launcher_metadata\\routing_manifest.json",
        "retry_delay_s": 0.05,
    }
    entry = {"module_type": "launcher_module", "module_path": "session_archiver", "module_parameters": {**places, **parameters}}
    day = {"launcher": "python", "script_path": "record.py", "post_acquisition_pipeline": [entry]}
    bench.write("day1.json", json.dumps(day))


def job(bench: Any, folder: Path | None = None, name: str = "session_archiver") -> Any:
    path = (folder or bench.folder) / "launcher_metadata" / "archive_jobs" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def workers(bench: Any) -> list[psutil.Process]:
    return [process for process, line in living_processes() if WORKER in line and str(bench.path) in line]


def assert_archived(bench: Any, folder: Path | None = None) -> None:
    """Every file of the session folder, its own last records included, is in both places; the archive's own are not."""
    folder = folder or bench.folder

    def tree(place: Path) -> dict[str, bytes]:
        return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}

    own = ("archive_jobs", "session_archiver")
    expected = {name: data for name, data in tree(folder).items() if not any(word in name for word in own)}
    assert "launcher_metadata/end_state.json" in expected
    for place in ("network", "backup"):
        found = tree(bench.path / place / folder.name)
        assert set(found) == set(expected)
        assert [name for name in found if found[name] != expected[name]] == []


@pytest.fixture(autouse=True)
def _no_worker_left(bench: Any) -> Any:
    yield
    for process in workers(bench):
        process.kill()


def test_the_step_archives_the_data_and_the_records_follow(bench: Any) -> None:
    experiment(bench)
    result = bench.run("day1.json")
    assert result.ret == 0, result.stdout.str()
    assert (bench.path / "network" / bench.folder.name / "data.bin").stat().st_size == 3_000_000
    assert "copies made and verified" in bench.messages
    bench.wait_for(lambda: job(bench)["done"])
    assert_archived(bench)
    bench.wait_for(lambda: not workers(bench))


def test_in_the_background_the_step_is_over_at_once_and_all_follows(bench: Any) -> None:
    experiment(bench, when="background")
    assert bench.run("day1.json").ret == 0
    assert "archived when the session has ended" in bench.messages
    bench.wait_for(lambda: job(bench)["done"])
    assert_archived(bench)
    assert not list((bench.path / "state" / "archives").glob("*")) or bench.run("--version").ret == 0


def test_what_is_not_archived_fails_the_step_and_the_next_session_tries_again(bench: Any) -> None:
    experiment(bench, max_retries=0)
    (bench.path / "network").write_text("no folder")
    assert bench.run("day1.json").ret == 1
    failed = next(entry.message for entry in bench.log if "not archived: data.bin" in entry.message)
    assert "network" in failed
    first = bench.folder
    # The sidecar lets a worker try once more, beside which the next session would have nothing to begin or to tell.
    bench.wait_for(lambda: not processes_of(first) and not processes_of(first))
    assert job(bench)["tried_at"]
    assert not job(bench)["done"]
    (bench.path / "network").unlink()
    # It says so within the session, which a slow machine would have ended before.
    bench.steps(
        "@pytest.mark.acquisition\ndef test_nothing(experiment):\n    until = time.monotonic() + 30\n"
        "    log = experiment.session_folder / 'launcher_metadata' / 'launcher.log'\n"
        "    while 'is not complete and goes on' not in log.read_text() and time.monotonic() < until:\n"
        "        time.sleep(0.05)\n"
    )
    second = bench.run("test_experiment.py")
    assert second.ret == 0
    assert "an earlier archive is not complete and goes on" in second.stderr.str() + second.stdout.str()
    assert "data.bin: network" in second.stderr.str() + second.stdout.str()
    bench.wait_for(lambda: job(bench, first)["done"])
    assert_archived(bench, first)


def test_mistakes_are_told_before_anything_is_created(bench: Any) -> None:
    experiment(bench, netwrok_dir="x", max_retries="three")
    result = bench.run("day1.json")
    assert result.ret == 4
    for words in ("netwrok_dir: unknown key -> did you mean network_dir?", "module_parameters.max_retries"):
        assert words in result.stderr.str()
    assert not (bench.path / "sessions").exists()


def test_a_dry_run_archives_nothing(bench: Any) -> None:
    experiment(bench)
    assert bench.run("day1.json", "--dry-run").ret == 0
    assert "would archive" in bench.messages
    assert not (bench.path / "network").exists()
    assert not workers(bench)


def test_two_archives_of_one_session_do_not_mix(bench: Any) -> None:
    experiment(bench)
    day = json.loads((bench.path / "day1.json").read_text())
    (entry,) = day["post_acquisition_pipeline"]
    other = {**entry["module_parameters"], "network_dir": str(bench.path / "third"), "copy_to_backup": False}
    day["post_acquisition_pipeline"].append({**entry, "module_parameters": other})
    bench.write("day1.json", json.dumps(day))
    assert bench.run("day1.json").ret == 0
    bench.wait_for(lambda: job(bench)["done"] and job(bench, name="session_archiver[2]")["done"])
    assert_archived(bench)
    assert (bench.path / "third" / "launcher_metadata" / "end_state.json").exists()


SLOW = """
import os, pathlib
for i in range(300):
    pathlib.Path(os.environ["OUTPUT_FOLDER"], f"{i}.bin").write_bytes(os.urandom(1_000_000))
"""


def test_kill_9_of_the_worker_and_of_the_experiment_in_the_middle(bench: Any) -> None:
    """Nobody is at the keyboard: the sidecar sees the death, finishes the session and lets the archive be finished."""
    experiment(bench, script=SLOW, workers=1)
    process = bench.start("day1.json")

    def copying() -> bool:
        return sum(1 for _ in (bench.path / "network").rglob("*.bin")) >= 20

    victims = bench.wait_for(lambda: workers(bench))
    bench.wait_for(copying)
    for worker in victims:
        worker.kill()
    process.kill()
    process.wait()
    bench.wait_for(lambda: job(bench)["done"])
    assert_archived(bench)
    assert bench.end["outcome"] == "crashed"


ENDLESS = RECORD + "import time\nprint('recording', flush=True)\ntime.sleep(600)\n"


def test_kill_9_in_the_acquisition_and_the_archive_is_made_without_anybody(bench: Any) -> None:
    """The archiver had not begun: it runs after the crash, on the dead session's folder."""
    experiment(bench, script=ENDLESS)
    process = bench.start("day1.json")
    bench.wait_for(lambda: (bench.folder / "data.bin").exists() and "recording" in bench.messages)
    process.kill()
    process.wait()
    bench.wait_for(lambda: job(bench)["done"] and not workers(bench))
    assert bench.end["rescued"]["steps"] == ["session_archiver"]
    assert_archived(bench)


def test_kill_9_of_everything_and_the_next_session_finishes_it(bench: Any) -> None:
    experiment(bench, script=SLOW, workers=1)
    process = bench.start("day1.json")
    bench.wait_for(lambda: workers(bench))
    first = bench.folder
    others = [one for one, line in living_processes() if str(first) in line]
    bench.wait_for(lambda: sum(1 for _ in (bench.path / "network").rglob("*.bin")) >= 20)
    # Stopped first: it must see no other process die, which would make it begin anew.
    experiment_process = psutil.Process(process.pid)
    experiment_process.suspend()
    for one in [experiment_process, *others]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    bench.wait_for(lambda: not workers(bench))
    assert not job(bench, first)["done"]
    bench.steps("@pytest.mark.acquisition\ndef test_nothing():\n    pass\n")
    assert bench.run("test_experiment.py").ret == 0
    bench.wait_for(lambda: job(bench, first)["done"])
    assert_archived(bench, first)


def test_a_step_that_runs_out_of_time_fails_and_the_copying_goes_on(bench: Any) -> None:
    experiment(bench, script=SLOW, workers=1, timeout_s=0.5)
    assert bench.run("day1.json").ret == 1
    assert "it goes on in the background" in bench.messages
    assert next(step["duration_s"] for step in bench.end["steps"] if step["name"] == "session_archiver") < 30
    bench.wait_for(lambda: job(bench)["done"])
    assert_archived(bench)


def openscope(bench: Any, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_openscope", *map(str, arguments)]
    return warm.run(command, cwd=bench.path, timeout=120)


def test_the_command_tells_what_is_owed_and_finishes_it(bench: Any) -> None:
    experiment(bench, max_retries=0)
    (bench.path / "network").write_text("no folder")
    assert bench.run("day1.json").ret == 1
    bench.wait_for(lambda: not workers(bench) and job(bench)["tried_at"] and list((bench.path / "state/archives").glob("*")))
    bench.wait_for(lambda: not processes_of(bench.path))  # the sidecar's own files are complete
    status = openscope(bench, "archive", "--status", "--rig-config", "rig.yaml")
    assert status.returncode == 1
    assert "data.bin: network: " in status.stdout
    again = openscope(bench, "archive", "--state-directory", "state")
    assert again.returncode == 1
    assert "data.bin: network" in again.stderr
    (bench.path / "network").unlink()
    done = openscope(bench, "archive", bench.folder)
    assert done.returncode == 0, done.stderr
    assert "copies made and verified" in done.stdout
    assert_archived(bench)
    assert openscope(bench, "archive", "--state-directory", "state").stdout == "no archive is owed\n"


def test_the_command_archives_any_folder(bench: Any) -> None:
    bench.write("data/deep/a.txt", "alpha")
    done = openscope(bench, "archive", "data", "--network-dir", "n", "--backup-dir", "b", "--checksum-algo", "sha256")
    assert done.returncode == 0, done.stderr
    assert (bench.path / "n/data/deep/a.txt").read_text() == (bench.path / "b/data/deep/a.txt").read_text() == "alpha"
    (bench.path / "n/data/deep/a.txt").write_text("other")
    bench.write("data/deep/b.txt", "beta")
    second = openscope(bench, "archive", "data", "--network-dir", "n")
    assert (second.returncode, (bench.path / "n/data/deep/b.txt").read_text()) == (0, "beta")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "there is no such folder"),
        (("--network-dir", "x"), "no folder is named"),
        (("data", "--network-dir", "data"), "lies in the folder that is archived"),
        (("data", "--network-dir", "n", "--checksum-algo", "md4"), "'md4' is none of xxh3, sha256"),
    ],
)
def test_the_command_refuses_what_cannot_be(bench: Any, arguments: tuple[str, ...], message: str) -> None:
    bench.write("data/a.txt", "alpha")
    refused = openscope(bench, "archive", *arguments)
    assert refused.returncode == 4
    assert message in refused.stderr
    assert not (bench.path / "data" / "launcher_metadata").exists()


def test_a_python_experiment_archives_with_one_call(bench: Any) -> None:
    bench.steps(
        "from pytest_openscope import archive_session\n\n"
        "@pytest.mark.acquisition\ndef test_record(experiment):\n"
        "    (experiment.session_folder / 'data.bin').write_bytes(b'x' * 1000)\n\n"
        "@pytest.mark.post_acquisition\ndef test_archive(experiment):\n"
        f"    base = {str(bench.path)!r}\n"
        "    name = experiment.session_folder.name\n"
        "    places = dict(network_dir=f'{base}/network/{name}', backup_dir=f'{base}/backup/{name}')\n"
        "    told = []\n"
        "    def tell(*how_far):\n"
        "        told.append(how_far)\n"
        "        experiment.progress(*how_far)\n"
        "    report = archive_session(experiment.session_folder, progress=tell, **places)\n"
        "    assert report['complete']\n"
        "    done, total, unit = told[-1]\n"
        "    assert done == total >= 2000 and unit == 'bytes'\n"
    )
    result = bench.run("test_experiment.py")
    assert result.ret == 0, result.stdout.str()
    bench.wait_for(lambda: job(bench)["done"])
    assert_archived(bench)
