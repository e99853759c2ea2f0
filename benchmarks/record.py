"""What one run of the benchmarks found, on which machine: as JSON, as a table on the terminal, and as a table of the README."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import Cost, cost_text

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
_PACKAGES = (
    "pytest",
    "pytest-openscope",
    "psutil",
    "pydantic",
    "rich",
    "bokeh",
    "starlette",
    "uvicorn",
    "duckdb",
    "playwright",
)
_PROGRAMS = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "rsync": ("rsync",)}


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    return {
        "cpu": _cpu(),
        "cores": psutil.cpu_count(),
        "physical_cores": psutil.cpu_count(logical=False),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file() and (found := re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE)):
        return found[1].strip()
    if sys.platform == "darwin":
        said = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return said.stdout.strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of Python, of the packages and of the programs that take part."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name, programs in _PROGRAMS.items():
        path = next(filter(None, map(shutil.which, programs)), None)
        if path is None:
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=60).stdout
        if number := re.search(r"\d+(\.\d+)+", said):
            found[name] = number[0]
    return found


def load() -> list[float]:
    """Return the load averages of 1, 5 and 15 minutes: how many processes wanted a core; nothing where nobody counts."""
    try:
        return [round(one, 2) for one in psutil.getloadavg()]
    except (RuntimeError, OSError):  # On Windows, where performance counters are switched off.
        return []


class Record:
    """One run, filled result by result.

    Attributes:
        content: what is written as JSON.
    """

    def __init__(self, quick: bool) -> None:
        self.content: dict[str, Any] = {
            "begun": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "quick": quick,
            "machine": machine(),
            "versions": versions(),
            "load_begin": load(),
            "results": [],
            "not_measured": [],
            "broken_off": [],
        }

    def end(self) -> None:
        """Note when and under which load the run ended."""
        self.content["load_end"] = load()
        self.content["ended"] = datetime.now(timezone.utc).isoformat(timespec="seconds")

    @property
    def good(self) -> bool:
        """Whether every target was met; what could not be measured for want of a program does not count."""
        return all(one["good"] for one in self.content["results"]) and not self.content["broken_off"]


def head(content: dict[str, Any]) -> str:
    """Return a run's machine, versions and load in words."""
    box = content["machine"]
    cores = f"{box['cores']} cores" + (f" ({box['physical_cores']} physical)" if box["physical_cores"] else "")
    where = f"{box['cpu']}, {cores}, {box['memory_gb']:g} GB, {box['system']}"
    with_what = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return f"{where}; {with_what}"


def load_text(content: dict[str, Any]) -> str:
    """Return the load averages at both ends."""
    begin, end = content["load_begin"], content.get("load_end")
    if not begin:
        return "load not counted on this system"
    return f"load average {begin[0]:g} at the begin" + (f", {end[0]:g} at the end" if end else "")


def rows(content: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield a line of the table for each figure: what, floor, ratio, target, ours, floor's time, verdict."""
    for one in content["results"]:
        ratio = f"{one['ratio']:.3g}"
        if one["added_limit_s"] is not None:
            ratio += f" ({one['added_s'] * 1000:+.0f} ms)"
        ours, base = cost_text(Cost(**one["ours"])), cost_text(Cost(**one["base"]))
        yield one["name"], one["floor"], ratio, one["promised"], f"{ours} per {one['per']}", base, one["verdict"]


HEADINGS = ("what", "compared with", "ratio", "promised", "ours: wall (CPU)", "compared: wall (CPU)", "")


def show(content: dict[str, Any]) -> None:
    """Print the table; in a pipe as wide as it needs to be."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    table = Table(*HEADINGS, box=box.SIMPLE)
    for row in rows(content):
        table.add_row(*row, style="bold" if row[-1] == "MISS" else None)
    console.print(table)


def readme_section(content: dict[str, Any]) -> str:
    """Return the table in Markdown, with its machine."""
    when = content["begun"][:10] + (" with --quick" if content["quick"] else "")
    lines = [
        f"Measured on {when}: {head(content)}. {load_text(content).capitalize()}.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        "|---|---|--:|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows(content)]
    missing = [*content["not_measured"], *(f"{one['benchmark']} was broken off" for one in content["broken_off"])]
    if missing:
        lines += ["", f"Not measured: {'; '.join(missing)}."]
    return "\n".join(lines)


def rewrite(readme: Path, content: dict[str, Any]) -> None:
    """Replace what stands between the README's markers.

    Raises:
        ValueError: the markers are not there, once each.
    """
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{readme}: the lines {BEGIN} and {END} are expected once each")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n\n{readme_section(content)}\n\n{END}{after}"
    temporary = readme.with_name(f"{readme.name}.new")
    temporary.write_text(made, encoding="utf-8", newline="\n")
    os.replace(temporary, readme)
