#!/usr/bin/env python3
"""Stands for Bonsai.exe: reads command line and workflow as Bonsai does, and writes the files that the workflow names."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import baghban


def main() -> None:
    launch = baghban.parse_command_line(sys.argv[1:])
    document = baghban.load(launch.workflow)
    baghban.set_properties(document, launch.properties, strict=True)
    if problems := baghban.check(document).errors:
        print(f"Bonsai.WorkflowBuildException: {problems[0].message}", file=sys.stderr)
        raise SystemExit(1)
    for output in baghban.outputs(document):
        path = Path(output["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            for trial in range(1, 7):
                time.sleep(0.1)
                stream.write(f"{trial}\n")
                print(f"trial {trial} of 6", flush=True)


if __name__ == "__main__":
    main()
