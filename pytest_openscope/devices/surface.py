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

    ``value`` is the function behind a method or property, or the value of a constant; what an attribute holds is not known.
    ``signature`` is that of a method, without ``self``; None for one that does not tell.
    """

    name: str
    kind: str
    value: Any = None
    annotation: Any = None
    is_async: bool = False
    signature: inspect.Signature | None = None


class Surface:
    """Looks up the names of a class as an instance would have them."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.dynamic = any("__getattr__" in vars(base) or "__getattribute__" in vars(base) for base in cls.__mro__[:-1])
        self._members: dict[str, Member | None] = {}

    def find(self, name: str) -> Member | None:
        """Return the member, or None where the driver has none of that name."""
        if name not in self._members:
            self._members[name] = self._look_up(name)
        return self._members[name]

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

    def _look_up(self, name: str) -> Member | None:
        try:
            raw = inspect.getattr_static(self.cls, name)
        except AttributeError:
            return self._attributes.get(name)
        if isinstance(raw, property):
            return Member(name, "property", raw.fget, self._return_type(raw.fget))
        if isinstance(raw, (functools.partialmethod, functools.singledispatchmethod)):
            return self._method(name, getattr(self.cls, name), raw.func)
        if isinstance(raw, staticmethod):
            return self._method(name, raw.__func__, raw.__func__, skips_self=False)
        function = raw.__func__ if isinstance(raw, classmethod) else raw
        if callable(function) and not isinstance(function, type):
            return self._method(name, function, function)
        if inspect.ismemberdescriptor(raw):
            return self._attributes.get(name) or Member(name, "attribute")
        if hasattr(type(raw), "__get__") and not isinstance(raw, type):
            function = getattr(raw, "func", None)
            return Member(name, "property", function, self._return_type(function))
        return Member(name, "constant", raw)

    def _method(self, name: str, function: Any, inner: Any, *, skips_self: bool = True) -> Member:
        signature = callable_signature(function)
        if signature is not None and skips_self:
            signature = _without_first(signature)
        is_async = inspect.iscoroutinefunction(inspect.unwrap(inner))
        return Member(name, "method", function, self._return_type(inner), is_async, signature)

    def _return_type(self, function: Any) -> Any:
        """Resolve a return annotation; one that cannot be resolved counts as none."""
        function = inspect.unwrap(function) if function is not None else None
        annotation = getattr(function, "__annotations__", {}).get("return", None)
        return _resolved(annotation, {**getattr(function, "__globals__", {}), self.cls.__name__: self.cls})

    @functools.cached_property
    def _attributes(self) -> dict[str, Member]:
        """What the code of the class and its bases sets in ``self``."""
        found: dict[str, Member] = {}
        for base in reversed(self.cls.__mro__[:-1]):
            members, makes_up_names = _assigned_in(base)
            found.update(members)
            self.dynamic = self.dynamic or makes_up_names
        return found


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


def _without_first(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature without ``self``, however it is written."""
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        del parameters[0]
    return signature.replace(parameters=parameters)


def _resolved(annotation: Any, scope: Mapping[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {**vars(typing), **scope})
    except Exception:
        return None


def _assigned_in(cls: type) -> tuple[dict[str, Member], bool]:
    """Return the names that a class annotates, has slots for, or assigns to ``self`` in its source; nothing is evaluated.

    Returns:
        The attributes, and whether its code makes up names for others (``setattr(self, ...)``).
    """
    scope = {**vars(sys.modules.get(cls.__module__, typing)), cls.__name__: cls}

    def attribute(name: str, annotation: Any = None) -> Member:
        return Member(name, "attribute", annotation=_resolved(annotation, scope))

    found = {name: attribute(name, kind) for name, kind in vars(cls).get("__annotations__", {}).items()}
    slots = vars(cls).get("__slots__", ())
    for name in (slots,) if isinstance(slots, str) else slots:
        found.setdefault(name, attribute(name))
    try:
        nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls)))))
    except (OSError, TypeError, SyntaxError):
        return found, False
    for node in nodes:
        if isinstance(node, ast.AnnAssign) and _is_own(node.target):
            found[node.target.attr] = attribute(node.target.attr, ast.unparse(node.annotation))
        elif _is_own(node) and isinstance(node.ctx, ast.Store):
            found.setdefault(node.attr, attribute(node.attr))
    return found, any(_makes_up_names(node) for node in nodes)


def _is_own(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """Tell ``self.name``."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _makes_up_names(node: ast.AST) -> bool:
    """Tell ``self.__dict__``, ``setattr(self, ...)`` and ``vars(self)``."""
    if _is_own(node):
        return node.attr == "__dict__"
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
        return False
    first = node.args[0]
    return node.func.id in ("setattr", "vars") and isinstance(first, ast.Name) and first.id == "self"
