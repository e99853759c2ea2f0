"""JSON Schema of rig files and parameter files, so that editors complete and check them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from .fields import Section, keys_of, limits_of
from .models import (
    ACQUISITION_KEYS,
    FLAT_GITHUB,
    PIPELINES,
    AcquisitionEntry,
    Device,
    PipelineEntry,
    Readiness,
    Requirements,
    RigFile,
    Settings,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLACEHOLDER = {"type": "string", "pattern": r"\{[^{}]+\}|\$\w|\$\{|%\w+%", "description": "a placeholder"}


def rig_schema(rig_model: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return the schema of a rig file; ``values`` is described by the lab's own model where there is one."""
    definitions = _definitions(RigFile, Settings, Device, Requirements, Readiness)
    parameters = definitions["Settings"]["properties"]
    for name in PIPELINES:
        del parameters[name]
    properties = {**definitions.pop("RigFile")["properties"], **parameters, **_flat(definitions)}
    properties["devices"] = _or_null({"type": "object", "additionalProperties": _reference("Device")})
    properties["requirements"] = _or_null(_reference("Requirements"))
    properties["readiness"] = _or_null(_reference("Readiness"))
    properties["parameters"] = _or_null(_reference("Settings"))
    if rig_model is not None:
        definitions["Values"] = rig_model.model_json_schema()
        definitions.update(definitions["Values"].pop("$defs", {}))
        properties["values"] = _reference("Values")
    return _complete("Rig file of pytest-openscope", properties, definitions)


def parameters_schema(parameters_model: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return the schema of a parameter file; the experiment's own model adds its keys where there is one."""
    definitions = _definitions(Settings, PipelineEntry, AcquisitionEntry)
    del definitions["Phase"]  # an entry has it, but no file
    properties = {**definitions.pop("Settings")["properties"], **_flat(definitions)}
    properties["rig_id"] = {"type": ["string", "number", "null"], "description": "not used: the rig file's counts"}
    entry = {"anyOf": [{"type": "string", "description": "name of a ready-made module"}, _reference("PipelineEntry")]}
    for name in PIPELINES:
        properties[name].update(anyOf=[{"type": "array", "items": entry}, {"type": "null"}])
    acquisition = definitions["AcquisitionEntry"]
    acquisition["properties"] = {name: acquisition["properties"][name] for name in ACQUISITION_KEYS}
    several = {"type": "array", "items": _reference("AcquisitionEntry")}
    properties["acquisitions"].update(anyOf=[several, {"type": "null"}])
    if parameters_model is not None:
        own = parameters_model.model_json_schema()
        definitions.update(own.pop("$defs", {}))
        properties = {**own.get("properties", {}), **properties}
    return _complete("Parameter file of pytest-openscope", properties, definitions)


class _Generator(GenerateJsonSchema):
    """In our own sections a value may be null (the default) or a placeholder, and limits hold for every way to write it."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of one model."""
        made = super().model_schema(schema)
        if issubclass(schema["cls"], Section):
            known = keys_of(schema["cls"])
            made["properties"] = {
                name: _limited(_or_null(value, placeholder=True), limits_of(known[name]))
                for name, value in made["properties"].items()
                if name in known
            }
        return made


def _definitions(*models: type[BaseModel]) -> dict[str, Any]:
    _, schema = models_json_schema([(model, "validation") for model in models], schema_generator=_Generator)
    definitions: dict[str, Any] = schema["$defs"]
    return definitions


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _flat(definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the older spellings of the options of ``github_issue``."""
    block = definitions["GithubIssueSettings"]["properties"]
    return {name: {**block[option], "deprecated": True} for name, option in FLAT_GITHUB.items()}


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
    more = {names[name]: limit for name, limit in limits.items()}
    choices = [{**one, **more} if one.get("type") in ("number", "integer") else one for one in value.get("anyOf", ())]
    return {**value, "anyOf": choices} if choices else value


def _complete(title: str, properties: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": DIALECT, "title": title, "type": "object", "properties": properties, "$defs": definitions}
