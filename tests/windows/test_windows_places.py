"""Where sessions live on Windows: odd names, long paths, other drives, shares, and files that somebody holds open.

The gate runs those that stand in ``gate.txt``; ``tests/windows/run --all`` runs all.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from windows_kit import NO_WINDOW, Lab
from windows_limits import wine_version

from pytest_openscope.records.folder import METADATA

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="scenes of Windows: tests/windows/run runs them under Wine")

ODD = "J\u00f6rg & M\u00fcller's \u4eba \U0001f42d 100 % (1)"
STEPS = """
def test_acquire(acquisition):
    logging.getLogger("lab").info("one\\ntwo")
    acquisition.run(command=[sys.executable, "-c", "print('frame 0')"], name="camera")
"""
UNTIL_STOP = """
def test_acquire():
    Path("begun.txt").write_text("x")
    number = 0
    while not Path("stop.txt").exists():
        logging.getLogger("lab").info("record %d", number)
        number += 1
        time.sleep(0.02)
"""


def assert_copied(lab: Lab, share: Path, folder: Path | None = None) -> None:
    """The session's own copy in the central directory is the session's log; each of its lines is in the day's log."""
    folder = folder or lab.folder
    lab.wait_for(lambda: lab.metadata("end_state.json", folder)["mirror"]["status"] == "verified")
    (own,) = share.glob(f"[0-9]*/*/*/bench/{folder.name}")
    log = (folder / METADATA / "launcher.log").read_bytes()
    assert (own / "launcher.log").read_bytes() == log
    state = folder / METADATA / "end_state.json"
    lab.wait_for(lambda: (own / "end_state.json").read_bytes() == state.read_bytes())
    assert len((own.parent.parent / "launcher.log").read_bytes().splitlines()) == len(log.splitlines())


def test_a_user_and_folders_with_odd_names(make_lab: Any, tmp_path: Path) -> None:
    """The state directory is the default one, in the profile of a user with such a name; the copy lies beside it."""
    lab = make_lab(ODD)
    share = tmp_path / f"share {ODD}"
    share.mkdir()
    lab.write(
        "rig.yaml", f'rig_id: bench\noutput_root_folder: sessions {ODD}\ncentralized_log_directory: "{share.as_posix()}"\n'
    )
    lab.steps(STEPS)
    done = lab.run(LOCALAPPDATA=str(lab.path / f"{ODD} local"))
    assert done.code == 0
    (folder,) = (lab.path / f"sessions {ODD}").iterdir()
    assert list((lab.path / f"{ODD} local").iterdir())
    assert_copied(lab, share, folder)


@pytest.mark.parametrize("kind", ["mirror", pytest.param("output", marks=pytest.mark.stress)])
def test_paths_of_more_than_260_characters(make_lab: Any, tmp_path: Path, kind: str) -> None:
    """Without long paths (Windows' default) they are refused, or the copy is told to be impossible; with them they work."""
    lab = make_lab()
    deep = tmp_path.joinpath(*["m" * 50] * 6)
    share = deep if kind == "mirror" else tmp_path / "share"
    lab.rig(
        centralized_log_directory=share.as_posix(),
        mirror_finish_s=60,
        **({"output_root_folder": deep.as_posix()} if kind == "output" else {}),
    )
    try:
        share.mkdir(parents=True)
        deep.mkdir(parents=True, exist_ok=True)
        long_paths = True
    except OSError:
        long_paths = False
    lab.steps(STEPS)
    done = lab.run()
    if kind == "output" and not long_paths:
        assert done.code == 4
        assert "output_root_folder" in done.text
        return
    assert done.code == 0
    (folder,) = lab.folders if kind == "mirror" else deep.iterdir()
    if kind == "mirror" and wine_version():
        # Seen with Wine 8: GetFinalPathNameByHandleW fails with error 234 for a path of more than 260 characters.
        lab.wait_for(lambda: "More data available" in lab.end_state["mirror"]["reason"])
    elif long_paths:
        assert_copied(lab, share, folder)
    else:
        assert "mirror: pending" in done.text


def test_names_that_belong_to_devices(lab: Any) -> None:
    """Names of acquisitions become those of files, and the subject's that of the folder."""
    names = ["CON", "nul.txt", "com1", "conout$", "com\u00b9", "behind. ", "a:b?*<>|c"]
    lab.steps(
        f"""
def test_acquire(acquisition):
    for name in {names!r}:
        acquisition.run(command=[sys.executable, "-c", "print('frame of', __import__('sys').argv[1:])", name], name=name)
"""
    )
    done = lab.run("--subject-id", "NUL.", "--user-id", "ada", ids=False)
    assert done.code == 0
    written = [path for path in (lab.folder / METADATA / "acquisition").iterdir() if path.name.endswith("stdout.log")]
    assert len(written) == len(names)
    assert all(path.stat().st_size for path in written)
    assert sum(message.startswith("frame of") for message in lab.messages) == len(names)


def test_the_session_folder_cannot_be_made(lab: Any) -> None:
    """One message, exit code 4, nothing half-made."""
    (lab.path / "sessions").write_text("a file stands where the folder should be")
    lab.steps(STEPS)
    done = lab.run()
    assert done.code == 4
    assert "output_root_folder" in done.text or "sessions" in done.text
    assert not lab.processes()


def run_unix(*command: str) -> None:
    """Run a program of the system that Wine runs on; Wine has no handle for it, so what it does is waited for."""
    try:
        subprocess.run([f"Z:{command[0]}", *command[1:]], stdin=subprocess.DEVNULL, timeout=60)
    except OSError:
        return


class Drive:
    """A drive letter for a folder, as ``subst`` makes it; under Wine a link in the prefix, since its ``subst`` does nothing."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.letter = next(f"{char}:" for char in "QRSTUVW" if not Path(f"{char}:\\").exists())
        self.root = Path(f"{self.letter}\\")

    def appear(self) -> None:
        if wine_version():
            # C: is the folder drive_c of the prefix.
            prefix = os.environ["WINEPREFIX"]
            place = self.target.as_posix()
            place = f"{prefix}/drive_c{place[2:]}" if place[:2].upper() == "C:" else place[2:]
            run_unix("/bin/ln", "-sfn", place, f"{prefix}/dosdevices/{self.letter.lower()}")
        else:
            subprocess.run(["subst", self.letter, str(self.target)], check=True)
        self.wait(True)

    def vanish(self) -> None:
        if wine_version():
            run_unix("/bin/rm", "-f", f"{os.environ['WINEPREFIX']}/dosdevices/{self.letter.lower()}")
        else:
            subprocess.run(["subst", self.letter, "/d"], check=True)
        self.wait(False)

    def wait(self, there: bool) -> None:
        deadline = time.monotonic() + 60
        while self.root.exists() is not there:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    target = tmp_path / "disk"
    target.mkdir()
    one = Drive(target)
    one.appear()
    yield one
    if one.root.exists():
        one.vanish()


@pytest.mark.stress
def test_the_drive_of_the_copy_vanishes_and_comes_back(lab: Any, drive: Drive) -> None:
    lab.rig(centralized_log_directory=f"{drive.letter}/central", mirror_finish_s=20)
    lab.steps(UNTIL_STOP)
    running = lab.begin()
    lab.wait_for(lambda: (lab.path / "begun.txt").exists())
    lab.wait_for(lambda: list((drive.target / "central").rglob("launcher.log")))
    drive.vanish()
    records = len(lab.messages)
    lab.wait_for(lambda: len(lab.messages) > records + 20)
    (lab.path / "stop.txt").write_text("x")
    assert running.finish().code == 0
    assert lab.end_state["outcome"] == "passed"
    lab.wait_for(lambda: not lab.processes())
    assert lab.end_state["mirror"]["status"] != "verified"
    drive.appear()
    assert lab.tool("recover", "--rig-config", "rig.yaml").code == 0
    assert_copied(lab, drive.target / "central")


@pytest.mark.stress
def test_the_drive_of_the_sessions_vanishes(lab: Any, drive: Drive) -> None:
    """Files that are open stay so; what can be said is said on the screen, and nothing hangs."""
    lab.rig(output_root_folder=f"{drive.letter}/sessions")
    lab.steps(UNTIL_STOP)
    running = lab.begin()
    lab.wait_for(lambda: (lab.path / "begun.txt").exists())
    drive.vanish()
    (lab.path / "stop.txt").write_text("x")
    done = running.finish()
    assert "outcome:" in done.text
    assert "helper failed: writing end_state.json" in done.text
    lab.wait_for(lambda: not lab.processes())
    drive.appear()
    (folder,) = (drive.target / "sessions").iterdir()
    assert b"record 0" in (folder / METADATA / "launcher.log").read_bytes()


@pytest.fixture
def unc() -> Iterator[Path]:
    """A share, by its name in the network."""
    if wine_version():
        # Wine looks for the share \\lab-server\data in the prefix, under dosdevices/unc/lab-server/data.
        behind = Path(f"Z:{os.environ['WINEPREFIX']}/dosdevices/unc/lab-server/data")
        there = Path(r"\\lab-server\data")
    else:
        behind = Path(os.environ["TEMP"]) / "openscope-share"
        there = Path(rf"\\localhost\{behind.drive[0]}$").joinpath(*behind.parts[1:])
    behind.mkdir(parents=True, exist_ok=True)
    if not there.is_dir():
        pytest.skip(f"{there} is not to be had: the administrative shares are off, or need an administrator")
    yield there
    shutil.rmtree(behind, ignore_errors=True)


def test_the_copy_on_a_share(lab: Any, unc: Path) -> None:
    lab.rig(centralized_log_directory=str(unc / "central"))
    lab.steps(STEPS)
    assert lab.run().code == 0
    assert_copied(lab, unc / "central")


#: Opens each new file below a folder as a virus scanner does, without delete sharing, and keeps it for some time.
SCANNER = r"""
import ctypes, sys, time
from pathlib import Path

root, hold_s, kernel32 = Path(sys.argv[1]), float(sys.argv[2]), ctypes.WinDLL("kernel32")
kernel32.CreateFileW.restype, kernel32.CloseHandle.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
READ, SHARE_READ_WRITE, OPEN_EXISTING, INVALID = 0x80000000, 3, 3, ctypes.c_void_p(-1).value
seen, held = {}, []
print("scanning", flush=True)
while True:
    now = time.monotonic()
    for until, handle in [one for one in held if one[0] <= now]:
        kernel32.CloseHandle(handle)
    held = [one for one in held if one[0] > now]
    for path in root.rglob("*"):
        try:
            facts = path.stat()
        except OSError:
            continue
        if path.is_dir() or seen.get(path) == (facts.st_ino, facts.st_size):
            continue
        seen[path] = (facts.st_ino, facts.st_size)
        handle = kernel32.CreateFileW(str(path), READ, SHARE_READ_WRITE, None, OPEN_EXISTING, 0, None)
        if handle != INVALID:
            held.append((now + hold_s, handle))
    time.sleep(0.01)
"""


@contextmanager
def scanning(folder: Path, hold_s: float) -> Iterator[None]:
    command = [sys.executable, "-c", SCANNER, str(folder), str(hold_s)]
    scanner = subprocess.Popen(command, stdout=subprocess.PIPE, creationflags=NO_WINDOW)
    try:
        assert scanner.stdout is not None
        assert scanner.stdout.readline().strip() == b"scanning"
        yield
    finally:
        scanner.kill()
        scanner.communicate()


def test_a_virus_scanner_holds_every_new_file(lab: Any, tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    lab.rig(centralized_log_directory=share.as_posix())
    lab.steps(STEPS)
    (lab.path / "sessions").mkdir()
    with scanning(tmp_path, hold_s=0.7):
        done = lab.run()
        assert done.code == 0
        assert_copied(lab, share)
    assert lab.end_state["outcome"] == "passed"
    assert lab.end_state["helper_failures"] == []
    assert not list(tmp_path.rglob("*.tmp"))


def hold_open(path: Path) -> Any:
    """Open a file without delete sharing, as most programs of Windows do; return the handle."""
    if sys.platform == "win32":
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel32.CreateFileW.restype = ctypes.c_void_p
        kernel32.CloseHandle.argtypes = [ctypes.c_void_p]
        handle = kernel32.CreateFileW(str(path), 0x80000000, 3, None, 3, 0, None)
        assert handle != ctypes.c_void_p(-1).value, ctypes.WinError(ctypes.get_last_error())
        return lambda: kernel32.CloseHandle(handle)
    return lambda: None


def test_a_state_that_another_program_keeps_open_for_good(lab: Any) -> None:
    """Such as an editor that shows it: the session ends in time, says so, and leaves no other file behind."""
    lab.steps(
        """
@pytest.mark.post_acquisition
def test_save(experiment):
    Path("saving.txt").write_text("x")
    while not Path("stop.txt").exists():
        time.sleep(0.05)

def test_acquire():
    pass
"""
    )
    running = lab.begin()
    lab.wait_for(lambda: (lab.path / "saving.txt").exists())
    state = lab.folder / METADATA / "end_state.json"
    let_go = hold_open(state)
    before = state.read_bytes()
    (lab.path / "stop.txt").write_text("x")
    done = running.finish()
    lab.wait_for(lambda: not lab.processes())
    assert "end_state.json" in done.text
    assert state.read_bytes() == before
    let_go()
    assert not list(state.parent.glob("*.tmp"))
    assert lab.messages[-1].startswith("outcome: ")
