"""The acquisition of camera.json: `python record.py movie.mkv --duration-s 2 --frame-rate-hz 30 --frame-size 320x240`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import video


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("movie", type=Path)
    parser.add_argument("--duration-s", type=float, required=True)
    parser.add_argument("--frame-rate-hz", type=float, required=True)
    parser.add_argument("--frame-size", required=True)
    arguments = parser.parse_args()
    return subprocess.run(video.record_command(**vars(arguments))).returncode


if __name__ == "__main__":
    sys.exit(main())
