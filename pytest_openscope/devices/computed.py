"""What a driver's code stores in ``self``, told from its source: constructor arguments, literals, the objects it is made of.

Nothing of the lab's runs for it: its classes become stand-ins, its functions answer with what their annotations say.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import enum
import types
from collections.abc import Callable, Mapping
from typing import Any

from .surface import Member, return_type

_HARMLESS_BUILTINS = (
    "abs,bool,bytearray,bytes,dict,enumerate,float,frozenset,int,len,list,max,min,range,round,set,sorted,str,sum,tuple,zip"
)
_HARMLESS = {name: getattr(builtins, name) for name in _HARMLESS_BUILTINS.split(",")}
#: Called for real: they touch nothing, and a lock or a queue is worth more than what stands for it.
_HARMLESS_MODULES = {
    "threading",
    "_thread",
    "queue",
    "_queue",
    "collections",
    "functools",
    "itertools",
    "operator",
    "_operator",
}
_HARMLESS_MODULES |= {"datetime", "decimal", "fractions", "logging", "math", "pathlib", "re", "time", "uuid"}
_ARRAYS = ("array", "arange", "empty", "full", "linspace", "ones", "zeros")
_PLAIN: tuple[type[ast.AST], ...] = (ast.Constant, ast.Name, ast.Load, ast.Store, ast.Attribute, ast.Subscript, ast.Slice)
_PLAIN += (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.keyword, ast.Starred)
_PLAIN += (ast.List, ast.Tuple, ast.Dict, ast.Set, ast.JoinedStr, ast.FormattedValue, ast.operator, ast.unaryop, ast.boolop)
_PLAIN += (ast.cmpop, ast.Lambda, ast.arguments, ast.arg)
_PLAIN += (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension)


class Reader:
    """Reads the attributes of one simulated device.

    Args:
        device: stands for ``self``.
        given: the constructor's arguments.
        make: makes what stands for an object of a class, from the class and its constructor's arguments.
        returned: what a call of a function answers.
    """

    def __init__(
        self,
        device: Any,
        given: Mapping[str, Any],
        make: Callable[..., Any],
        returned: Callable[[Member, str], Any],
    ) -> None:
        self._device, self._given, self._make, self._returned = device, given, make, returned

    def value(self, expression: ast.expr, scope: Mapping[str, Any]) -> Any:
        """Return what an expression of the driver's code gives; None where that cannot be told.

        Args:
            scope: the names of its module.
        """
        bound = {node.arg for node in ast.walk(expression) if isinstance(node, ast.arg)}
        names = {"__builtins__": {}, **_HARMLESS, **self._given, "self": self._device}
        for node in ast.walk(expression):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound.add(node.id)
        for node in ast.walk(expression):
            if not isinstance(node, _PLAIN) or (isinstance(node, ast.Attribute) and node.attr.startswith("__")):
                return None
            if isinstance(node, ast.Name) and node.id not in names and node.id not in bound:
                if node.id not in scope:
                    return None
                names[node.id] = self._safe(scope[node.id], node.id)
        try:
            return eval(compile(ast.Expression(expression), "<driver>", "eval"), names)
        except Exception:
            return None

    def _safe(self, value: Any, name: str) -> Any:
        """Return a value of the driver's module as one that may be used without touching anything."""
        if isinstance(value, types.ModuleType):
            return _Members(value, self._safe)
        if not callable(value) or _is_harmless(value):
            return value
        if isinstance(value, type):
            return _Members(value, self._safe, lambda *args, **kwargs: self._make(value, *args, **kwargs))
        return lambda *args, **kwargs: self._returned(Member(name, "method", value, return_type(value, type(value))), name)


class _Members:
    """A module or class whose members are made safe as they are asked for."""

    def __init__(self, owner: Any, safe: Callable[[Any, str], Any], make: Callable[..., Any] | None = None) -> None:
        self._owner, self._safe, self._make = owner, safe, make

    def __getattr__(self, name: str) -> Any:
        return self._safe(getattr(self._owner, name), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._make is None:
            raise TypeError("a module is not called")
        return self._make(*args, **kwargs)


def _is_harmless(value: Any) -> bool:
    module, name = str(getattr(value, "__module__", "")).partition(".")[0], getattr(value, "__name__", "")
    if isinstance(value, type):
        if issubclass(value, (enum.Enum, BaseException)) or (dataclasses.is_dataclass(value) and not _acts(value)):
            return True
        if module == "numpy":
            return any(base.__name__ == "generic" for base in value.__mro__)
        return module in _HARMLESS_MODULES or module == "builtins" or hasattr(value, "_fields")
    return (module in _HARMLESS_MODULES and name != "sleep") or (module == "numpy" and name in _ARRAYS)


def _acts(kind: type) -> bool:
    return hasattr(kind, "__post_init__") or "__init__" not in vars(kind)
