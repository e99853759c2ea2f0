"""A Windows that shuts down in the middle of a step: refused at first, obeyed when somebody insists."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="the messages by which Windows shuts down")

#: Another process asks, as Windows does: for the hidden window of the session, first whether it may, then telling that it does.
WINDOWS = """
import ctypes, sys, time
user32 = ctypes.WinDLL("user32")
owner, window = ctypes.c_ulong(), ctypes.c_void_p()
user32.FindWindowExW.restype = ctypes.c_void_p
user32.FindWindowExW.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_wchar_p]
user32.GetWindowThreadProcessId.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
send = user32.SendMessageTimeoutW
wide, number = ctypes.c_void_p, ctypes.c_uint
send.argtypes = [wide, number, ctypes.c_size_t, ctypes.c_ssize_t, number, number, wide]
deadline = time.monotonic() + 30
while time.monotonic() < deadline and owner.value != int(sys.argv[1]):
    window = user32.FindWindowExW(None, window, None, "pytest-openscope")
    if window:
        user32.GetWindowThreadProcessId(window, ctypes.byref(owner))
    else:
        time.sleep(0.05)
answer = ctypes.c_size_t(99)
send(window, 0x11, 0, 0, 0, 10_000, ctypes.byref(answer))
open("answer", "w").write(str(answer.value))
send(window, 0x16, 1, 0, 0, 30_000, ctypes.byref(answer))
"""

STEPS = """
import subprocess

@pytest.fixture
def laser():
    yield
    print("the laser is off")

def test_run(laser):
    subprocess.Popen([sys.executable, "windows.py", str(os.getpid())])
    time.sleep(90)
"""


def test_a_shutdown_is_refused_and_then_ends_the_session_with_its_states(bench: Any) -> None:
    bench.write("windows.py", WINDOWS)
    bench.steps(STEPS)
    result = bench.run()
    assert result.ret == 2, result.outlines
    [folder] = bench.folders
    log = (folder / "launcher_metadata" / "launcher.log").read_text(encoding="utf-8")
    assert f"Windows asks for shutdown: refused, the experiment {folder.name} is running" in log
    assert (bench.path / "answer").read_text(encoding="utf-8") == "0"
    assert "shutdown: stopping" in log
    assert "the laser is off" in log
    assert (bench.end["outcome"], bench.end["exit_code"]) == ("interrupted", 2)
    result.stdout.fnmatch_lines(["*Windows asks for shutdown: refused*"])
