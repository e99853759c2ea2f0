"""Makes the tables of ``docs/reference/configuration.md`` and the JSON Schema files beside it from the models.

``python -m pytest_openscope.config.reference docs/reference/configuration.md`` rewrites them in place.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .fields import choices_of, keys_of, kinds_of, limits_of
from .models import Device, Entry, GithubIssueSettings, Readiness, Requirements, RigFile, Settings
from .schema import parameters_schema, rig_schema

TABLES: dict[str, type[BaseModel]] = {
    "rig": RigFile,
    "parameters": Settings,
    "github_issue": GithubIssueSettings,
    "devices": Device,
    "requirements": Requirements,
    "readiness": Readiness,
    "pipeline": Entry,
}


def table(model: type[BaseModel]) -> str:
    """Return a Markdown table of a model's keys."""
    rows = ["| key | type | default | unit | meaning |", "|---|---|---|---|---|"]
    for name, field in keys_of(model).items():
        extra = field.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, dict) else ""
        rows.append(f"| `{name}` | {_kind(field)} | {_default(field.default)} | {unit} | {field.description} |")
    return "\n".join(rows)


def _kind(field: FieldInfo) -> str:
    kinds = kinds_of(field)
    words = (kinds[0].words or kinds[0].name) if kinds else "mapping" if "Github" in str(field.annotation) else "anything"
    if choices := ", ".join(f"`{choice}`" for choice in choices_of(field.annotation)):
        words = f"list of {choices}" if isinstance(field.default, tuple) else choices
    limits = limits_of(field)
    if "ge" in limits and "le" in limits:
        return f"{words}, {limits['ge']:g} to {limits['le']:g}"
    return f"{words}, at least {limits['ge']:g}" if limits.get("ge") else words


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
    for name, model in TABLES.items():
        begin, end = f"<!-- table {name} -->\n", "\n<!-- end -->"
        head, found, rest = page.partition(begin)
        if not found or end not in rest:
            raise ValueError(f"the page has no place for the table {name}")
        page = head + begin + table(model) + end + rest.partition(end)[2]
    return page


def schema_files() -> dict[str, str]:
    """Return the schema files that stand beside the page, by name."""
    schemas = {"rig.schema.json": rig_schema(), "parameters.schema.json": parameters_schema()}
    return {name: json.dumps(schema, indent=1, ensure_ascii=False) + "\n" for name, schema in schemas.items()}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(fill(target.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    for file, text in schema_files().items():
        target.with_name(file).write_text(text, encoding="utf-8", newline="\n")
