"""Print what came out of runs on Windows as a Markdown table: `python table.py unit.jsonl`, files of `--outcomes`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = ("passed", "failed", "POSIX", "Wine", "not installed", "not run")
#: What a reason speaks of that lacks on this Windows and is no limit of it.
NOT_INSTALLED = ("chromium", "could not import", "no module", "not installed", "no git", "needs git", "octave", "pwsh")


@dataclass
class Group:
    """What one run has told: each test's column, and the reasons of what was skipped."""

    columns: dict[str, str] = field(default_factory=dict)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    collected: int = 0
    ended: bool = False

    @property
    def counts(self) -> Counter[str]:
        counts = Counter(self.columns.values())
        counts["not run"] = max(0, self.collected - len(self.columns))
        return counts


def read_group(path: Path) -> Group:
    """Read a file of `--outcomes`; a test is failed if any of its phases is."""
    group = Group()
    for line in path.read_text(encoding="utf-8").splitlines():
        facts = json.loads(line)
        group.collected = max(group.collected, facts.get("collected", 0))
        group.ended |= "exit_code" in facts
        if "test" not in facts:
            continue
        column = facts["outcome"]
        if column == "skipped":
            column = column_of(facts["reason"])
            group.reasons[column, facts["reason"]] += 1
        if group.columns.get(facts["test"]) != "failed":
            group.columns[facts["test"]] = column
    return group


def column_of(reason: str) -> str:
    """Return the column of a test that was skipped."""
    if reason.startswith("Wine"):
        return "Wine"
    return "not installed" if any(words in reason.casefold() for words in NOT_INSTALLED) else "POSIX"


def main() -> None:
    """Print the table, and under it the failed tests and every reason with its number of tests."""
    print("| group | tests | " + " | ".join(COLUMNS) + " | run of those not about POSIX |")
    print("| --- |" + " --- |" * (len(COLUMNS) + 2))
    groups = {path.stem: read_group(path) for path in map(Path, sys.argv[1:])}
    for name, group in groups.items():
        counts = group.counts
        total = counts.total()
        share = (counts["passed"] + counts["failed"]) / max(1, total - counts["POSIX"])
        shown = name if group.ended else f"{name} (stopped)"
        print(f"| {shown} | {total} | " + " | ".join(str(counts[each]) for each in COLUMNS) + f" | {share:.0%} |")
    print()
    for group in groups.values():
        for test, column in group.columns.items():
            if column == "failed":
                print(f"- failed: {test}")
    reasons = sum((group.reasons for group in groups.values()), Counter[tuple[str, str]]())
    for (column, reason), number in sorted(reasons.items()):
        print(f"- {column}, {number}: {reason}")


if __name__ == "__main__":
    main()
