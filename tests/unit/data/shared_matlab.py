"""A MATLAB session that is shared under a name, for the stand-in of ``matlab.engine``: python shared_matlab.py FOLDER NAME

Its functions do what m-files do: print, take their time, look for Ctrl-C, fail, die.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "matlab_package"))
PATHS: list[str] = []


class Stopped(Exception):  # noqa: N818 - like KeyboardInterrupt
    """Ctrl-C; the text is the name of the exception that the caller gets."""


class Call:
    """One evaluation: what a function prints, and how it is interrupted."""

    def __init__(self, say: Callable[[Any], None], number: int) -> None:
        self._say, self._number = say, number
        self.stopped = threading.Event()
        self.how = "CancelledError"

    def print(self, text: str, stream: str = "stdout") -> None:
        self._say(("out", self._number, stream, text + "\n"))

    def pause(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise Stopped(self.how)


def slap2_launcher(call: Call, action: str, folder: str, *pairs: Any) -> None:
    if action != "execute" or not Path(folder).is_dir():
        raise ValueError(f"Undefined action {action!r} or no folder {folder!r}")
    given = dict(zip(pairs[::2], pairs[1::2], strict=True))
    frames = Path(folder) / "frames.txt"
    first = 1
    call.print(f"[SLAP2] {json.dumps(given, default=str)}")
    if given.get("resume"):
        first = len(frames.read_text().split()) + 1
        call.print(f"resumed at frame {first}")
    with frames.open("a") as file:
        try:
            for frame in range(first, given.get("frames", 3) + 1):
                file.write(f"{frame}\n")
                file.flush()
                call.print(f"frame {frame}")
                if frame == given.get("fail_at"):
                    call.print("Error using slap2", "stderr")
                    raise ValueError("the shutter is stuck")
                if frame == given.get("die_at") and not given.get("resume"):
                    time.sleep(0.1)
                    os.kill(os.getpid(), 9)
                if frame == given.get("press_ctrl_c_at"):
                    call.how = "InterruptedError"
                    call.stopped.set()
                call.pause(given.get("seconds", 0.02))
        finally:
            (Path(folder) / "closed.txt").touch()


def deaf(call: Call, *_: Any) -> None:
    call.print("deaf")
    time.sleep(4)


def show(call: Call, *arguments: Any) -> tuple[int, str]:
    for one in arguments:
        call.print(f"{type(one).__name__} {one!r}")
    return 42, "text"


def addpath(call: Call, *folders: str) -> None:
    PATHS.extend(folders)


def path(call: Call, *_: Any) -> None:
    for folder in PATHS:
        call.print(folder)


FUNCTIONS = {one.__name__: one for one in (slap2_launcher, deaf, show, addpath, path)}


def serve(pipe: Any) -> None:
    lock = threading.Lock()
    calls: dict[int, Call] = {}

    def say(message: Any) -> None:
        with lock:
            pipe.send(message)

    def evaluate(number: int, name: str, arguments: list[Any], nargout: int) -> None:
        if name == "exit":
            os._exit(0)
        try:
            if name not in FUNCTIONS:
                raise ValueError(f"Undefined function '{name}' for input arguments of type 'char'.")
            result = FUNCTIONS[name](calls[number], *arguments)
        except Stopped as stop:
            say(("failed", number, str(stop), "MATLAB function was interrupted"))
        except Exception as error:
            say(("failed", number, "MatlabExecutionError", str(error)))
        else:
            say(("done", number, None if nargout == 0 else result[0] if nargout == 1 else result[:nargout]))

    pipe.send("welcome")
    while True:
        try:
            kind, number, *rest = pipe.recv()
        except (EOFError, OSError):
            return
        if kind == "bye":
            return
        if kind == "feval":
            calls[number] = Call(say, number)
            threading.Thread(target=evaluate, args=(number, *rest), daemon=True).start()
        elif number in calls:
            calls[number].stopped.set()


def main(folder: Path, name: str) -> None:
    with Listener(("127.0.0.1", 0), backlog=5) as listener:
        note = folder / f"{name}.part"
        note.write_text(json.dumps({"pid": os.getpid(), "port": listener.address[1]}))
        note.replace(folder / f"{name}.json")
        busy = threading.Lock()

        def meet(pipe: Any) -> None:
            if not busy.acquire(timeout=0.2):
                pipe.send("occupied")
                return
            try:
                serve(pipe)
            finally:
                busy.release()

        while True:
            threading.Thread(target=meet, args=(listener.accept(),), daemon=True).start()


main(Path(sys.argv[1]), sys.argv[2])
