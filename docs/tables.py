"""Makes the tables of the reference pages and the JSON Schema files beside them from the models that declare the keys.

Run: ``python docs/tables.py`` in an environment with the project; it rewrites them in place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pytest_openscope.config import models, parameters_schema, rig_schema
from pytest_openscope.config.fields import choices_of, keys_of, kind_of_key, limits_of
from pytest_openscope.modules.ready_made import READY_MADE

REFERENCE = Path(__file__).parent / "reference"
#: The models whose keys a page lists, by the name of the table.
TABLES: dict[str, dict[str, type[BaseModel]]] = {
    "configuration.md": {
        "rig": models.RigFile,
        "parameters": models.Settings,
        "github_issue": models.GithubIssueSettings,
        "otel": models.OtelSettings,
        "alerts": models.AlertSettings,
        "devices": models.Device,
        "requirements": models.Requirements,
        "readiness": models.Readiness,
        "pipeline": models.PipelineEntry,
    },
    "modules.md": {name: step.model for name, step in READY_MADE.items()},
}


def generated_files() -> dict[str, str]:
    """Return the content that every generated file of the reference must have, by name."""
    pages = {name: fill_tables((REFERENCE / name).read_text(encoding="utf-8"), tables) for name, tables in TABLES.items()}
    schemas = {"rig.schema.json": rig_schema(), "parameters.schema.json": parameters_schema()}
    return pages | {name: json.dumps(schema, indent=1, ensure_ascii=False) + "\n" for name, schema in schemas.items()}


def fill_tables(page: str, tables: Mapping[str, type[BaseModel]]) -> str:
    """Return the page with every table between ``<!-- table NAME -->`` and ``<!-- end -->`` made anew."""
    for name, model in tables.items():
        begin, end = f"<!-- table {name} -->\n", "\n<!-- end -->"
        head, found, rest = page.partition(begin)
        if not found or end not in rest:
            raise ValueError(f"the page has no place for the table {name}")
        page = head + begin + table(model) + end + rest.partition(end)[2]
    return page


def table(model: type[BaseModel]) -> str:
    """Return a Markdown table of a model's keys."""
    rows = ["| key | type | default | unit | meaning |", "|---|---|---|---|---|"]
    for name, field in keys_of(model).items():
        extra = field.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, dict) else ""
        rows.append(f"| `{name}` | {_kind(field)} | {_default(field.default)} | {unit} | {field.description} |")
    return "\n".join(rows)


def _kind(field: FieldInfo) -> str:
    kind = kind_of_key(field)
    words = kind.words or kind.name or ("mapping" if "Settings" in str(field.annotation) else "anything")
    choices = ", ".join(f"`{choice}`" for choice in choices_of(field.annotation))
    if choices and not kind.words:
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


if __name__ == "__main__":
    for file, text in generated_files().items():
        (REFERENCE / file).write_text(text, encoding="utf-8", newline="\n")
