"""A stand-in for a driver class: the same methods and signatures, answers of the annotated types, no hardware.

Unlike ``unittest.mock.create_autospec`` it answers with values that an experiment can go on with, and knows the names that a
driver sets in ``self``. What such an attribute holds is known from its annotation or the constructor's argument of its name;
nothing of the driver's code is run or evaluated.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import fractions
import inspect
import pathlib
import types
import typing
import uuid
from collections import abc
from collections.abc import AsyncIterator, Generator, Iterable
from typing import Any

from typing_extensions import Self

from .driver_registry import LIFECYCLE
from .surface import SPECIAL, Member, Surface, callable_signature, surface_of

#: A call whose name tells of trouble answers False.
_BAD_NEWS = (
    "busy",
    "moving",
    "error",
    "fault",
    "alarm",
    "warn",
    "fail",
    "timeout",
    "overflow",
    "dropped",
    "interlock",
    "tripped",
)
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
    range: 1,
    datetime.timedelta: 0,
    datetime.time: 0,
    decimal.Decimal: 1,
    fractions.Fraction: 1,
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
    methods = [name for name in (*LIFECYCLE, "disconnect") if callable(inspect.getattr_static(cls, name, None))]
    namespace = {name: _special(name) for name in ("__enter__", *SPECIAL, *methods) if name in {*defined, *methods}}
    return type(f"Simulated{cls.__name__}", (Simulated,), namespace)(surface_of(cls), given)


class Simulated:
    """One simulated device, or object that a driver is made of; ``isinstance`` takes it for what it stands for."""

    def __init__(self, surface: Surface, given: dict[str, Any]) -> None:
        object.__setattr__(self, "_simulated", _Plausible(self, surface, given))

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return typing.cast("type", self._simulated.surface.cls)

    def __getattr__(self, name: str) -> Any:
        if name == "_simulated" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        member = self._simulated.surface.require(name)
        value = _method(self, name, member) if member is None or member.kind == "method" else self._simulated.held(member)
        if member is None or member.kind != "property":
            object.__setattr__(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self._simulated.surface.require_settable(name)
        object.__setattr__(self, name, value)

    def __dir__(self) -> list[str]:
        return list(self._simulated.surface.names())

    def __repr__(self) -> str:
        return f"<simulated {self._simulated.surface.cls.__name__}>"


def _method(device: Simulated, name: str, member: Member | None) -> Any:
    def simulated(*args: Any, **kwargs: Any) -> Any:
        return device._simulated.called(name, args, kwargs)

    simulated.__name__ = name
    simulated.__doc__ = getattr(member.value, "__doc__", None) if member else None
    if member is not None and member.is_async and hasattr(inspect, "markcoroutinefunction"):
        return inspect.markcoroutinefunction(simulated)
    return simulated


def _special(name: str) -> Any:
    def method(self: Simulated, *args: Any, **kwargs: Any) -> Any:
        if name in _FIXED:
            return _FIXED[name]
        if name == "__aexit__":
            return _finished(None)
        value = self._simulated.called(name, args, kwargs)
        if name == "__enter__":
            return self if value is None else value
        if name == "__aenter__":
            return _itself_if_none(value, self)
        if name in ("__iter__", "__reversed__"):
            items = self._simulated.items("__next__") if value is self else value
            return iter(items) if isinstance(items, Iterable) else iter(())
        if name == "__aiter__":
            return _each(self._simulated.items("__anext__")) if value is self or not hasattr(value, "__anext__") else value
        return value

    return method


async def _finished(value: Any) -> Any:
    return value


async def _itself_if_none(value: Any, device: Any) -> Any:
    result = await value if inspect.isawaitable(value) else value
    return device if result is None else result


async def _each(values: Iterable[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


class _Awaited:
    """Can be awaited as often as one likes, unlike a coroutine, which also complains when nobody does."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self._value


class _Plausible:
    """Values that a device may hold or answer with: of the types that the driver's code names."""

    def __init__(self, device: Simulated, surface: Surface, given: dict[str, Any]) -> None:
        self._device, self.surface, self._given = device, surface, given
        self._own = surface.cls.__mro__[:-1]

    def held(self, member: Member) -> Any:
        """Return what an attribute holds: the constructor's argument of its name, or a value of the annotated type.

        Raises:
            AttributeError: the driver's code sets it, and nothing says what it holds.
        """
        if member.name in self._given and member.kind != "property":
            return self._given[member.name]
        if member.kind == "constant":
            return member.value
        if member.kind == "attribute" and member.annotation is None:
            raise AttributeError(
                f"{self.surface.cls.__name__}.{member.name} is set by the driver's own code, which no dry run runs"
                f" -> give it in the rig file, 'returns: {{{member.name}: VALUE}}', annotate it, or give the device a 'mock:'"
            )
        return self.of(member.annotation, member.name)

    def called(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a method answers.

        Raises:
            TypeError: the call does not fit the driver's signature.
        """
        self.surface.bind(name, args, kwargs)
        member = self.surface.find(name)
        value = self._returned(member) if member else None
        return _finished(value) if member and member.is_async else value

    def items(self, name: str) -> list[Any]:
        """Return what iterating over the device gives: one value, if it is known of which type."""
        member = self.surface.find(name)
        value = self.of(member.annotation, name) if member else None
        return [] if value is None else [value]

    def _returned(self, member: Member) -> Any:
        """Answer by the annotation and the kind of the function.

        A generator gives one value, a context manager is entered with one, so that what the experiment does with them runs.
        """
        inner = inspect.unwrap(member.value) if callable(member.value) else None
        makes_generator = inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)
        if makes_generator and getattr(member.value, "__globals__", None) is vars(contextlib):
            yielded = next(iter(typing.get_args(member.annotation)), None)
            return contextlib.nullcontext(self.of(yielded, member.name))
        if makes_generator and typing.get_origin(member.annotation) is None:
            return iter(()) if inspect.isgeneratorfunction(inner) else _each(())
        return self.of(member.annotation, member.name)

    def of(self, annotation: Any, name: str, depth: int = 0) -> Any:
        """Return a value of a type: 1, 1.0, "simulated"; True, or False where the name tells of trouble (``busy``)."""
        annotation = _meant(annotation)
        if annotation is None or annotation is type(None) or annotation is Any or depth > _DEPTH:
            return None
        if self._is_own(annotation):
            return self._device
        origin = typing.get_origin(annotation)
        if origin is not None:
            return self._generic(origin, typing.get_args(annotation), name, depth + 1)
        return self._instance(annotation, name, depth) if isinstance(annotation, type) else None

    def _is_own(self, annotation: Any) -> bool:
        """Tell the driver's own class, one that it is derived from, ``Self``, and what was written before there was that."""
        if isinstance(annotation, typing.ForwardRef):
            return annotation.__forward_arg__ in [base.__name__ for base in self._own]
        return annotation is Self or (isinstance(annotation, type) and annotation in self._own)

    def _generic(self, origin: Any, arguments: tuple[Any, ...], name: str, depth: int) -> Any:
        if origin in (typing.Literal, type):
            return arguments[0]
        if origin in (typing.Union, types.UnionType):
            return self.of(next(kind for kind in arguments if kind is not type(None)), name, depth)
        if origin in (typing.Annotated, typing.ClassVar, typing.Final):
            return self.of(arguments[0], name, depth)
        if origin is tuple:
            return tuple(self.of(kind, name, depth) for kind in arguments if kind is not Ellipsis)
        if origin in (abc.Awaitable, abc.Coroutine):
            return _Awaited(self.of(arguments[-1], name, depth))
        if origin in (contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager):
            return contextlib.nullcontext(self.of(arguments[0], name, depth))
        if origin is abc.Callable:
            return lambda *args, **kwargs: self.of(arguments[-1], name, depth)
        if _is_array(origin):
            return _array(arguments)
        if _is_collection(origin):
            item = self.of(arguments[0], name, depth)
            # Where an item cannot be told, or is the device itself, none is better than a wrong one.
            return _collection(origin, [] if item is None or item is self._device else [item])
        return self._instance(origin, name, depth) if isinstance(origin, type) else None

    def _instance(self, kind: type, name: str, depth: int) -> Any:
        if kind is bool:
            return not any(word in name.lower() for word in _BAD_NEWS)
        if _is_array(kind):
            return _array(())
        if issubclass(kind, enum.Enum):
            return next(iter(kind), None)
        if issubclass(kind, datetime.date):
            return datetime.datetime.now().astimezone() if kind is datetime.datetime else kind.today()
        if typing.is_typeddict(kind) or hasattr(kind, "_fields") or dataclasses.is_dataclass(kind):
            return self._record(kind, depth)
        if _is_collection(kind):
            return _collection(kind, [])
        made = _simple(kind)
        if made is not None or kind.__module__ == "builtins":
            return made
        return stand_in(kind, {})

    def _record(self, kind: Any, depth: int) -> Any:
        hints = _hints(kind)
        names = [part.name for part in dataclasses.fields(kind) if part.init] if dataclasses.is_dataclass(kind) else hints
        names = getattr(kind, "_fields", names)
        return kind(**{name: self.of(hints.get(name), name, depth + 1) for name in names})


def _meant(annotation: Any) -> Any:
    """Return the type behind a NewType, an alias or a type variable."""
    for _ in range(_DEPTH):
        name = type(annotation).__name__
        if name == "NewType":
            annotation = annotation.__supertype__
        elif name == "TypeAliasType":
            annotation = annotation.__value__
        elif type(typing.get_origin(annotation)).__name__ == "TypeAliasType":
            annotation = _with_arguments(annotation)
        elif name == "TypeVar":
            annotation = annotation.__bound__ or next(iter(annotation.__constraints__), None)
        elif name == "InitVar":
            annotation = annotation.type
    return annotation


def _with_arguments(annotation: Any) -> Any:
    """Return what ``Pixels[np.uint8]`` means after ``type Pixels[T] = np.ndarray[tuple[int, int], np.dtype[T]]``."""
    alias = typing.get_origin(annotation)
    given = dict(zip(alias.__type_params__, typing.get_args(annotation), strict=False))
    open_ones = getattr(alias.__value__, "__parameters__", ())
    return alias.__value__[tuple(given.get(one, Any) for one in open_ones)] if open_ones else alias.__value__


def _simple(kind: type) -> Any:
    """Return a number, a text or the like, one of a class derived from those included; None for other classes."""
    for base in kind.__mro__:
        is_number = base.__module__ == "numpy" and base.__name__ in ("bool", "bool_", "number")
        if is_number or base in _SEEDS:
            try:
                return kind(1 if is_number else _SEEDS[base])
            except Exception:
                return None
    return None


def _is_collection(kind: Any) -> bool:
    """Tell the collections of the standard library, abstract ones included."""
    modules = ("builtins", "collections", "collections.abc")
    return (
        isinstance(kind, type)
        and kind.__module__ in modules
        and issubclass(kind, (Iterable, abc.AsyncIterable))
        and kind not in _SEEDS
    )


def _collection(kind: Any, items: list[Any]) -> Any:
    if issubclass(kind, abc.AsyncIterable):
        return _each(items)
    if issubclass(kind, abc.Mapping):
        return collections.defaultdict(lambda: None) if kind is collections.defaultdict else {}
    if issubclass(kind, abc.Iterator):
        return iter(items)
    if inspect.isabstract(kind):
        return set(items) if issubclass(kind, abc.Set) else items
    return kind(items)


def _is_array(kind: Any) -> bool:
    return getattr(kind, "__module__", "") == "numpy" and getattr(kind, "__name__", "") == "ndarray"


def _array(arguments: tuple[Any, ...]) -> Any:
    """Return a picture of one pixel, of the type that ``ndarray[shape, dtype[type]]`` names."""
    import numpy as np

    element = next(iter(typing.get_args(arguments[-1])), None) if arguments else None
    try:
        return np.zeros((1, 1), dtype=element if isinstance(element, type) else float)
    except TypeError:
        return np.zeros((1, 1))


def _hints(kind: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError):
        return dict(getattr(kind, "__annotations__", {}))
