from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sidecar_kit import kill

from pytest_openscope.sidecar.reconstruct import AcquisitionView
from pytest_openscope.sidecar.samples import ResourceSampler, Tree, append, disk_of, repair
from pytest_openscope.system.processes import create_time

#: On Windows the console that was made for a program is a process of its own.
WITH_A_CHILD = (2, 3) if sys.platform == "win32" else (2,)
BURN = "import time\nend=time.time()+30\nwhile time.time()<end: pass"


def test_the_file_is_an_array_after_every_sample_and_its_cost_does_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "resource_usage.json"
    for number in range(50):
        append(path, {"number": number})
        assert [sample["number"] for sample in json.loads(path.read_text())] == list(range(number + 1))
    for number in range(5_000):
        append(path, {"number": number, "x": "y" * 80})
    start = time.thread_time()
    append(path, {"last": True})
    assert time.thread_time() - start < 0.05
    assert json.loads(path.read_text())[-1] == {"last": True}


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_a_torn_file_is_mended(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "resource_usage.json"
    for number in range(3):
        append(path, {"number": number, "text": "}, {"})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    assert repair(path) is (cut > 1)
    kept = [sample["number"] for sample in json.loads(path.read_text())]
    assert kept == list(range(len(kept)))
    append(path, {"number": 99})
    assert json.loads(path.read_text())[-1] == {"number": 99}


def test_zeros_of_a_power_cut_are_mended(tmp_path: Path) -> None:
    path = tmp_path / "resource_usage.json"
    append(path, {"number": 0})
    path.write_bytes(path.read_bytes()[:-3] + b"\0" * 200)
    append(path, {"number": 1})
    assert json.loads(path.read_text())[-1] == {"number": 1}


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX for the size of files")
def test_a_full_disk_leaves_the_array_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "resource_usage.json"
    append(path, {"number": 0})
    code = (
        "import resource,sys,signal;from pathlib import Path;from pytest_openscope.sidecar.samples import append\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "p=Path(sys.argv[1]);resource.setrlimit(resource.RLIMIT_FSIZE,(p.stat().st_size+20,)*2)\n"
        "try: append(p,{'text':'x'*100})\nexcept OSError: print('told')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "told", done.stderr
    assert json.loads(path.read_text()) == [{"number": 0}]


def test_the_whole_tree_is_counted_from_its_first_second(tmp_path: Path) -> None:
    code = f"import subprocess,sys\nc=subprocess.Popen([sys.executable,'-c',{BURN!r}]);print(c.pid,flush=True);c.wait()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    said: list[tuple[Any, ...]] = []
    try:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        path = tmp_path / "resource_usage.json"
        sampler = ResourceSampler(path, os.getpid(), create_time(os.getpid()), 30.0, str(tmp_path), lambda *a: said.append(a))
        sampler.start()
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        while psutil.Process(child).cpu_times().user < 0.1:  # The system counts CPU time in ticks of 10 ms.
            time.sleep(0.01)
        camera = AcquisitionView({"name": "camera", "pid": process.pid, "create_time": create_time(process.pid)})
        sampler.follow({"camera": camera})
        deadline = time.monotonic() + 20  # Before the next regular sample, after 30 s.
        while len(json.loads(path.read_text())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        sample = json.loads(path.read_text())[-1]
        assert sample["acquisition"]["processes"] in WITH_A_CHILD
        assert sample["acquisition"]["cpu_percent"] > 0
        assert sample["launcher"]["memory_mb"] > 0
        assert set(sample["system"]) == {"cpu_percent", "memory", "disk", "disks"}
        assert {"percent", "free_gb", "total_gb"} <= set(sample["system"]["disk"])
        known = {pid for pid, _ in sampler.known_processes()}
        assert {process.pid, child} <= known
        assert len(known) in WITH_A_CHILD
        camera.finished = {"returncode": 0}
        sampler.follow({"camera": camera})
        assert said[-1][0] == "INFO"
        assert "camera: resources:" in said[-1][1]
        sampler.stop()
    finally:
        process.kill()
        process.wait()
        process.stdout and process.stdout.close()
        kill(child)


def test_a_child_whose_parent_died_is_still_counted() -> None:
    sleep = "import time;time.sleep(30)"
    code = f"import subprocess,sys\nc=subprocess.Popen([sys.executable,'-c',{sleep!r}]);print(c.pid,flush=True);c.wait()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    tree = Tree(process.pid, create_time(process.pid), descendants=True)
    first = tree.look()
    process.kill()
    process.wait()
    second = tree.look()
    kill(child)
    process.stdout.close()
    assert first is not None
    assert first["processes"] in WITH_A_CHILD
    assert second is not None
    assert 1 <= second["processes"] < first["processes"]


def test_another_process_with_the_same_pid_is_not_taken() -> None:
    assert Tree(os.getpid(), 1000.0, descendants=True).look() is None


def test_warnings_come_once_per_crossing(tmp_path: Path) -> None:
    said: list[tuple[Any, ...]] = []
    sampler = ResourceSampler(
        tmp_path / "r.json", os.getpid(), None, 1.0, str(tmp_path), lambda *a: said.append(a), low_disk_gb=5
    )
    for free_gb in (9.0, 4.0, 3.0, 5.1, 4.9, 6.0, 4.0):
        sampler._judge(free_gb, 50.0)
    assert [text for _, text, _, _ in said] == [
        "only 4.0 GB are free on the session's disk (limit 5 GB)",
        "only 4.0 GB are free on the session's disk (limit 5 GB)",
    ]
    assert said[0][0] == "WARNING"
    assert said[0][3] is True
    sampler._judge(9.0, 97.0)
    sampler._judge(9.0, 97.0)
    assert len(said) == 3


def test_sizes_are_decimal_as_in_the_checks_of_the_rig(tmp_path: Path) -> None:
    sampler = ResourceSampler(tmp_path / "r.json", os.getpid(), None, 1.0, str(tmp_path), lambda *_: None)
    sampler._take()
    (sample,) = json.loads((tmp_path / "r.json").read_text())
    usage, memory = psutil.disk_usage(str(tmp_path)), psutil.virtual_memory()
    assert sample["system"]["disk"]["total_gb"] == round(usage.total / 1e9, 3)
    assert sample["system"]["memory"]["total_gb"] == round(memory.total / 1e9, 3)
    own = psutil.Process().memory_info().rss / 1e6
    assert sample["launcher"]["memory_mb"] == pytest.approx(own, rel=0.03)


def test_a_failing_sample_is_said_once_and_sampling_goes_on(tmp_path: Path) -> None:
    said: list[tuple[Any, ...]] = []
    folder = tmp_path / "later"
    sampler = ResourceSampler(folder / "r.json", os.getpid(), None, 0.1, str(tmp_path), lambda *a: said.append(a))
    sampler.start()
    time.sleep(0.5)
    folder.mkdir()
    deadline = time.monotonic() + 60
    while not (folder / "r.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    sampler.stop()
    assert json.loads((folder / "r.json").read_text())
    assert len(said) == 1
    assert "no resource sample" in said[0][1]


def test_the_only_disk_is_the_sessions_disk(tmp_path: Path) -> None:
    assert disk_of(str(tmp_path / "missing"), {"PhysicalDrive0": None}) == "PhysicalDrive0"
    assert disk_of(str(tmp_path / "missing"), {"a": None, "b": None}) == ""


def test_a_summary_is_said_every_so_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[Any, ...]] = []
    arguments = (os.getpid(), None, 0.1, str(tmp_path), lambda *a: said.append(a))
    monkeypatch.setattr("pytest_openscope.sidecar.samples.SUMMARY_S", 0.3)
    sampler = ResourceSampler(tmp_path / "r.json", *arguments, low_disk_gb=0, low_memory_percent=101)
    sampler.start()
    try:
        deadline = time.monotonic() + 20
        while len(said) < 3:
            assert time.monotonic() < deadline, said
            time.sleep(0.02)
    finally:
        sampler.stop()
    for level, text, _, terminal in said:
        assert (level, terminal) == ("INFO", False)
        assert "MB at most" in text
        assert "GB free" in text
