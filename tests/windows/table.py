"""Print what came out of runs on Windows as a Markdown table: `python table.py unit.xml plugin.xml`, JUnit files of pytest."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

COLUMNS = ("passed", "failed", "POSIX", "Wine", "not installed")
#: What a reason speaks of that lacks on this Windows and is no limit of it.
NOT_INSTALLED = (
    "No Chromium",
    "no Chromium",
    "could not import",
    "No module",
    "not installed",
    "no git",
    "needs git",
    "octave",
    "Octave",
)


def outcomes(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield each test's name, its column and the reason why it was skipped."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        if skipped is not None:
            reason = skipped.get("message", "")
            if reason.startswith("Wine"):
                yield name, "Wine", reason
            else:
                yield name, "not installed" if any(words in reason for words in NOT_INSTALLED) else "POSIX", reason
        elif case.find("failure") is not None or case.find("error") is not None:
            yield name, "failed", ""
        else:
            yield name, "passed", ""


def main() -> None:
    """Print the table, and under it every reason with its number of tests."""
    print("| group | tests | " + " | ".join(COLUMNS) + " | run of those not about POSIX |")
    print("| --- |" + " --- |" * (len(COLUMNS) + 2))
    reasons: Counter[tuple[str, str]] = Counter()
    for path in map(Path, sys.argv[1:]):
        found = list(outcomes(path))
        counted = Counter(column for _, column, _ in found)
        reasons.update((column, reason) for _, column, reason in found if reason)
        run = counted["passed"] + counted["failed"]
        share = run / max(1, len(found) - counted["POSIX"])
        print(f"| {path.stem} | {len(found)} | " + " | ".join(str(counted[each]) for each in COLUMNS) + f" | {share:.0%} |")
    print()
    for (column, reason), number in sorted(reasons.items()):
        print(f"- {column}, {number}: {reason}")


if __name__ == "__main__":
    main()
