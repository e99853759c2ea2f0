"""Values that a simulated call may answer with: of the type that its driver's code names, found without importing anything."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from datetime import date, datetime, time, timedelta
from pathlib import PurePath
from typing import Any

from .surface import Member

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
#: Beyond this a type holds itself.
_DEPTH = 4
_SIMPLE: dict[type, Any] = {
    bool: True,
    int: 1,
    float: 1.0,
    complex: 1 + 0j,
    str: "simulated",
    bytes: b"simulated",
    bytearray: b"simulated",
    memoryview: b"simulated",
    range: 1,
    timedelta: 0,
    time: 0,
    PurePath: "simulated",
}
#: Of the standard library, where a session may not have imported it.
_BY_NAME: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "decimal.Decimal": ((1,), {}),
    "fractions.Fraction": ((1,), {}),
    "uuid.UUID": ((), {"int": 1}),
}
_SEQUENCES: dict[Any, Callable[[list[Any]], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.deque: collections.deque,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
    collections.abc.Iterator: iter,
    collections.abc.Generator: iter,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}
_MAPPINGS = (dict, collections.OrderedDict, collections.Counter, collections.abc.Mapping, collections.abc.MutableMapping)
_ASYNC = (collections.abc.AsyncIterator, collections.abc.AsyncIterable, collections.abc.AsyncGenerator)
_CONTEXTS = (contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager)

#: Stands for the device itself.
ITSELF = object()
#: Makes an object that stands for one of a class.
MakeObject = Callable[[type], Any]


class Plausible:
    """Answers for the calls of one driver class.

    Args:
        cls: the driver; a method that returns it returns ``ITSELF``.
        make: makes what stands for an object of another class.
    """

    def __init__(self, cls: type, make: MakeObject) -> None:
        self._cls, self._make = cls, make

    def returned(self, member: Member, name: str) -> Any:
        """Return what a call of a method answers, the annotation and the kind of its function considered.

        A generator gives one value, a context manager is entered with one, so that what the experiment does with them runs.
        """
        inner = inspect.unwrap(member.value) if callable(member.value) else None
        makes_generator = inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)
        if makes_generator and getattr(member.value, "__globals__", None) is vars(contextlib):
            return Entered(self._item(member.annotation, name))
        if makes_generator and typing.get_origin(member.annotation) is None:
            return iter(()) if inspect.isgeneratorfunction(inner) else each(())
        return self.of(member.annotation, name)

    def _item(self, annotation: Any, name: str) -> Any:
        return self.of(next(iter(typing.get_args(annotation)), None), name)

    def of(self, annotation: Any, name: str, depth: int = 0) -> Any:
        """Return a value of a type: 1, 1.0, "simulated"; True, or False where the name tells of trouble (``busy``)."""
        annotation = _meant(annotation)
        if annotation is None or annotation is type(None) or annotation is typing.Any or depth > _DEPTH:
            return None
        if self._is_own(annotation):
            return ITSELF
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is not None:
            return self._generic(origin, arguments, name, depth)
        return self._instance(annotation, name, depth) if isinstance(annotation, type) else None

    def _is_own(self, annotation: Any) -> bool:
        """Tell the driver's own class, one that it is derived from, ``Self``, and what was written before there was that."""
        own = self._cls.__mro__[:-1]
        return (
            (isinstance(annotation, type) and annotation in own)
            or annotation is getattr(typing, "Self", self._cls)
            or (isinstance(annotation, typing.ForwardRef) and annotation.__forward_arg__ in [base.__name__ for base in own])
        )

    def _generic(self, origin: Any, arguments: tuple[Any, ...], name: str, depth: int) -> Any:
        if origin is typing.Literal:
            return arguments[0]
        if origin in (typing.Annotated, typing.ClassVar, typing.Final):
            return self.of(arguments[0], name, depth + 1)
        if origin in (typing.Union, types.UnionType):
            return self.of(next(kind for kind in arguments if kind is not type(None)), name, depth + 1)
        if origin is type:
            return arguments[0]
        if origin is tuple:
            kinds = [kind for kind in arguments if kind is not Ellipsis]
            return tuple(self.of(kind, name, depth + 1) for kind in kinds)
        if origin in _SEQUENCES:
            return self._sequence(origin, arguments, name, depth)
        if origin in _MAPPINGS or origin is collections.defaultdict:
            return {} if origin is not collections.defaultdict else collections.defaultdict(lambda: None)
        if origin in _ASYNC:
            return each([self.of(arguments[0], name, depth + 1)])
        if origin in (collections.abc.Awaitable, collections.abc.Coroutine):
            return Awaited(self.of(arguments[-1], name, depth + 1))
        if origin in _CONTEXTS:
            return Entered(self.of(arguments[0], name, depth + 1))
        if origin is collections.abc.Callable:
            return lambda *args, **kwargs: self.of(arguments[-1], name, depth + 1)
        if _is_array(origin):
            return _array(arguments)
        return self._instance(origin, name, depth) if isinstance(origin, type) else None

    def _sequence(self, origin: Any, arguments: tuple[Any, ...], name: str, depth: int) -> Any:
        item = self.of(arguments[0], name, depth + 1)
        # Where an item cannot be told, or is the device itself, none is better than a wrong one.
        known = item is not None and item is not ITSELF
        return _SEQUENCES[origin]([item] if known else [])

    def _instance(self, kind: type, name: str, depth: int) -> Any:
        if kind is bool:
            return not any(word in name.lower() for word in _BAD_NEWS)
        if _is_array(kind):
            return _array(())
        if issubclass(kind, enum.Enum):
            return next(iter(kind), None)
        if issubclass(kind, date):
            return datetime.now().astimezone() if kind is datetime else kind.today()
        if typing.is_typeddict(kind) or hasattr(kind, "_fields") or dataclasses.is_dataclass(kind):
            return self._record(kind, depth)
        if kind in _SEQUENCES:
            return _SEQUENCES[kind]([])
        if kind in _MAPPINGS or kind is tuple:
            return {} if kind in _MAPPINGS else ()
        made = _simple(kind)
        if made is not None:
            return made
        return None if kind.__module__ == "builtins" else self._make(kind)

    def _record(self, kind: Any, depth: int) -> Any:
        hints = _hints(kind)
        if typing.is_typeddict(kind):
            return {key: self.of(hint, key, depth + 1) for key, hint in hints.items()}
        if hasattr(kind, "_fields"):
            return kind(**{field: self.of(hints.get(field), field, depth + 1) for field in kind._fields})
        needed = [part.name for part in dataclasses.fields(kind) if part.init]
        return kind(**{part: self.of(hints.get(part), part, depth + 1) for part in needed})


class Entered:
    """A context manager that is entered with a value, by ``with`` and by ``async with``."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __enter__(self) -> Any:
        return self._value

    def __exit__(self, *error: object) -> None:
        return None

    async def __aenter__(self) -> Any:
        return self._value

    async def __aexit__(self, *error: object) -> None:
        return None


class Awaited:
    """Can be awaited as often as one likes, unlike a coroutine, which also complains when nobody does."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self._value


async def each(values: Any) -> AsyncIterator[Any]:
    """Give one value after the other."""
    for value in values:
        yield value


def _meant(annotation: Any) -> Any:
    """Return the type behind a NewType, an alias or a type variable."""
    for _ in range(_DEPTH):
        name = type(annotation).__name__
        if name == "NewType":
            annotation = annotation.__supertype__
        elif name == "TypeAliasType":
            annotation = annotation.__value__
        elif name == "TypeVar":
            annotation = annotation.__bound__ or next(iter(annotation.__constraints__), None)
        elif name == "InitVar":
            annotation = annotation.type
    return annotation


def _simple(kind: type) -> Any:
    """Return a number, a text or the like, one of a class derived from those included; None for other classes."""
    given = _BY_NAME.get(f"{kind.__module__}.{kind.__qualname__}")
    for base in () if given else kind.__mro__:
        if base in _SIMPLE:
            given = ((_SIMPLE[base],), {})
        elif base.__module__ == "numpy" and base.__name__ in ("bool", "bool_", "number"):
            given = ((1,), {})
        if given:
            break
    if given is None:
        return None
    try:
        return kind(*given[0], **given[1])
    except Exception:
        return None


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


def iterate(value: Any) -> Iterator[Any]:
    """Return an iterator over what ``__iter__`` of a driver is said to return."""
    return iter(value) if isinstance(value, collections.abc.Iterable) else iter(())
