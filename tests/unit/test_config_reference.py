"""The reference page, the schema files and the models say the same."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from pytest_openscope.config import ConfigRequest, load, parameters_schema, rig_schema
from pytest_openscope.config.fields import keys_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "configuration.md"
_MAKER = runpy.run_path(str(ROOT / "docs" / "tables.py"))
TABLES, REMEDY = _MAKER["TABLES"]["configuration.md"], "run: python docs/tables.py"
_EVERY_KEY = [(model, name) for model in TABLES.values() for name in keys_of(model)]
_RIGS = sorted((ROOT / "example_rigs").glob("*/*rig*.yaml"))
_PARAMETERS = sorted([*(ROOT / "example_rigs").glob("*/*.json"), *(ROOT / "tests/unit/data").rglob("*.json")])


def test_the_page_and_the_schema_files_are_up_to_date() -> None:
    for name, text in _MAKER["generated_files"]().items():
        kept = PAGE.with_name(name).read_text(encoding="utf-8")
        if name.endswith(".json"):
            assert _outline(json.loads(kept)) == _outline(json.loads(text)), REMEDY
        else:
            assert kept == text, REMEDY


def _outline(schema: dict[str, Any]) -> dict[str, str]:
    """Return what each key means; how a type is written differs between versions of pydantic."""
    sections = {"": schema, **schema["$defs"]}
    return {
        f"{section}.{name}": str(one.get("description", ""))
        for section, content in sections.items()
        for name, one in content.get("properties", {}).items()
    }


@pytest.mark.parametrize(("model", "name"), _EVERY_KEY, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_every_key_is_on_the_page_with_its_meaning_and_a_sound_default(model: type[BaseModel], name: str) -> None:
    field = keys_of(model)[name]
    assert f"| `{name}` |" in PAGE.read_text(encoding="utf-8")
    assert field.description
    assert not field.description.endswith(".")
    if field.default is not None and name != "$schema":
        read = model.model_validate({name: list(field.default) if isinstance(field.default, tuple) else field.default})
        assert getattr(read, name) == field.default


def test_null_is_the_default() -> None:
    for model in TABLES.values():
        assert model.model_validate(dict.fromkeys(keys_of(model))) == model.model_validate({})


@cache
def _validator(schema: Callable[[], dict[str, Any]]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


def _check(schema: Callable[[], dict[str, Any]], content: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in _validator(schema).iter_errors(content)]


@pytest.mark.parametrize("path", _RIGS, ids=lambda path: path.parent.name)
def test_the_schema_takes_every_example_rig(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert _check(rig_schema, yaml.safe_load(text)) == []
    comment = text.splitlines()[0]
    assert comment.startswith("# yaml-language-server: $schema="), "editors find the schema by this line"
    assert (path.parent / comment.partition("=")[2]).resolve() == PAGE.with_name("rig.schema.json")


@pytest.mark.parametrize("path", _PARAMETERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_schema_takes_every_parameter_file(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert _check(parameters_schema, content) == []


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"log_level": "LOUD"}, "LOUD"),
        ({"session_sync_port": 70_000}, "70000"),
        ({"devices": {"cam": {"driver": "a:B", "open": "later"}}}, "later"),
        ({"requirements": {"free_gigabytes": 3}}, "free_gigabytes"),
        ({"low_memory_percent": 0}, "0"),
        ({"ask_notes": "no"}, "no"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(tmp_path: Path, section: dict[str, Any], words: str) -> None:
    rig = {"rig_id": "r", "output_root_folder": "out", **section}
    (tmp_path / "rig.json").write_text(json.dumps(rig), encoding="utf-8")
    assert load(ConfigRequest(rig_config=tmp_path / "rig.json", cwd=tmp_path)).mistakes
    (error,) = _check(rig_schema, rig)
    assert words in error
