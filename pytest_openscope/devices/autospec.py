"""A stand-in for a driver class: the same methods and signatures, answers of the annotated types, no hardware.

Unlike ``unittest.mock.create_autospec`` it answers with values that an experiment can go on with, and knows the names that a
driver sets in ``self``. What such an attribute holds is known from its annotation or the constructor's argument of its name;
nothing of the driver's code is run or evaluated.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import Any

from .plausible import ITSELF, Plausible, each, iterate
from .surface import SPECIAL, Member, Surface, callable_signature, surface_of


def autospec(cls: type, params: dict[str, Any]) -> Any:
    """Build the stand-in.

    Raises:
        TypeError: ``params`` do not fit the constructor.
    """
    return stand_in(cls, _given(cls, (), params))


def stand_in(cls: type, given: dict[str, Any]) -> Any:
    """Return what stands for an object of a class, as if its constructor had got these arguments."""
    defined = {name for base in cls.__mro__[:-1] for name in vars(base)}
    if "__getitem__" in defined:
        # Python would ask for one item after the other until there is an IndexError, which a stand-in never raises.
        defined.add("__iter__")
    namespace = {name: _special(name) for name in ("__enter__", *SPECIAL) if name in defined}
    return type(f"Simulated{cls.__name__}", (Simulated,), namespace)(surface_of(typing.cast("Any", cls)), given)


def _given(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what the constructor gets, its defaults included.

    Raises:
        TypeError: the arguments do not fit it.
    """
    constructor = callable_signature(cls)
    if constructor is None:
        return {}
    bound = constructor.bind(*args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    for part in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        if part.default_factory is not dataclasses.MISSING and part.name not in kwargs and part.name in given:
            given[part.name] = part.default_factory()
    return given


def _special(name: str) -> Any:
    def method(self: Simulated, *args: Any, **kwargs: Any) -> Any:
        if name in _FIXED:
            return _FIXED[name]
        if name in ("__aexit__", "__exit__"):
            return None if name == "__exit__" else _finished(None)
        value = self._simulated_call(name, args, kwargs)
        if name == "__enter__":
            return self if value is None else value
        if name == "__aenter__":
            return _itself_if_none(value, self)
        if name in ("__iter__", "__reversed__"):
            return iterate(self._simulated_next("__next__") if value is self else value)
        if name == "__aiter__":
            return each(self._simulated_next("__anext__")) if value is self or not hasattr(value, "__anext__") else value
        return value

    return method


#: What Python itself demands to be of a certain type.
_FIXED: dict[str, Any] = {"__len__": 1, "__bool__": True, "__contains__": False, "__float__": 1.0, "__int__": 1, "__index__": 1}
_FIXED["__complex__"] = 1 + 0j


async def _finished(value: Any) -> Any:
    return value


async def _itself_if_none(value: Any, device: Any) -> Any:
    result = await value if inspect.isawaitable(value) else value
    return device if result is None else result


class Simulated:
    """One simulated device, or object that a driver is made of; ``isinstance`` takes it for what it stands for."""

    def __init__(self, surface: Surface, given: dict[str, Any]) -> None:
        object.__setattr__(self, "_simulated_surface", surface)
        object.__setattr__(self, "_simulated_given", given)
        object.__setattr__(self, "_simulated_plausible", Plausible(surface.cls, _object_of))

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return typing.cast("type", self._simulated_surface.cls)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_simulated_") or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        surface: Surface = self._simulated_surface
        member = surface.require(name)
        if member is None or member.kind == "method":
            value: Any = _method(self, name, member)
        elif member.kind == "property":
            return self._simulated_or_itself(self._simulated_plausible.of(member.annotation, name))
        elif member.kind == "constant":
            is_field = name in self._simulated_given and dataclasses.is_dataclass(surface.cls)
            return self._simulated_given[name] if is_field else member.value
        else:
            value = self._simulated_or_itself(self._simulated_attribute(member))
        object.__setattr__(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self._simulated_surface.require_settable(name)
        object.__setattr__(self, name, value)

    def _simulated_attribute(self, member: Member) -> Any:
        """Return the constructor's argument of this name, or a value of the annotated type.

        Raises:
            AttributeError: the driver's code sets it, and nothing says what it holds.
        """
        if member.name in self._simulated_given:
            return self._simulated_given[member.name]
        if member.annotation is None:
            raise AttributeError(
                f"{self._simulated_surface.cls.__name__}.{member.name} is set by the driver's own code, which no dry run runs"
                f" -> give it in the rig file, 'returns: {{{member.name}: VALUE}}', annotate it, or give the device a 'mock:'"
            )
        return self._simulated_plausible.of(member.annotation, member.name)

    def _simulated_call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        surface: Surface = self._simulated_surface
        surface.bind(name, args, kwargs)
        member = surface.find(name)
        value = self._simulated_or_itself(self._simulated_plausible.returned(member, name)) if member else None
        return _finished(value) if member and member.is_async else value

    def _simulated_next(self, name: str) -> list[Any]:
        """Return what iterating gives: one value, if it is known of which type."""
        member = self._simulated_surface.find(name)
        value = self._simulated_plausible.of(member.annotation, name) if member else None
        return [] if value is None else [self._simulated_or_itself(value)]

    def _simulated_or_itself(self, value: Any) -> Any:
        return self if value is ITSELF else value

    def __dir__(self) -> list[str]:
        return list(self._simulated_surface.names())

    def __repr__(self) -> str:
        return f"<simulated {self._simulated_surface.cls.__name__}>"


def _object_of(cls: type) -> Any:
    return stand_in(cls, {})


def _method(device: Simulated, name: str, member: Member | None) -> Any:
    def simulated(*args: Any, **kwargs: Any) -> Any:
        return device._simulated_call(name, args, kwargs)

    simulated.__name__ = name
    simulated.__doc__ = getattr(member.value, "__doc__", None) if member else None
    if member is not None and member.is_async and hasattr(inspect, "markcoroutinefunction"):
        return inspect.markcoroutinefunction(simulated)
    return simulated
