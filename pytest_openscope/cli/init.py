"""``openscope init``: writes a rig file and a first experiment into a folder, and runs its dry run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..config import ConfigRequest, load, rig_schema
from ..system import command_line, is_terminal
from .common import EXIT_OK, WrongUse, environment_without_ours

_RIG = """\
# yaml-language-server: $schema=rig.schema.json
# What is constant on this rig. What changes from day to day goes onto the command line or into a parameter file.
rig_id: {rig_id}
output_root_folder: {output_root} # each session gets a folder of its own here
{mirror}
# Hardware values of the lab's own; a step reads them as rig["camera.exposure_ms"].
values:
  camera:
    exposure_ms: 20

# Any class drives a device; its open, close, check, safe_state and read_state are used where it has them.
# devices:
#  laser:
#    driver: "my_lab.laser:Laser"
#    params: {{port: COM7}}
"""
_MIRROR = "centralized_log_directory: {} # a copy of every session log, while the session runs\n"
_NO_MIRROR = "# centralized_log_directory: '//server/logs' # a copy of every session log, while the session runs\n"
_INI = """\
[pytest]
# With this line, plain `pytest` runs the experiment:
# rig_config = rig.yaml
"""
_ACQUIRE = '''\
"""Stands for the program that acquires your data: python acquire.py FRAMES.csv --exposure-ms 20"""

import argparse
import csv
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("--exposure-ms", type=float, default=20.0)
    arguments = parser.parse_args()
    with open(arguments.table, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["frame", "time_s"])
        start = time.monotonic()
        for frame in range(10):
            time.sleep(arguments.exposure_ms / 1000)
            writer.writerow([frame, f"{time.monotonic() - start:.3f}"])
            print(f"frame {frame + 1} of 10", flush=True)


if __name__ == "__main__":
    main()
'''
_TEST = '''\
"""A first experiment: each test is a step, and its marker says in which phase it runs."""

import csv
import shutil
import sys
from pathlib import Path

import pytest

from pytest_openscope import Acquisition, Experiment, Rig


@pytest.mark.pre_acquisition
def test_disk_space(experiment: Experiment) -> None:
    """A failure here, and nothing is acquired."""
    free_gb = shutil.disk_usage(experiment.session_folder).free / 1e9
    experiment.measure("free_disk", round(free_gb, 1), unit="GB", minimum=0.1)


@pytest.mark.acquisition
def test_camera(acquisition: Acquisition, experiment: Experiment, rig: Rig) -> None:
    """Runs the program; its output goes into the session log. A dry run simulates it."""
    program = Path(__file__).with_name("acquire.py")
    table = experiment.session_folder / "frames.csv"
    exposure_ms = str(rig["camera.exposure_ms"])
    acquisition.run(command=[sys.executable, str(program), str(table), "--exposure-ms", exposure_ms], timeout_s=60)


@pytest.mark.post_acquisition
def test_frames_are_complete(experiment: Experiment) -> None:
    """Runs once an acquisition has begun, whatever happened in it."""
    if experiment.dry_run:
        pytest.skip("a dry run acquires nothing")
    with open(experiment.session_folder / "frames.csv", encoding="utf-8", newline="") as stream:
        frames = sum(1 for _ in csv.DictReader(stream))
    experiment.measure("frames", frames, minimum=10, maximum=10)
'''
_DEMO = ("--subject-id", "demo", "--user-id", "demo", "--no-input")


def init(
    folder: Annotated[Path, typer.Argument(help="where the files go; made where it is missing", metavar="[FOLDER]")] = Path(),
    rig_id: Annotated[str | None, typer.Option(help="name of the rig; the host's name when nothing is given")] = None,
    output_root: Annotated[str | None, typer.Option(help="folder of the session folders", metavar="PATH")] = None,
    central_logs: Annotated[str | None, typer.Option(help="central folder of all session logs", metavar="PATH")] = None,
    no_input: Annotated[bool, typer.Option("--no-input", help="ask nothing")] = False,
) -> int:
    """Write a commented rig file and a first experiment, and run it once as a dry run.

    Exit code 0: written, and the dry run passed; 4: a file is there already, or an answer is no good (nothing is written);
    otherwise that of the dry run.
    """
    folder = folder.expanduser().absolute()
    names = ("rig.yaml", "rig.schema.json", "pytest.ini", "acquire.py", "test_experiment.py")
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise WrongUse(f"{folder}: {', '.join(there)} there already -> name another folder; nothing is ever overwritten")
    asking = not no_input and not os.environ.get("CI") and is_terminal(sys.stdin)
    rig_id = _answer(rig_id, "Name of this rig", platform.node() or "rig", asking)
    usual = "C:/experiment_data" if sys.platform == "win32" else "sessions"
    output_root = _answer(output_root, "Folder for the data", usual, asking)
    central_logs = _answer(central_logs, "Central folder of all session logs (empty: none)", "", asking)
    quoted = {"rig_id": json.dumps(rig_id, ensure_ascii=False), "output_root": json.dumps(output_root, ensure_ascii=False)}
    mirror = _MIRROR.format(json.dumps(central_logs, ensure_ascii=False)) if central_logs else _NO_MIRROR
    contents = (_RIG.format(**quoted, mirror=mirror), json.dumps(rig_schema(), indent=1) + "\n", _INI, _ACQUIRE, _TEST)
    with tempfile.TemporaryDirectory() as draft:
        rig = Path(draft) / "rig.yaml"
        rig.write_text(contents[0], encoding="utf-8", newline="\n")
        mistakes = load(ConfigRequest(rig_config=rig, cwd=Path(draft), environ=os.environ)).mistakes
    if mistakes:
        raise WrongUse(*mistakes)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, contents, strict=True):
        with open(folder / name, "x", encoding="utf-8", newline="\n") as stream:
            stream.write(content)
    print(f"written into {folder}: {', '.join(names)}\n", flush=True)
    dry_run = [sys.executable, "-m", "pytest", "--rig-config", "rig.yaml", "--dry-run", *_DEMO]
    code = subprocess.run(dry_run, cwd=folder, env=environment_without_ours(), check=False).returncode
    if code == EXIT_OK:
        print("\nThe dry run passed. For real (the first experiment needs no hardware):")
        print(f"  {command_line(['cd', str(folder)])}\n  pytest --rig-config rig.yaml --subject-id ID --user-id YOU")
    return code


def _answer(given: str | None, question: str, default: str, asking: bool) -> str:
    if given is not None or not asking:
        return given if given is not None else default
    return str(typer.prompt(question, default=default, show_default=bool(default))).strip()
