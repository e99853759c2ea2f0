"""Starts a program in the console that this process was given, and sends that console's keys on request.

Runs without a window of its own (``CREATE_NO_WINDOW``), so that no event reaches the console of the tests. It takes the place
of the operator: each line on stdin is a key (``ctrl-c``, ``ctrl-break``), each answer on stdout one line. Its first line is the
program's pid, its last the exit code.

Arguments: the file for the program's output, then the command.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading

KEYS = {"ctrl-c": 0, "ctrl-break": 1}


def main(output: str, command: list[str]) -> int:
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    # Whether Ctrl-C is ignored is inherited: from a test runner that somebody started in a group of its own, it would be.
    kernel32.SetConsoleCtrlHandler(None, False)
    with open(output, "wb") as stream:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
    for name in ("SIGINT", "SIGBREAK"):
        signal.signal(getattr(signal, name), lambda *_: None)
    print(program.pid, flush=True)

    def type_keys() -> None:
        for line in sys.stdin:
            sent = kernel32.GenerateConsoleCtrlEvent(KEYS[line.strip()], 0)
            print("sent" if sent else ctypes.get_last_error(), flush=True)  # type: ignore[attr-defined,unused-ignore]

    threading.Thread(target=type_keys, daemon=True).start()
    while program.poll() is None:
        # In slices, since handlers run between them.
        try:
            program.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    print(program.returncode, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
