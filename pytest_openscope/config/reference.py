"""The tables of ``docs/reference/configuration.md``, made from the schema.

``python -m pytest_openscope.config.reference docs/reference/configuration.md`` rewrites them in place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .schema import (
    DEVICE_KEYS,
    ENTRY_KEYS,
    GITHUB_KEYS,
    PARAMETER_KEYS,
    READINESS_KEYS,
    REQUIREMENTS_KEYS,
    RIG_KEYS,
    Key,
)

TABLES: dict[str, tuple[Key, ...]] = {
    "rig": RIG_KEYS,
    "parameters": PARAMETER_KEYS,
    "github_issue": GITHUB_KEYS,
    "devices": DEVICE_KEYS,
    "requirements": REQUIREMENTS_KEYS,
    "readiness": READINESS_KEYS,
    "pipeline": ENTRY_KEYS,
}
_KINDS = {
    "id": "name or number",
    "integer": "whole number",
    "duration": "seconds, or text such as `10m`",
    "flag": "true/false",
    "texts": "list of texts",
    "level": "log level",
    "levels": "logger name: log level",
    "command": "list (or text)",
    "any": "anything",
}


def table(keys: Iterable[Key]) -> str:
    """Return a Markdown table of keys."""
    rows = ["| key | type | default | unit | meaning |", "|---|---|---|---|---|"]
    rows += [f"| `{key.name}` | {_kind(key)} | {_default(key.default)} | {key.unit} | {key.doc} |" for key in keys]
    return "\n".join(rows)


def _kind(key: Key) -> str:
    kind = ", ".join(f"`{choice}`" for choice in key.choices) if key.kind == "choice" else _KINDS.get(key.kind, key.kind)
    if key.kind == "texts" and key.choices:
        kind = "list of " + ", ".join(f"`{choice}`" for choice in key.choices)
    if key.minimum is not None and key.maximum is not None:
        return f"{kind}, {key.minimum:g} to {key.maximum:g}"
    return f"{kind}, at least {key.minimum:g}" if key.minimum else kind


def _default(value: Any) -> str:
    if value is None or value == () or value == {}:
        return ""
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def fill(page: str) -> str:
    """Return the page with every table between ``<!-- table NAME -->`` and ``<!-- end -->`` made anew."""
    for name, keys in TABLES.items():
        begin, end = f"<!-- table {name} -->\n", "\n<!-- end -->"
        head, found, rest = page.partition(begin)
        if not found or end not in rest:
            raise ValueError(f"the page has no place for the table {name}")
        page = head + begin + table(keys) + end + rest.partition(end)[2]
    return page


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(fill(target.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
