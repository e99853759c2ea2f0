"""Run the benchmarks and say which targets are met: ``python -m benchmarks [--quick] [NAME ...]``."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from pathlib import Path

#: No benchmarks with a target: ``mirror_scaling`` is a program of its own that prints a table.
_HELPERS = {"__init__", "__main__", "harness", "run", "mirror_scaling"}


def names() -> list[str]:
    """Return every benchmark in this folder: a module with ``run(quick) -> list[Result]``."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _HELPERS)


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when every target was met, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names())}; all unless given")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: for a look, not for a verdict")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(names())
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    cores = os.cpu_count()
    print(f"{platform.platform()}, Python {platform.python_version()}, {cores} cores", flush=True)
    print("ratio = ours / compared with; the median decides", flush=True)
    good = True
    for name in options.names or names():
        start_s = time.perf_counter()
        for result in importlib.import_module(f"benchmarks.{name}").run(options.quick):
            good &= result.good
            print(result, flush=True)
        print(f"     ({name} took {time.perf_counter() - start_s:.0f} s)", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
