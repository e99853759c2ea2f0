"""``openscope import-rig``: turns a rig file of the launcher (TOML) into one of this plugin (YAML)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import ConfigRequest, Rig, dump_yaml, load, rig_schema
from .common import EXIT_OK, WrongUse, environment_without_ours

#: What the launcher takes where its rig file names no output root.
LAUNCHER_OUTPUT_ROOT = "C:/experiment_data"
_SCHEMA = "rig.schema.json"


def import_rig(
    old: Annotated[Path, typer.Argument(help="the launcher's rig file", metavar="OLD.toml")],
    new: Annotated[Path | None, typer.Argument(help="the new rig file; OLD.yaml when left out", metavar="[NEW.yaml]")] = None,
) -> int:
    """Turn the launcher's rig file into the new one; the old one stays as it is.

    Exit code 0: written; 4: the old file has mistakes, or the new one is there already (nothing is written).
    """
    target = (new if new is not None else old.with_suffix(".yaml")).absolute()
    schema = target.with_name(_SCHEMA)
    if target.exists():
        raise WrongUse(f"{target}: is there already -> name another file; nothing is ever overwritten")
    loaded = load(ConfigRequest(rig_config=old.absolute(), dry_run=True, environ=environment_without_ours()))
    if loaded.configuration is None:
        raise WrongUse(*loaded.mistakes)
    text = rig_yaml(loaded.configuration.rig)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "x", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
    if not schema.exists():
        schema.write_text(json.dumps(rig_schema(), indent=1) + "\n", encoding="utf-8", newline="\n")
    print(f"written: {target}")
    for notice in loaded.notices:
        print(f"note: {notice}")
    print(f"Comments stay in {old.name}. Check it:  pytest --rig-config {target.name} --validate-rig --dry-run")
    return EXIT_OK


def rig_yaml(rig: Rig) -> str:
    """Return a rig file of this plugin that says what ``rig`` says: the rig's own keys, defaults, the lab's values."""
    defaults = dict(rig.defaults)
    root = defaults.pop("output_root_folder", None) or LAUNCHER_OUTPUT_ROOT
    named = {"rig_id": rig.raw["rig_id"]} if rig.raw.get("rig_id") is not None else {}
    blocks: list[tuple[str, dict[str, Any]]] = [
        ("", {**named, "output_root_folder": root}),
        (
            "Parameters that every session on this rig starts from; a parameter file may override them.",
            {"parameters": defaults},
        ),
        ('Hardware values of the lab\'s own; a step reads them as rig["KEY"].', {"values": dict(rig.values_)}),
        ("", {name: dict(getattr(rig, name)) for name in ("devices", "requirements", "readiness") if getattr(rig, name)}),
    ]
    lines = [f"# yaml-language-server: $schema={_SCHEMA}", f"# Made from {rig.path.name}."]
    for comment, block in blocks:
        filled = {key: value for key, value in block.items() if value not in ({}, None)}
        if filled:
            lines += ["", *([f"# {comment}"] if comment else []), dump_yaml(filled).rstrip("\n")]
    return "\n".join(lines) + "\n"
