"""Run the benchmarks and say which targets are met: ``python -m benchmarks [--quick] [NAME ...]``.

Every figure is a ratio: ours against what it is compared with, in turn, in one run. The exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.harness import NotMeasuredError, Result
from benchmarks.record import Record, head, load_text, rewrite, show

#: No benchmarks: what these modules hold is used by those.
_HELPERS = {"__init__", "__main__", "harness", "record", "run", "long_session"}
_ROOT = Path(__file__).resolve().parents[1]


def names() -> list[str]:
    """Return every benchmark in this folder: a module with ``run(quick)``, which gives a :class:`Result` for each figure."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _HELPERS)


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when every target was met, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names())}; all unless given")
    parser.add_argument("--quick", action="store_true", help="fewer rounds of less: for a look, not for a verdict")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything that was measured, round by round")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md, between its markers")
    parser.add_argument("--from", type=Path, metavar="PATH", dest="source", help="measure nothing: show a run's JSON")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(names())
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    if options.source is not None:
        content = json.loads(options.source.read_text(encoding="utf-8"))
        good = all(one["good"] for one in content["results"]) and not content["broken_off"]
        print(head(content))
    else:
        record = _measure(options.names or names(), options.quick, options.json)
        content, good = record.content, record.good
    show(content)
    print(load_text(content), flush=True)
    if options.json is not None:
        _write(options.json, content)
    if options.readme:
        rewrite(_ROOT / "README.md", content)
    return 0 if good else 1


def _results(name: str, quick: bool) -> Iterable[Result | NotMeasuredError]:
    found: Iterable[Result | NotMeasuredError] = importlib.import_module(f"benchmarks.{name}").run(quick)
    return found


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")


def _measure(wanted: list[str], quick: bool, path: Path | None) -> Record:
    record = Record(quick)
    print(head(record.content), load_text(record.content), sep="\n", flush=True)
    print("ratio = ours / compared with; the median of the rounds decides", flush=True)
    record.content["not_measured"] += [f"{name} (not asked for)" for name in names() if name not in wanted]
    for name in wanted:
        start_s = time.perf_counter()
        try:
            for result in _results(name, quick):
                if isinstance(result, NotMeasuredError):
                    _note_missing(record, str(result))
                else:
                    record.content["results"].append({"benchmark": name, **result.as_json()})
                    print(result, flush=True)
        except NotMeasuredError as missing:
            _note_missing(record, f"{name}: {missing}")
        except Exception as error:
            # The other figures are still wanted, and this run is a miss.
            traceback.print_exc()
            record.content["broken_off"].append({"benchmark": name, "error": f"{type(error).__name__}: {error}"})
        print(f"     ({name} took {time.perf_counter() - start_s:.0f} s)", flush=True)
        record.end()
        if path is not None:
            # A run that is cut short keeps what it has measured.
            _write(path, record.content)
    return record


def _note_missing(record: Record, text: str) -> None:
    record.content["not_measured"].append(text)
    print(f"     not measured: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
