"""What a driver class offers, told without an instance: its methods, their signatures, its attributes."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from .driver_registry import did_you_mean

_SPECIAL = (
    "len iter next getitem setitem delitem contains call bool aiter anext aenter aexit exit reversed float int index complex "
    "round abs neg pos invert add radd sub rsub mul rmul truediv rtruediv floordiv mod pow matmul and or xor lshift rshift "
    "lt le gt ge"
)
#: Methods that Python itself calls, and that a stand-in or wrapper must have where its driver has them; entering apart.
SPECIAL: tuple[str, ...] = tuple(f"__{name}__" for name in _SPECIAL.split())


@dataclass(frozen=True)
class Member:
    """One name of a driver: ``kind`` is method, property, constant or attribute (set in ``self`` by its code).

    ``value`` is the function behind a method, or the value of a constant. ``annotation`` is the type of what is held or
    returned. ``signature`` is that of a method, without ``self``; None for one that does not tell.
    """

    kind: str
    value: Any = None
    annotation: Any = None
    signature: inspect.Signature | None = None


class Surface:
    """Looks up the names of a class as an instance would have them; ``dynamic`` ones make their names up as they go."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.dynamic = False
        self._attributes: dict[str, Any] = {}
        for base in reversed(cls.__mro__[:-1]):
            attributes, makes_up_names = _assigned_in(base)
            self._attributes |= attributes
            self.dynamic |= makes_up_names

    def find(self, name: str) -> Member | None:
        """Return the member, or None where the driver has none of that name."""
        try:
            raw = inspect.getattr_static(self.cls, name)
        except AttributeError:
            return Member("attribute", annotation=self._attributes[name]) if name in self._attributes else None
        if inspect.ismemberdescriptor(raw):
            return Member("attribute", annotation=self._attributes.get(name))
        if isinstance(raw, (functools.partialmethod, functools.singledispatchmethod)):
            return self._method(raw.func, getattr(self.cls, name))
        if isinstance(raw, staticmethod):
            return self._method(raw.__func__, raw.__func__, skips_self=False)
        function = raw.__func__ if isinstance(raw, classmethod) else raw
        if callable(function) and not isinstance(function, type):
            return self._method(function, function)
        if hasattr(type(raw), "__get__") and not isinstance(raw, type):
            return Member("property", annotation=self._returned(getattr(raw, "fget", getattr(raw, "func", None))))
        return Member("constant", raw)

    def require(self, name: str) -> Member | None:
        """Return the member; None means that the driver makes its names up as it goes.

        Raises:
            AttributeError: the driver has no such name, with the nearest one.
        """
        member = self.find(name)
        if member is None and not self.dynamic:
            guess = did_you_mean(name, self.names())
            raise AttributeError(f"{self.cls.__name__!r} object has no attribute {name!r}" + (f" ({guess})" if guess else ""))
        return member

    def require_settable(self, name: str) -> None:
        """Hold an assignment against the class.

        Raises:
            AttributeError: as the real one would, for a property without a setter.
        """
        raw = inspect.getattr_static(self.cls, name, None)
        if isinstance(raw, property) and raw.fset is None:
            raise AttributeError(f"property {name!r} of {self.cls.__name__!r} object has no setter")

    def names(self) -> list[str]:
        """Return all public names, methods first."""
        return [name for name in dict.fromkeys([*dir(self.cls), *self._attributes]) if not name.startswith("_")]

    def bind(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Check a call against the driver's signature.

        Raises:
            TypeError: as the real call would.
        """
        member = self.find(name)
        if member is None or member.signature is None:
            return
        try:
            member.signature.bind(*args, **kwargs)
        except TypeError as error:
            plain = [item.replace(annotation=inspect.Parameter.empty) for item in member.signature.parameters.values()]
            raise TypeError(f"{self.cls.__name__}.{name}{inspect.Signature(plain)}: {error}") from None

    def _method(self, function: Any, called: Any, *, skips_self: bool = True) -> Member:
        signature = callable_signature(called)
        parameters = list(signature.parameters.values()) if signature is not None else []
        if signature is not None and skips_self and parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            signature = signature.replace(parameters=parameters[1:])
        return Member("method", function, self._returned(function), signature)

    def _returned(self, function: Any) -> Any:
        """Return a function's return annotation."""
        function = inspect.unwrap(function)
        scope = {**getattr(function, "__globals__", {}), self.cls.__name__: self.cls}
        return _resolved(getattr(function, "__annotations__", {}).get("return"), scope)


@functools.cache
def surface_of(cls: Any) -> Surface:
    """Return the surface of a class; devices of one class share it, since reading its source takes milliseconds."""
    return Surface(cls)


def callable_signature(target: Any) -> inspect.Signature | None:
    """Return the signature of a class or function without ``self``, or None where it cannot be told."""
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


def fits(target: Any, params: Mapping[str, Any]) -> bool:
    """Tell whether ``target(**params)`` is a possible call."""
    signature = callable_signature(target)
    try:
        return signature is None or bool(signature.bind(**params))
    except TypeError:
        return False


def _resolved(annotation: Any, scope: Mapping[str, Any]) -> Any:
    """Return the type that an annotation names; one that cannot be resolved counts as none."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {**vars(typing), **scope})
    except Exception:
        return None


def _assigned_in(cls: type) -> tuple[dict[str, Any], bool]:
    """Return what a class annotates, has slots for, or assigns to ``self`` in its source, each with its type.

    The second value tells whether it makes up names for others.
    """
    slots = vars(cls).get("__slots__", ())
    written: dict[str, Any] = dict.fromkeys((slots,) if isinstance(slots, str) else slots)
    written |= vars(cls).get("__annotations__", {})
    dynamic = "__getattr__" in vars(cls) or "__getattribute__" in vars(cls)
    try:
        source = textwrap.dedent(inspect.getsource(cls))
        nodes = list(ast.walk(ast.parse(source)))
    except (OSError, TypeError, SyntaxError):
        source, nodes = "", []
    for node in nodes:
        if isinstance(node, ast.AnnAssign) and _is_own(node.target):
            written[node.target.attr] = ast.unparse(node.annotation)
        elif _is_own(node) and isinstance(node.ctx, ast.Store):
            written.setdefault(node.attr)
    dynamic = dynamic or any(text in source for text in ("setattr(self, ", "vars(self)", "self.__dict__"))
    scope = {**vars(sys.modules.get(cls.__module__, typing)), cls.__name__: cls}
    return {name: _resolved(annotation, scope) for name, annotation in written.items()}, dynamic


def _is_own(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """Tell ``self.name``."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
