"""JSON Schema of rig files and parameter files, so that editors complete and check them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .fields import keys_of, limits_of
from .models import (
    ACQUISITION_KEYS,
    FLAT_GITHUB,
    PIPELINES,
    AcquisitionEntry,
    AlertSettings,
    Device,
    Entry,
    GithubIssueSettings,
    OtelSettings,
    Readiness,
    Requirements,
    RigFile,
    Settings,
)

#: Blocks of the parameters, by the name of their model.
_BLOCKS: dict[str, type[BaseModel]] = {one.__name__: one for one in (GithubIssueSettings, OtelSettings, AlertSettings)}
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLACEHOLDER = {"type": "string", "pattern": r"\{[^{}]+\}|\$\w|\$\{|%\w+%", "description": "a placeholder"}


def rig_schema(rig_model: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return the schema of a rig file; ``values`` is described by the lab's own model where there is one."""
    schema = _schema(RigFile, Settings)
    properties = schema["properties"]
    for name in PIPELINES:
        del properties[name]
    properties["devices"] = _or_null({"type": "object", "additionalProperties": _reference(schema, Device)})
    properties["requirements"] = _or_null(_reference(schema, Requirements))
    properties["readiness"] = _or_null(_reference(schema, Readiness))
    defaults = _reference(schema, Settings, "Parameters")
    for name in PIPELINES:
        del schema["$defs"]["Parameters"]["properties"][name]
    properties["parameters"] = _or_null(defaults)
    if rig_model is not None:
        properties["values"] = _reference(schema, rig_model, "Values", ours=False)
    return _complete(schema, "Rig file of pytest-openscope")


def parameters_schema(parameters_model: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return the schema of a parameter file; the experiment's own model adds its keys where there is one."""
    schema = _schema(Settings)
    properties = schema["properties"]
    properties["rig_id"] = {"type": ["string", "number", "null"], "description": "not used: the rig file's counts"}
    entry = _reference(schema, Entry)
    for name in PIPELINES:
        doc = properties[name].get("description", "")
        items = {"anyOf": [{"type": "string", "description": "name of a ready-made module"}, entry]}
        properties[name] = {"type": ["array", "null"], "description": doc, "items": items}
    acquisition = _own_schema(AcquisitionEntry)["properties"]
    schema["$defs"]["Acquisition"] = {"type": "object", "properties": {name: acquisition[name] for name in ACQUISITION_KEYS}}
    doc = properties["acquisitions"].get("description", "")
    several = {"type": "array", "items": {"$ref": "#/$defs/Acquisition"}}
    properties["acquisitions"] = {**_or_null(several), "description": doc}
    if parameters_model is not None:
        own = copy.deepcopy(parameters_model.model_json_schema())
        schema["$defs"].update(own.pop("$defs", {}))
        properties.update({name: value for name, value in own.get("properties", {}).items() if name not in properties})
    return _complete(schema, "Parameter file of pytest-openscope")


def _schema(*models: type[BaseModel]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {}, "$defs": {}}
    for model in models:
        own = _own_schema(model)
        schema["$defs"].update(own.pop("$defs", {}))
        schema["properties"].update(own["properties"])
    block = schema["$defs"].get("GithubIssueSettings", {}).get("properties", {})
    for name, option in FLAT_GITHUB.items():
        schema["properties"][name] = {**block.get(option, {}), "deprecated": True}
    return schema


def _own_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of one of our models: a value may be null (the default) or a placeholder."""
    schema = copy.deepcopy(model.model_json_schema())
    inner = schema.pop("$defs", {})
    for name in inner:
        if name in _BLOCKS:
            inner[name] = _own_schema(_BLOCKS[name])
    known = keys_of(model)
    schema["properties"] = {
        name: _limited(_or_null(value, placeholder=True), limits_of(known[name]))
        for name, value in schema["properties"].items()
        if name in known
    }
    schema.pop("required", None)
    return {**schema, "$defs": inner} if inner else schema


def _or_null(value: Mapping[str, Any], placeholder: bool = False) -> dict[str, Any]:
    about = {name: value[name] for name in ("title", "description", "default", "unit") if name in value}
    plain = {name: one for name, one in value.items() if name not in about}
    if not plain:
        return about
    choices = plain["anyOf"] if set(plain) == {"anyOf"} else [plain]
    choices = [*choices, *([] if {"type": "null"} in choices else [{"type": "null"}])]
    if placeholder and {"type": "string"} not in choices:
        choices.append(_PLACEHOLDER)
    return {**about, "anyOf": choices}


def _limited(value: dict[str, Any], limits: Mapping[str, float]) -> dict[str, Any]:
    names = {"ge": "minimum", "le": "maximum"}
    for choice in value.get("anyOf", ()):
        if choice.get("type") in ("number", "integer"):
            choice.update({names[name]: limit for name, limit in limits.items()})
    return value


def _reference(schema: dict[str, Any], model: type[BaseModel], name: str = "", ours: bool = True) -> dict[str, Any]:
    """Put a model's schema among the definitions and return the reference to it."""
    own = _own_schema(model) if ours else copy.deepcopy(model.model_json_schema())
    schema["$defs"].update(own.pop("$defs", {}))
    schema["$defs"][name or model.__name__] = own
    return {"$ref": f"#/$defs/{name or model.__name__}"}


def _complete(schema: dict[str, Any], title: str) -> dict[str, Any]:
    return {"$schema": DIALECT, "title": title, **schema}
