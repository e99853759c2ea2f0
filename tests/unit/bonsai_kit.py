"""Bonsai without Windows: workflows of a few nodes, and a stand-in that takes Bonsai's command line and prints as it does."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<WorkflowBuilder Version="2.9.0"
                 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
                 xmlns:rx="clr-namespace:Bonsai.Reactive;assembly=Bonsai.Core"
                 xmlns:io="clr-namespace:Bonsai.IO;assembly=Bonsai.System"
                 xmlns:cv="clr-namespace:Bonsai.Vision;assembly=Bonsai.Vision"
                 xmlns="https://bonsai-rx.org/2018/workflow">
"""

#: How Bonsai reports an error that ends its workflow: on stderr, and the exit code is 0.
FATAL = """Bonsai.WorkflowRuntimeException: No camera found. ---> System.InvalidOperationException: No camera found.
   at Bonsai.Vision.CameraCapture.Generate()
   --- End of inner exception stack trace ---"""

STAND_IN = '''
"""A stand-in of Bonsai.exe. What it does wrong stands in the file ``faults`` beside it, one word a line."""
import os, pathlib, sys, time

import baghban

HERE = pathlib.Path(__file__).resolve().parent
FAULTS = (HERE / "faults").read_text().split() if (HERE / "faults").is_file() else []
FATAL = """{fatal}"""


def stop(kind, text):
    print("Unhandled Exception: " + kind + ": " + text, file=sys.stderr)
    print("   at Bonsai.Program.Main(String[] args)", file=sys.stderr)
    raise SystemExit(1)


def main():
    with open(HERE / "calls", "a") as calls:
        calls.write(os.getcwd() + "|" + "|".join(sys.argv[1:]) + "\\n")
    if "silent" in FAULTS:
        time.sleep(60)
    try:
        launch = baghban.parse_command_line(sys.argv[1:])
        document = baghban.load(launch.workflow)
        baghban.set_properties(document, launch.properties, strict=True)
    except (ValueError, OSError, baghban.WorkflowLoadError) as error:
        stop("System.InvalidOperationException", str(error))
    if "--no-editor" not in launch.options or "--start" not in launch.options:
        stop("System.InvalidOperationException", "the stand-in has no editor")
    errors = baghban.check(document).errors
    build = [one for one in errors if one.code.endswith(("_SUBJECT", "_PROPERTY", "_INCLUDE"))]
    if build:
        stop("Bonsai.WorkflowBuildException", build[0].message)
    for fault in FAULTS:
        if fault == "fatal" or (fault.startswith("fatal:") and attempts() <= int(fault[6:])):
            print(FATAL, file=sys.stderr, flush=True)
            time.sleep(60 if "hang" in FAULTS else 0)
            return
        if fault == "handled":
            print("System.TimeoutException: The camera did not answer.", file=sys.stderr, flush=True)
            time.sleep(60 if "hang" in FAULTS else 1)
        if fault == "warn":
            print("libpng warning: iCCP: known incorrect sRGB profile", file=sys.stderr)
        if fault.startswith("exit:"):
            raise SystemExit(int(fault[5:]))
    print("workflow of", len(list(document.walk())), "nodes runs", flush=True)
    for output in baghban.outputs(document):
        if "no-outputs" in FAULTS or not output["path"] or output["set_at_run_time"]:
            continue
        path = pathlib.Path(output["path"])
        if output["suffix"] not in ("", "None"):
            path = path.with_name(path.stem + "2026-01-01T10_00_00" + path.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if "empty-outputs" in FAULTS else "attempt %d\\n" % attempts())
    if "hang" in FAULTS:
        time.sleep(60)


def attempts():
    return len((HERE / "calls").read_text().splitlines())


main()
'''


class StandIn:
    """A Bonsai in a folder of its own."""

    def __init__(self, folder: Path, installed: bool = True) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.exe = folder / ("Bonsai.cmd" if sys.platform == "win32" else "Bonsai.exe")
        if installed:
            install(self.exe)

    def faults(self, *words: str) -> None:
        (self.folder / "faults").write_text("\n".join(words))

    @property
    def calls(self) -> list[list[str]]:
        """Working directory and arguments of each call."""
        file = self.folder / "calls"
        return [line.split("|") for line in file.read_text().splitlines()] if file.is_file() else []

    def packages(self, pinned: dict[str, str], installed: Iterable[str]) -> None:
        """Write ``Bonsai.config``, and folders of installed packages."""
        lines = "".join(f'<Package id="{name}" version="{version}" />' for name, version in pinned.items())
        text = f"<PackageConfiguration><Packages>{lines}</Packages></PackageConfiguration>"
        (self.folder / "Bonsai.config").write_text(text, encoding="utf-8")
        for name in installed:
            (self.folder / "Packages" / name).mkdir(parents=True)


def install(exe: Path) -> None:
    """Write the stand-in: a script with its interpreter, or on Windows a batch file and the script."""
    source = STAND_IN.replace("{fatal}", FATAL)
    if sys.platform == "win32":
        script = exe.with_name("bonsai_stand_in.py")
        script.write_text(source, encoding="utf-8")
        exe.write_text(f'@"{sys.executable}" -u "%~dp0{script.name}" %*\r\n', encoding="utf-8")
    else:
        exe.write_text(f"#!{sys.executable}{source}", encoding="utf-8")
        exe.chmod(0o755)


def node(kind: str, body: str = "", disabled: bool = False) -> str:
    """Return one node; ``kind`` is its ``xsi:type``."""
    if disabled:
        return f'<Expression xsi:type="Disable"><Builder xsi:type="{kind}">{body}</Builder></Expression>'
    return f'<Expression xsi:type="{kind}">{body}</Expression>'


def timer() -> str:
    return node("Combinator", '<Combinator xsi:type="rx:Timer"><rx:Period>PT1S</rx:Period></Combinator>')


def writer(file: str, suffix: str = "Timestamp", overwrite: bool = False, disabled: bool = False) -> str:
    body = f"<io:FileName>{file}</io:FileName><io:Append>false</io:Append><io:Overwrite>{str(overwrite).lower()}</io:Overwrite>"
    return node("io:CsvWriter", f"{body}<io:Suffix>{suffix}</io:Suffix><io:IncludeHeader>true</io:IncludeHeader>", disabled)


def subject(kind: str, name: str = "") -> str:
    """``PublishSubject``, ``SubscribeSubject`` and the like."""
    prefix = "rx:" if kind in ("PublishSubject", "BehaviorSubject", "ReplaySubject") else ""
    return node(f"{prefix}{kind}", f"<{'rx:' if prefix else ''}Name>{name}</{'rx:' if prefix else ''}Name>" if name else "")


def per_trial(*nodes: str, edges: Iterable[tuple[int, int]] = ()) -> str:
    return node("rx:SelectMany", f"<Name>Trial</Name>{_graph(nodes, edges)}")


def include(path: str) -> str:
    return f'<Expression xsi:type="IncludeWorkflow" Path="{path}" />'


def externalized(name: str, display: str) -> str:
    return node("ExternalizedMapping", f'<Property Name="{name}" DisplayName="{display}" />')


def text_value() -> str:
    return node("Combinator", '<Combinator xsi:type="StringProperty"><Value>x</Value></Combinator>')


ROOT_FOLDER = (externalized("Value", "RootFolder"), text_value())


def workflow(*nodes: str, edges: Iterable[tuple[int, int]] = (), root_folder: bool = True) -> str:
    """Return a workflow file; the edges count from the first of ``nodes``, behind which ``RootFolder`` is externalized."""
    more = ROOT_FOLDER if root_folder else ()
    joined = [*edges, *([(len(nodes), len(nodes) + 1)] if root_folder else [])]
    return f"{HEAD}{_graph([*nodes, *more], joined)}</WorkflowBuilder>\n"


def _graph(nodes: Iterable[str], edges: Iterable[tuple[int, int]]) -> str:
    lines = "".join(f'<Edge From="{first}" To="{second}" Label="Source1" />' for first, second in edges)
    return f"<Workflow><Nodes>{''.join(nodes)}</Nodes><Edges>{lines}</Edges></Workflow>"


#: A workflow without a fault: a timer whose ticks are published, one file of them, whose name the session passes.
SOUND = workflow(
    timer(),
    subject("PublishSubject", "Tick"),
    subject("SubscribeSubject", "Tick"),
    externalized("FileName", "events_path"),
    writer("events.csv", "None"),
    externalized("Period", "Period"),
    edges=[(0, 1), (2, 4), (3, 4), (5, 0)],
)
