"""What is told of a Windows that may spoil a session: OneDrive, the Store's Python, priorities, jobs, drive letters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest

from pytest_openscope.system.surroundings import from_the_store, missing_drive, one_drive_of, remarks

ENVIRON = {
    "OneDrive": r"C:\Users\ada\OneDrive",
    "OneDriveCommercial": r"C:\Users\ada\OneDrive - Allen Institute",
    "LOCALAPPDATA": r"C:\Users\ada\AppData\Local",
}


@pytest.mark.parametrize(
    ("path", "drive"),
    [
        (r"C:\Users\ada\OneDrive - Allen Institute\Documents\sessions", "OneDriveCommercial"),
        (r"c:\users\ADA\onedrive\Desktop", "OneDrive"),
        (r"C:\Users\ada\OneDrive2", ""),
        (r"D:\OneDrive\sessions", ""),
        (r"\\server\share\sessions", ""),
    ],
)
def test_a_folder_that_onedrive_uploads_is_known(path: str, drive: str) -> None:
    assert one_drive_of(PureWindowsPath(path), ENVIRON) == ENVIRON.get(drive, "")
    assert one_drive_of(PureWindowsPath(path), {"OneDrive": ""}) == ""


def test_the_stores_python_is_known() -> None:
    store = r"C:\Program Files\WindowsApps\PythonSoftwareFoundation.Python.3.11_3.11.2544.0_x64__qbz5n2kfra8p0"
    assert from_the_store(store)
    assert not from_the_store(r"C:\Users\ada\AppData\Local\Programs\Python\Python311")


@pytest.mark.skipif(sys.platform == "win32", reason="elsewhere there is nothing to tell")
def test_elsewhere_nothing_is_told() -> None:
    assert remarks(Path("/data"), Path("/state"), ENVIRON) == []
    assert missing_drive(Path("Q:/data")) == ""


@pytest.mark.skipif(sys.platform != "win32", reason="drives of Windows")
def test_a_drive_that_is_not_there_is_explained() -> None:
    taken = {letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if Path(f"{letter}:\\").exists()}
    free = next(letter for letter in "QRSTUVWXYJKLM" if letter not in taken)
    text = missing_drive(Path(f"{free}:\\logs"))
    assert f"there is no drive {free}: here" in text
    assert r"\\server\share" in text
    assert missing_drive(Path(r"C:\logs")) == ""
    assert missing_drive(Path(r"\\server\share")) == ""


#: Runs at a low priority, in a job that its child may leave or may not.
PROCESS = r"""
import ctypes, psutil, subprocess, sys
from pathlib import Path
from pytest_openscope.system import Job, remarks, spawn_detached
kernel = ctypes.WinDLL("kernel32")
kernel.CreateJobObjectW.restype = kernel.GetCurrentProcess.restype = ctypes.c_void_p
kernel.SetInformationJobObject.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong]
kernel.AssignProcessToJobObject.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
job, limits = kernel.CreateJobObjectW(None, None), (ctypes.c_uint32 * 36)()
limits[4] = int(sys.argv[1], 16)
assert kernel.SetInformationJobObject(job, 9, ctypes.byref(limits), ctypes.sizeof(limits))
assert kernel.AssignProcessToJobObject(job, kernel.GetCurrentProcess())
psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
environ = {"OneDrive": r"C:\cloud", "LOCALAPPDATA": r"C:\local"}
for text in remarks(Path(r"C:\Cloud\data"), Path(r"C:\local\state"), environ):
    print(text[:20])
child = "from pytest_openscope.system import in_a_job; print('kept in the job:', in_a_job())"
print(spawn_detached([sys.executable, "-c", child], stdout=subprocess.PIPE).communicate()[0].decode())
"""


@pytest.mark.skipif(sys.platform != "win32", reason="jobs and priorities of Windows")
def test_windows_itself_tells() -> None:
    for flags, kept in (("0800", False), ("0000", True)):
        command = [sys.executable, "-c", PROCESS, flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        said = [line for line in done.stdout.splitlines() if line and "session 0" not in line]
        assert said == ["output_root_folder: ", "this process has les", f"kept in the job: {kept}"], done.stderr
