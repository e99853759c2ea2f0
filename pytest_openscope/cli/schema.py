"""``openscope schema``: prints the JSON Schema of rig files and parameter files."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from ..config import load_model, parameters_schema, read_mapping, rig_schema
from ..records import Mistake
from .common import EXIT_OK, WrongUse


class Kind(str, Enum):
    """The files that have a schema."""

    RIG = "rig"
    PARAMETERS = "parameters"


def schema(
    kind: Annotated[Kind, typer.Argument(help="the schema of rig files, or that of parameter files")],
    file: Annotated[
        Path | None, typer.Argument(help="a file whose rig_model or parameters_model adds the lab's own keys", metavar="[FILE]")
    ] = None,
) -> int:
    """Print the JSON Schema of rig files or parameter files, for editors (yaml-language-server, VS Code)."""
    key = "rig_model" if kind is Kind.RIG else "parameters_model"
    model: type[BaseModel] | None = None
    if file is not None:
        mistakes: list[Mistake] = []
        content = read_mapping(file, str(file), f"{kind.value} file", mistakes)
        if isinstance(content, Mistake):
            mistakes.append(content)
        elif content.get(key):
            try:
                model = load_model(str(content[key]), file.parent)
            except ValueError as wrong:
                mistakes.append(Mistake(str(file), str(wrong), "name a pydantic model, module:Class", key))
        if mistakes:
            raise WrongUse(*mistakes)
    made: dict[str, Any] = rig_schema(model) if kind is Kind.RIG else parameters_schema(model)
    print(json.dumps(made, indent=1, ensure_ascii=False))
    return EXIT_OK
