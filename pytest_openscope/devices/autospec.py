"""A stand-in for a driver class: the same methods and signatures, answers of the annotated types, no hardware.

Unlike ``unittest.mock.create_autospec`` it answers with values that an experiment can go on with, and knows the names that a
driver sets in ``self``. What such an attribute holds is known from its annotation or the constructor's argument of its name;
nothing of the driver's code is run or evaluated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import enum
import inspect
import pathlib
import re
import types
import typing
import uuid
from collections import abc
from collections.abc import AsyncIterator, Iterable
from typing import Any

from typing_extensions import Self

from .driver_registry import LIFECYCLE
from .surface import SPECIAL, Member, Surface, callable_signature, surface_of

#: A call whose name tells of trouble answers False.
_BAD_NEWS = re.compile("busy|moving|error|fault|alarm|warn|fail|timeout|overflow|dropped|interlock|tripped", re.IGNORECASE)
#: Beyond this a type holds itself.
_DEPTH = 4
#: What an object of a simple type, or of one derived from it, is made from.
_SEEDS: dict[type, Any] = {
    int: 1,
    float: 1.0,
    complex: 1 + 0j,
    str: "simulated",
    bytes: b"simulated",
    bytearray: b"simulated",
    memoryview: b"simulated",
    datetime.timedelta: 0,
    datetime.time: 0,
    decimal.Decimal: 1,
    uuid.UUID: f"{1:032x}",
    pathlib.PurePath: "simulated",
}
#: What Python itself demands to be of a certain type.
_FIXED: dict[str, Any] = {"__len__": 1, "__bool__": True, "__contains__": False, "__float__": 1.0, "__int__": 1, "__index__": 1}
_FIXED |= {"__complex__": 1 + 0j, "__exit__": None}


def autospec(cls: type, params: dict[str, Any]) -> Any:
    """Build the stand-in.

    Raises:
        TypeError: ``params`` do not fit the constructor.
    """
    constructor = callable_signature(cls)
    if constructor is None:
        return stand_in(cls, {})
    bound = constructor.bind(**params)
    bound.apply_defaults()
    given = dict(bound.arguments)
    for part in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        if part.default_factory is not dataclasses.MISSING and part.name not in params and part.name in given:
            given[part.name] = part.default_factory()
    return stand_in(cls, given)


def stand_in(cls: type, given: dict[str, Any]) -> Any:
    """Return what stands for an object of a class, as if its constructor had got these arguments."""
    defined = {name for base in cls.__mro__[:-1] for name in vars(base)}
    if "__getitem__" in defined:
        # Python would ask for one item after the other until there is an IndexError, which a stand-in never raises.
        defined.add("__iter__")
    defined |= {name for name in (*LIFECYCLE, "disconnect") if callable(inspect.getattr_static(cls, name, None))}
    namespace = {name: _special(name) for name in ("__enter__", *SPECIAL, *LIFECYCLE, "disconnect") if name in defined}
    return type(f"Simulated{cls.__name__}", (Simulated,), {**namespace, "_openscope": (surface_of(cls), given)})()


class Simulated:
    """One simulated device, or object that a driver is made of; ``isinstance`` takes it for what it stands for."""

    #: What the class offers, and what its constructor got.
    _openscope: tuple[Surface, dict[str, Any]]

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self._openscope[0].cls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        surface, given = self._openscope
        member = surface.require(name)
        if member is not None and member.kind == "property":
            return _plausible(self, member.annotation, name)
        if member is None or member.kind == "method":
            value = _method(self, name, member)
        elif name in given:
            value = given[name]
        elif member.kind == "constant":
            value = member.value
        elif member.annotation is not None:
            value = _plausible(self, member.annotation, name)
        else:
            raise AttributeError(
                f"{surface.cls.__name__}.{name} is set by the driver's own code, which no dry run runs"
                f" -> give it in the rig file, 'returns: {{{name}: VALUE}}', annotate it, or give the device a 'mock:'"
            )
        object.__setattr__(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self._openscope[0].require_settable(name)
        object.__setattr__(self, name, value)

    def __dir__(self) -> list[str]:
        return self._openscope[0].names()

    def __repr__(self) -> str:
        return f"<simulated {self._openscope[0].cls.__name__}>"


def _method(device: Simulated, name: str, member: Member | None) -> Any:
    def simulated(*args: Any, **kwargs: Any) -> Any:
        return _called(device, name, args, kwargs)

    simulated.__name__ = name
    simulated.__doc__ = getattr(member.value, "__doc__", None) if member else None
    if member is not None and _is_async(member) and hasattr(inspect, "markcoroutinefunction"):
        return inspect.markcoroutinefunction(simulated)
    return simulated


def _special(name: str) -> Any:
    """Return a method that Python looks for in the class."""

    def method(self: Simulated, *args: Any, **kwargs: Any) -> Any:
        if name in _FIXED:
            return _FIXED[name]
        if name == "__aexit__":
            return _finished(None)
        value = _called(self, name, args, kwargs)
        if name == "__enter__":
            return self if value is None else value
        if name == "__aenter__":
            return _itself_if_none(value, self)
        if name in ("__iter__", "__reversed__"):
            items = _items(self, "__next__") if value is self else value
            return iter(items) if isinstance(items, Iterable) else iter(())
        if name == "__aiter__":
            return _each(_items(self, "__anext__")) if value is self or not hasattr(value, "__anext__") else value
        return value

    return method


def _items(device: Simulated, name: str) -> list[Any]:
    """Return what iterating over the device gives: one value, if it is known of which type."""
    member = device._openscope[0].find(name)
    value = _plausible(device, member.annotation, name) if member else None
    return [] if value is None else [value]


async def _finished(value: Any) -> Any:
    return value


async def _itself_if_none(value: Any, device: Any) -> Any:
    result = await value if inspect.isawaitable(value) else value
    return device if result is None else result


async def _each(values: Iterable[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


def _called(device: Simulated, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a method answers: a generator gives one value, a context manager is entered with one.

    Raises:
        TypeError: the call does not fit the driver's signature.
    """
    surface = device._openscope[0]
    surface.bind(name, args, kwargs)
    member = surface.find(name)
    if member is None:
        return None
    inner, annotation = inspect.unwrap(member.value), member.annotation
    makes_generator = inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)
    if makes_generator and member.value.__globals__ is vars(contextlib):
        return contextlib.nullcontext(_plausible(device, next(iter(typing.get_args(annotation)), None), name))
    if makes_generator and annotation is None:
        return iter(()) if inspect.isgeneratorfunction(inner) else _each(())
    value = _plausible(device, annotation, name)
    return _finished(value) if _is_async(member) else value


def _is_async(member: Member) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(member.value))


def _plausible(device: Simulated, annotation: Any, name: str, depth: int = 0) -> Any:
    """Return a value of a type: 1, 1.0, "simulated"; True, or False where the name tells of trouble (``busy``)."""

    def of(part: Any) -> Any:
        return _plausible(device, part, name, depth + 1)

    annotation = _meant(annotation)
    kind, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    first, last = (arguments[0], arguments[-1]) if arguments else (None, None)
    own = device._openscope[0].cls.__mro__[:-1]
    if depth > _DEPTH:
        return None
    if kind is Self or kind in own or getattr(kind, "__forward_arg__", "") in [base.__name__ for base in own]:
        return device
    if kind in (typing.Literal, type):
        return first
    if kind in (typing.Union, types.UnionType):
        return of(next(choice for choice in arguments if choice is not type(None)))
    if kind in (typing.Annotated, typing.ClassVar, typing.Final):
        return of(first)
    if kind is tuple:
        return tuple(of(part) for part in arguments if part is not Ellipsis)
    if kind in (abc.Awaitable, abc.Coroutine):
        return _finished(of(last))
    if kind in (contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager):
        return contextlib.nullcontext(of(first))
    if kind is abc.Callable:
        return lambda *args, **kwargs: of(last)
    if not isinstance(kind, type) or kind in (Any, type(None)):
        return None
    if kind is bool:
        return _BAD_NEWS.search(name) is None
    if (kind.__module__, kind.__name__) == ("numpy", "ndarray"):
        return _array(last)
    if issubclass(kind, enum.Enum):
        return next(iter(kind), None)
    if issubclass(kind, datetime.date):
        return datetime.datetime.now().astimezone() if kind is datetime.datetime else kind.today()
    if typing.is_typeddict(kind) or hasattr(kind, "_fields") or dataclasses.is_dataclass(kind):
        return _record(device, kind, depth)
    if _is_collection(kind):
        item = of(first)
        # Where an item cannot be told, or is the device itself, none is better than a wrong one.
        return _collection(kind, [] if item is None or item is device else [item])
    made = _simple(kind)
    return stand_in(kind, {}) if made is None and kind.__module__ != "builtins" else made


def _meant(annotation: Any) -> Any:
    """Return the type behind a NewType, an alias or a type variable."""
    for _ in range(_DEPTH):
        name, alias = type(annotation).__name__, typing.get_origin(annotation)
        if name == "NewType":
            annotation = annotation.__supertype__
        elif name == "TypeAliasType":
            annotation = annotation.__value__
        elif type(alias).__name__ == "TypeAliasType":
            # ``Pixels[np.uint8]`` after ``type Pixels[T] = np.ndarray[tuple[int, int], np.dtype[T]]``.
            given = dict(zip(alias.__type_params__, typing.get_args(annotation), strict=False))
            annotation = alias.__value__[tuple(given.get(one, Any) for one in alias.__value__.__parameters__)]
        elif name == "TypeVar":
            annotation = annotation.__bound__ or next(iter(annotation.__constraints__), None)
    return annotation


def _record(device: Simulated, kind: Any, depth: int) -> Any:
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError):
        hints = dict(getattr(kind, "__annotations__", {}))
    names = [part.name for part in dataclasses.fields(kind) if part.init] if dataclasses.is_dataclass(kind) else hints
    return kind(**{name: _plausible(device, hints.get(name), name, depth + 1) for name in getattr(kind, "_fields", names)})


def _simple(kind: type) -> Any:
    """Return a number, a text or the like, one of a class derived from those included; None for other classes."""
    seeds = [_SEEDS[base] for base in kind.__mro__ if base in _SEEDS] or [1] * (kind.__module__ == "numpy")
    try:
        return kind(seeds[0]) if seeds else None
    except Exception:
        return None


def _is_collection(kind: type) -> bool:
    """Tell the collections of the standard library, abstract ones included."""
    if kind.__module__ not in ("builtins", "collections", "collections.abc") or kind in _SEEDS:
        return False
    return issubclass(kind, (Iterable, abc.AsyncIterable))


def _collection(kind: type, items: list[Any]) -> Any:
    if issubclass(kind, abc.AsyncIterable):
        return _each(items)
    if issubclass(kind, abc.Mapping):
        return {}
    if issubclass(kind, abc.Iterator):
        return iter(items)
    if inspect.isabstract(kind):
        return set(items) if issubclass(kind, abc.Set) else items
    return kind(items)  # type: ignore[call-arg]


def _array(dtype: Any) -> Any:
    """Return a picture of one pixel, of the type that ``ndarray[shape, dtype[type]]`` names."""
    import numpy as np

    element = next(iter(typing.get_args(dtype)), None)
    try:
        return np.zeros((1, 1), dtype=element if isinstance(element, type) else float)
    except TypeError:
        return np.zeros((1, 1))
