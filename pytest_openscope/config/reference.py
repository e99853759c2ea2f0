"""Makes the tables of ``docs/reference/configuration.md`` and the JSON Schema files beside it from the models.

``python -m pytest_openscope.config.reference docs/reference/configuration.md`` rewrites them in place.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from . import models
from .schema import parameters_schema, rig_schema
from .tables import fill_tables

TABLES: dict[str, type[BaseModel]] = {
    "rig": models.RigFile,
    "parameters": models.Settings,
    "github_issue": models.GithubIssueSettings,
    "otel": models.OtelSettings,
    "alerts": models.AlertSettings,
    "devices": models.Device,
    "requirements": models.Requirements,
    "readiness": models.Readiness,
    "pipeline": models.Entry,
}


def schema_files() -> dict[str, str]:
    """Return the schema files that stand beside the page, by name."""
    schemas = {"rig.schema.json": rig_schema(), "parameters.schema.json": parameters_schema()}
    return {name: json.dumps(schema, indent=1, ensure_ascii=False) + "\n" for name, schema in schemas.items()}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(fill_tables(target.read_text(encoding="utf-8"), TABLES), encoding="utf-8", newline="\n")
    for file, text in schema_files().items():
        target.with_name(file).write_text(text, encoding="utf-8", newline="\n")
