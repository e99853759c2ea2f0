"""The lab's own pydantic models: ``rig_model`` for a rig's values, ``parameters_model`` for an experiment's parameters."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..records import Mistake
from .fields import Wrong, explain, show
from .suggest import nearest


def load_model(reference: str, folder: Path) -> type[BaseModel]:
    """Return the model that ``module:Class`` names; a module beside the rig file is found too.

    Raises:
        Wrong: there is no such module or class, or it is no pydantic model.
    """
    module_name, colon, name = reference.strip().partition(":")
    if not (module_name and colon and name):
        raise Wrong(f"{show(reference)} names no class", "write module:Class, e.g. my_lab.rig:Rig")
    if str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        remedy = f"install it, or put it beside the rig file in {folder}"
        raise Wrong(f"module {module_name!r} cannot be imported: {error}", remedy) from None
    except Exception as error:  # the lab's code may fail in any way
        raise Wrong(f"module {module_name!r} fails on import: {type(error).__name__}: {error}", "mend the module") from None
    for part in name.split("."):
        if not hasattr(found, part):
            near = nearest(part, dir(found), 2)
            remedy = f"did you mean {near}?" if near else f"define it in {module_name}"
            raise Wrong(f"{getattr(found, '__name__', module_name)} has no {part!r}", remedy)
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise Wrong(f"{reference} is no pydantic model", "name a subclass of pydantic.BaseModel")
    return found


def model_keys(model: type[BaseModel]) -> set[str]:
    """Return every spelling of the model's keys."""
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        keys |= {name, *(alias for alias in (field.alias, field.validation_alias) if isinstance(alias, str))}
    return keys


def read_values(
    model: type[BaseModel], values: Mapping[str, Any], where: str, prefix: str
) -> tuple[BaseModel | None, list[Mistake]]:
    """Return the lab's values as its model, or what is wrong with them, each key with ``prefix`` before it."""
    try:
        return model.model_validate(dict(values)), []
    except ValidationError as error:
        found = explain(model, error, where, prefix)
    except Exception as error:  # a validator of the lab's own may fail in any way
        problem = f"the model fails: {type(error).__name__}: {error}"
        return None, [Mistake(where, problem, "mend the model", prefix.rstrip("."))]
    known = model_keys(model)
    mistakes = []
    for one in found:
        name = one.key.removeprefix(prefix)
        near = nearest(name, known) if one.problem == "unknown key" else None
        missing = one.problem == "is missing" and any(nearest(given, [name]) for given in values if given not in known)
        if missing and any(other.problem == "unknown key" for other in found):
            continue  # the misspelt key is told, with the name that is missing
        mistakes.append(replace(one, remedy=f"did you mean {near}?") if near else one)
    return None, mistakes
