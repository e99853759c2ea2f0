"""Other processes and this one, and helpers."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pytest_openscope.system.processes import ProcessWatch, create_time, light_command
from pytest_openscope.system.workers import UnansweredError, ask


def test_a_helper_knows_itself_from_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text(
        "import os\nfrom pytest_openscope.system import create_time, cpu_s\n"
        "def main(args): print(cpu_s(os.getpid()) is not None, create_time(os.getpid()) is not None, *args)\n",
        encoding="utf-8",
    )
    command = light_command("helper", ["seen"])
    command[5] = json.dumps([*json.loads(command[5]), str(tmp_path)])
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.stdout.split(), done.stderr) == (["True", "True", "seen"], "")


@pytest.mark.parametrize("module", ["sidecar.loop", "mirror.worker"])
def test_a_helper_needs_nothing_but_psutil(tmp_path: Path, module: str) -> None:
    # Another package may lie in another folder than psutil, and each import is paid for by every session.
    place = Path(psutil.__file__).parent
    shutil.copytree(place, tmp_path / "psutil", ignore=shutil.ignore_patterns("tests", "__pycache__"))
    (tmp_path / "helper.py").write_text(
        f"import sys\nimport pytest_openscope.{module}\n"
        "def main(args): print(*({'pytest_openscope.issues', 'pytest_openscope.config'} & {*sys.modules}))\n",
        encoding="utf-8",
    )
    command = light_command("helper", [])
    own = [folder for folder in json.loads(command[5]) if folder != str(place.parent)]
    command[5] = json.dumps([*own, str(tmp_path)])
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.stdout.split(), done.stderr) == ([], "")


def test_a_wait_that_is_over_before_it_begins_does_not_wait() -> None:
    watch = ProcessWatch(os.getpid(), create_time(os.getpid()))
    began = time.monotonic()
    assert watch.wait(-1.0) is False
    assert time.monotonic() - began < 20
    watch.close()


_LATE = """
import pathlib, sys, time
from pytest_openscope.system import ProcessWatch
pid, handle, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
while not (folder / "go").exists():
    time.sleep(0.01)
watch = ProcessWatch(pid, None, handle)
(folder / "told.part").write_text(f"{watch.wait(5)} {watch.exit_code()}")
(folder / "told.part").rename(folder / "told")
"""
_LENDS = """
import os, subprocess, sys, time
from pytest_openscope.system import lent_watch, spawn_detached
with lent_watch() as (handle, more):
    spawn_detached([sys.executable, "-c", sys.argv[2], str(os.getpid()), str(handle), sys.argv[1]], **more)
print("lent", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="no process can be held there")
@pytest.mark.skipif(
    sys.platform == "linux" and tuple(map(int, platform.release().split(".")[:2])) < (6, 15), reason="kept since Linux 6.15"
)
def test_a_child_that_starts_late_learns_how_the_process_ended(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _LENDS, str(tmp_path), _LATE], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"lent"
    process.kill()
    code = process.wait()
    process.stdout.close()
    (tmp_path / "go").touch()
    until = time.monotonic() + 30
    while not (tmp_path / "told").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert (tmp_path / "told").read_text() == f"True {code}"


def test_what_is_said_of_odd_paths_can_be_redirected_anywhere(tmp_path: os.PathLike[str]) -> None:
    # As stdout in the code page of a Windows PC.
    environ = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    state = f"{tmp_path}/\u30ea\u30b0"
    command = [sys.executable, "-m", "pytest_openscope", "audit", state]
    done = subprocess.run(command, capture_output=True, env=environ, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 4
    assert b"\\u30ea" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("print('a library says'); return number + 1", "42"),
        ("raise ValueError('of its own')", "ValueError: of its own"),
        ("os._exit(3)", "its process ended with 3"),
    ],
)
def test_a_question_to_a_process_that_may_hang(does: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "asked.py").write_text(
        "import os, time\nfrom pytest_openscope.system import answer_with\n"
        f"def reply(number): {does}\ndef main(args): answer_with(reply)\n",
        encoding="utf-8",
    )
    try:
        answer = str(ask(light_command("asked", [], [str(tmp_path)]), {"number": 41}, 30.0))
    except UnansweredError as problem:
        answer = str(problem)
    assert answer == said


def test_a_process_that_never_reads_its_question_is_left() -> None:
    with pytest.raises(UnansweredError, match=r"no answer within 0\.3 s"):
        ask([sys.executable, "-c", "import time; time.sleep(60)"], {"text": "x" * 300_000}, 0.3)
