"""Laying one source of values over another, remembering where each value came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from .fields import show
from .files import kind_of
from .yaml_rules import Wrong, keeps_text, load_yaml


def overlay(target: dict[str, Any], layer: Mapping[str, Any], where: str, sources: dict[str, str], prefix: str = "") -> None:
    """Lay ``layer`` over ``target`` in place: mappings key by key, everything else as a whole.

    ``sources`` gets the dotted key of each value taken over; those of replaced values go.
    """
    for key, value in layer.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if not isinstance(target.get(key), dict):
                _forget(sources, path)
                target[key] = {}
            if value:
                sources.pop(path, None)
            elif not target[key]:
                sources[path] = where
            overlay(target[key], value, where, sources, path + ".")
        else:
            _forget(sources, path)
            target[key] = deepcopy(value)
            sources[path] = where


def _forget(sources: dict[str, str], path: str) -> None:
    for known in [known for known in sources if known == path or known.startswith(path + ".")]:
        del sources[known]


def source_of(sources: Mapping[str, str], path: str, default: str = "") -> str:
    """Return what set the value at a dotted key: the key's own source, or that of the value it is a part of."""
    parts = path.split(".")
    for size in range(len(parts), 0, -1):
        if ".".join(parts[:size]) in sources:
            return sources[".".join(parts[:size])]
    return next((where for key, where in sources.items() if key.startswith(path + ".")), default)


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``KEY=VALUE`` and read VALUE as YAML; an empty VALUE is empty text.

    Raises:
        Wrong: no key, no ``=``, or a value that is no YAML. The value of a key is never in the message.
    """
    key, equals, written = text.partition("=")
    key = key.strip()
    if not key or not equals:
        raise Wrong(f"{show(text)} is no KEY=VALUE", "write e.g. --param script_parameters.FrameRate=30")
    if not all(part.strip() for part in key.split(".")):
        raise Wrong("a part of the dotted key is empty", "write e.g. script_parameters.FrameRate", key)
    try:
        value = load_yaml(written.strip()) if written.strip() else ""
    except Wrong as error:
        problem = error.problem
        if not problem.startswith(("is ", "holds ")):
            problem = f"is no YAML: {problem}"
        raise Wrong(f"the value {problem}", "put it in quotes inside the argument: KEY='\"…\"'", key) from None
    if keeps_text(key.rpartition(".")[2], value):
        value = written.strip()
    if isinstance(value, float) and not math.isfinite(value):
        raise Wrong("is no finite number", "write a number", key)
    return key, value


def apply_override(target: dict[str, Any], key: str, value: Any, where: str, sources: dict[str, str]) -> None:
    """Set the value at a dotted key; numbers reach into lists, missing mappings are made.

    A key that itself holds dots (a logger's name) is found if it exists already, and below ``log_levels`` always. A pipeline
    entry that is only a name becomes an object, so that its parameters can be set.

    Raises:
        Wrong: an index outside its list, or a way through a value that has no parts.
    """
    parts = key.split(".")
    container: Any = target
    depth = 0
    while True:
        size = _longest_key(container, parts[depth:], depth and parts[0] == "log_levels")
        name = ".".join(parts[depth : depth + size])
        path = ".".join(parts[: depth + size])
        step: Any = _index(container, name, path) if isinstance(container, list) else name
        depth += size
        if depth == len(parts):
            break
        child = container[step] if isinstance(container, list) else container.get(step)
        if child is None:
            child = container[step] = {}
        elif isinstance(child, str) and isinstance(container, list) and path.split(".")[0].endswith("_acquisition_pipeline"):
            child = container[step] = {"module_type": "launcher_module", "module_path": child}
        elif not isinstance(child, (dict, list)):
            raise Wrong(f"{path} is {kind_of(child)} and has no parts", f"set {path} as a whole", key)
        container = child
    old = container[step] if isinstance(container, list) else container.get(step)
    if isinstance(value, dict) and isinstance(old, dict):
        overlay(old, value, where, sources, key + ".")
        return
    _forget(sources, key)
    container[step] = deepcopy(value)
    sources[key] = where


def _longest_key(container: Any, parts: list[str], all_of_it: Any) -> int:
    if isinstance(container, dict):
        if all_of_it:
            return len(parts)
        for size in range(len(parts), 1, -1):
            if ".".join(parts[:size]) in container:
                return size
    return 1


def _index(container: list[Any], name: str, path: str) -> int:
    if not (name.isascii() and name.isdigit()) or len(name) > 6:
        raise Wrong(f"{name!r} is no index of a list", f"write a number from 0 to {len(container) - 1}", path)
    if int(name) >= len(container):
        raise Wrong(f"the list has {len(container)} items", "count from 0", path)
    return int(name)
