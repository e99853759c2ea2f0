"""``python -m pytest_openscope.sidecar --folder SESSION_FOLDER [--finish | --watch HANDLE]`` runs a sidecar."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .loop import PatientStderr, Sidecar, detach


def main(args: Sequence[str]) -> int:
    """Run a sidecar; ``--finish`` takes a session whose experiment process is known to be gone."""
    parser = argparse.ArgumentParser("python -m pytest_openscope.sidecar")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--finish", action="store_true")
    parser.add_argument("--watch", type=int, help="handle that the experiment process has lent to itself")
    options = parser.parse_args(args)
    folder = options.folder.absolute()
    sys.stderr = PatientStderr()
    detach(options.watch)
    return Sidecar(folder, options.finish, options.watch).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
