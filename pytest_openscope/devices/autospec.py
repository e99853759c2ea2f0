"""A stand-in for a driver class: the same methods and signatures, typed answers, no hardware.

``unittest.mock.create_autospec`` would do part of this; it answers with mocks instead of values of the annotated types, and
importing it costs as much as a session may (it imports asyncio).
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import dataclasses
import enum
import inspect
import typing
from datetime import datetime, timedelta
from pathlib import PurePath
from types import UnionType
from typing import Any

from .surface import Member, Surface, surface_of

_BAD_NEWS = (
    "busy",
    "error",
    "fault",
    "alarm",
    "warn",
    "moving",
    "fail",
    "timeout",
    "overflow",
    "dropped",
    "interlock",
    "tripped",
)
_DUNDERS: tuple[str, ...] = (
    "__enter__",
    "__exit__",
    "__aenter__",
    "__aexit__",
    "__call__",
    "__len__",
    "__iter__",
    "__next__",
    "__getitem__",
)
_DUNDERS += ("__setitem__", "__contains__", "__bool__")


def autospec(cls: type, params: dict[str, Any]) -> Any:
    """Build the stand-in.

    Raises:
        TypeError: ``params`` do not fit the constructor.
    """
    surface = surface_of(cls)
    given: dict[str, Any] = {}
    constructor = surface.constructor()
    if constructor is not None:
        bound = constructor.bind(**params)
        bound.apply_defaults()
        given = dict(bound.arguments)
    namespace = {name: _dunder(name) for name in _DUNDERS if _defines(cls, name)}
    stand_in = type(f"Simulated{cls.__name__}", (Simulated,), namespace)
    return stand_in(surface, given)


def _defines(cls: type, name: str) -> bool:
    return any(name in vars(base) for base in cls.__mro__[:-1])


def _dunder(name: str) -> Any:
    def method(self: Simulated, *args: Any, **kwargs: Any) -> Any:
        if name in ("__enter__", "__aenter__"):
            return self if name == "__enter__" else _finished(self)
        if name in ("__exit__", "__aexit__"):
            return None if name == "__exit__" else _finished(None)
        if name == "__len__":
            return 0
        if name == "__bool__":
            return True
        if name == "__iter__":
            return iter(())
        if name == "__next__":
            raise StopIteration
        if name == "__contains__":
            return False
        return self._simulated_call(name, args, kwargs)

    return method


async def _finished(value: Any) -> Any:
    return value


class Simulated:
    """One simulated device; ``isinstance`` takes it for its driver."""

    def __init__(self, surface: Surface, given: dict[str, Any]) -> None:
        object.__setattr__(self, "_simulated_surface", surface)
        object.__setattr__(self, "_simulated_given", given)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return typing.cast("type", self._simulated_surface.cls)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_simulated_") or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        member = self._simulated_surface.require(name)
        if member is None or member.kind == "method":
            value: Any = _method(self, name, member)
        elif member.kind == "constant":
            return member.value
        elif member.kind == "property":
            return plausible(member.annotation, name, self._simulated_surface.cls)
        else:
            value = _attribute(member, self._simulated_given, self._simulated_surface.cls)
        object.__setattr__(self, name, value)
        return value

    def _simulated_call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        surface: Surface = self._simulated_surface
        surface.bind(name, args, kwargs)
        member = surface.find(name)
        value = plausible(member.annotation, name, surface.cls) if member else None
        if value is _ITSELF:
            value = self
        return _finished(value) if member and member.is_async else value

    def __dir__(self) -> list[str]:
        return list(self._simulated_surface.names())

    def __repr__(self) -> str:
        return f"<simulated {self._simulated_surface.cls.__name__}>"


def _method(device: Simulated, name: str, member: Member | None) -> Any:
    def simulated(*args: Any, **kwargs: Any) -> Any:
        return device._simulated_call(name, args, kwargs)

    simulated.__name__ = name
    simulated.__doc__ = getattr(member.value, "__doc__", None) if member else None
    if member is not None and member.is_async and hasattr(inspect, "markcoroutinefunction"):
        return inspect.markcoroutinefunction(simulated)
    return simulated


def _attribute(member: Member, given: dict[str, Any], cls: type) -> Any:
    """Value of what the driver's code stores in ``self``: a constructor argument or a literal where the source says so."""
    if isinstance(member.value, ast.expr):
        return _computed(member.value, given)
    return plausible(member.annotation, member.name, cls)


_HARMLESS = {name: getattr(builtins, name) for name in ("abs", "bool", "dict", "float", "int", "len", "list", "max", "min")}
_HARMLESS |= {name: getattr(builtins, name) for name in ("round", "set", "str", "tuple")}
_PLAIN: tuple[type[ast.AST], ...] = (
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.IfExp,
    ast.Call,
)
_PLAIN += (ast.List, ast.Tuple, ast.Dict, ast.Set, ast.JoinedStr, ast.FormattedValue)
_PLAIN += (ast.operator, ast.unaryop, ast.boolop, ast.cmpop)


def _computed(expression: ast.expr, given: dict[str, Any]) -> Any:
    """Return what an expression of the driver's code gives, None for one that needs more than the constructor's arguments."""
    for node in ast.walk(expression):
        if not isinstance(node, _PLAIN) or (isinstance(node, ast.Name) and node.id not in given and node.id not in _HARMLESS):
            return None
    try:
        return eval(compile(ast.Expression(expression), "<driver>", "eval"), {"__builtins__": {}, **_HARMLESS, **given})
    except Exception:
        return None


_ITSELF = object()


def plausible(annotation: Any, name: str, cls: type, depth: int = 0) -> Any:
    """Return a value of the annotated type: 1, 1.0, "simulated"; True, or False where the name tells of trouble (``busy``)."""
    if annotation is None or annotation is type(None) or annotation is typing.Any or depth > 4:
        return None
    if annotation is cls or annotation is getattr(typing, "Self", cls):
        return _ITSELF
    if annotation is bool:
        return not any(word in name.lower() for word in _BAD_NEWS)
    simple = {int: 1, float: 1.0, complex: 1 + 0j, str: "simulated", bytes: b"simulated", bytearray: bytearray()}
    if isinstance(annotation, type) and annotation in simple:
        return simple[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return _generic(origin, arguments, name, cls, depth)
    if isinstance(annotation, type):
        return _instance(annotation, name, depth)
    return None


def _generic(origin: Any, arguments: tuple[Any, ...], name: str, cls: type, depth: int) -> Any:
    if origin is typing.Literal:
        return arguments[0]
    if origin is typing.Annotated:
        return plausible(arguments[0], name, cls, depth + 1)
    if origin in (typing.Union, UnionType):
        return plausible(next(kind for kind in arguments if kind is not type(None)), name, cls, depth + 1)
    if origin is tuple:
        kinds = [kind for kind in arguments if kind is not Ellipsis]
        return tuple(plausible(kind, name, cls, depth + 1) for kind in kinds)
    if origin in (list, set, frozenset, dict, collections.deque, collections.defaultdict):
        return {} if origin is collections.defaultdict else origin()
    if _is_array(origin):
        return _instance(origin, name, depth)
    empty = {collections.abc.Sequence: [], collections.abc.Mapping: {}, collections.abc.Iterator: iter(())}
    empty |= {collections.abc.Iterable: [], collections.abc.Generator: iter(()), collections.abc.Set: set()}
    if origin in empty:
        return empty[origin]
    return _instance(origin, name, depth) if isinstance(origin, type) else None


def _is_array(kind: Any) -> bool:
    return getattr(kind, "__module__", "") == "numpy" and getattr(kind, "__name__", "") == "ndarray"


def _instance(kind: type, name: str, depth: int) -> Any:
    if _is_array(kind):
        import numpy as np

        return np.zeros((1, 1))
    if issubclass(kind, enum.Enum):
        return next(iter(kind), None)
    if kind is datetime:
        return datetime.now().astimezone()
    if kind is timedelta:
        return timedelta(0)
    if issubclass(kind, PurePath):
        return kind("simulated")
    if kind in (list, dict, set, tuple, frozenset):
        return kind()
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        needed = [part for part in dataclasses.fields(kind) if part.init]
        return kind(**{part.name: plausible(hints.get(part.name), part.name, kind, depth + 1) for part in needed})
    if kind.__module__ == "builtins":
        return None
    if typing.NamedTuple in getattr(kind, "__orig_bases__", ()):
        hints = typing.get_type_hints(kind)
        return kind(**{field: plausible(hints.get(field), field, kind, depth + 1) for field in kind._fields})  # type: ignore[attr-defined]
    made: Any = kind
    return Simulated(surface_of(made), {})
