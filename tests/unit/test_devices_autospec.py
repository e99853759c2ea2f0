"""What an autospec answers: code that works with the driver must work with its stand-in, and code that does not must fail."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import logging
import typing
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from typing_extensions import TypeAliasType

from pytest_openscope.devices.answers import Answers
from pytest_openscope.devices.autospec import autospec
from pytest_openscope.devices.proxy import Hooks, wrap
from pytest_openscope.devices.surface import surface_of
from pytest_openscope.system import Latch

Millimetres = NewType("Millimetres", float)
Chained = TypeVar("Chained", bound="Stage")
Status = collections.namedtuple("Status", "code text")


class Mode(enum.Enum):
    FAST = 1
    SLOW = 2


class Reading(TypedDict):
    value: float
    unit: str


class Position(NamedTuple):
    x_mm: float
    label: str


class Volt(float): ...


SizeT, PixelT = TypeVar("SizeT"), TypeVar("PixelT", bound=np.generic)
#: As NumPy's own ``NDArray`` is from 2.5 on; its variables stand in another order here.
Pixels = TypeAliasType("Pixels", np.ndarray[SizeT, np.dtype[PixelT]], type_params=(PixelT, SizeT))
Weights = TypeAliasType("Weights", list[float])


@dataclasses.dataclass(frozen=True)
class Frame:
    number: int
    image: npt.NDArray[np.uint8]


@dataclasses.dataclass
class Settings:
    gain: int = 3


class Axis:
    def __init__(self, name: str) -> None:
        raise OSError("this is hardware")

    def move(self, x_mm: float) -> float:
        raise OSError("this is hardware")


def find_port(name: str) -> str:
    raise OSError("this is hardware")


class Base:
    def chain(self: Chained) -> Chained: ...

    def __enter__(self) -> Base: ...

    def __exit__(self, *error: object) -> None: ...


class Stage(Base):
    """As laboratories write them."""

    LIMIT_MM = 5

    def __init__(self, port: str, gain: float = 2.0, *, names: tuple[str, ...] = ("x", "y")) -> None:
        raise OSError("this is hardware")
        self.low, self.high = gain, LIMIT  # type: ignore[unreachable]
        self.gain = gain
        self.mode = Mode.SLOW
        self.axis: Axis = Axis("x")
        self.found: str = find_port(port)
        self.handle = None
        with find_port(port) as self.channel:
            pass

    def open(self) -> None:
        self.handle = Axis("handle")

    def grab(self, number: int, /, *, wait: bool = True) -> Frame: ...

    short = functools.partialmethod(grab, 1)

    @functools.singledispatchmethod
    def send(self, what: object) -> int: ...

    @functools.cached_property
    def name(self) -> str: ...

    @property
    def temperature_c(self) -> float: ...

    @property
    def exposure_ms(self) -> float: ...

    @exposure_ms.setter
    def exposure_ms(self, value: float) -> None: ...

    @contextlib.contextmanager
    def armed(self) -> Iterator[int]:
        yield 3

    @contextlib.contextmanager
    def held(self):  # type: ignore[no-untyped-def]
        yield

    @contextlib.asynccontextmanager
    async def armed_async(self) -> AsyncIterator[int]:
        yield 3

    def frames(self) -> Iterator[Frame]:
        raise OSError("this is hardware")

    def bare_frames(self):  # type: ignore[no-untyped-def]
        yield 1

    async def async_frames(self) -> AsyncIterator[Frame]:
        yield self.grab(1)

    async def read_async(self) -> float: ...

    def reading(self) -> Reading: ...
    def position(self) -> Position: ...
    def status(self) -> Status: ...
    def volt(self) -> Volt: ...
    def where(self) -> Millimetres: ...
    def number(self) -> np.float64: ...
    def count(self) -> np.int32: ...
    def good(self) -> np.bool_: ...
    def pixels(self) -> npt.NDArray[np.uint16]: ...

    def line(self) -> Pixels[np.uint32, tuple[int, int]]: ...

    def weights(self) -> Weights: ...
    def price(self) -> decimal.Decimal: ...
    def day(self) -> dt.date: ...
    def moment(self) -> dt.time: ...
    def serial_number(self) -> uuid.UUID: ...
    def folder(self) -> Path: ...
    def trace(self) -> list[float]: ...
    def pair(self) -> tuple[float, str]: ...
    def volts(self) -> Annotated[float, "V"]: ...
    def state(self) -> Literal["on", "off"]: ...
    def converter(self) -> Callable[[int], float]: ...
    def later(self) -> Awaitable[int]: ...
    def lent(self) -> contextlib.AbstractContextManager[int]: ...
    def part(self) -> Axis: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> float: ...
    def __float__(self) -> float: ...
    def __lshift__(self, other: object) -> int: ...


LIMIT = 7


@dataclasses.dataclass
class Lamp:
    port: str
    power_mw: float = 1.0
    history: list[float] = dataclasses.field(default_factory=list)


class Loose:
    def __init__(self, **settings: Any) -> None:
        for name, value in settings.items():
            setattr(self, name, value)


def simulated(cls: type = Stage, returns: dict[str, Any] | None = None, **params: Any) -> Any:
    """As a dry run makes it: the stand-in within its wrapper."""
    log, answers = logging.getLogger("stage"), Answers(returns or {})
    hooks = Hooks("stage", log, Latch(), answers=answers, contract=surface_of(cls), calls=[])
    return wrap(autospec(cls, params), hooks)


@pytest.fixture
def stage() -> Any:
    return simulated(port="COM1", gain=4.0)


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


@pytest.mark.parametrize(
    "use",
    [
        lambda d: d.reading()["value"] + 1.0,
        lambda d: d.position().x_mm + 1.0,
        lambda d: (lambda code, text: True)(*d.status()),
        lambda d: d.volt() + 1.0,
        lambda d: d.where() + 1.0,
        lambda d: d.number() + 1.0,
        lambda d: d.count() + 1,
        lambda d: bool(d.good()),
        lambda d: d.pixels().dtype == np.uint16,
        lambda d: d.grab(1).image.dtype == np.uint8,
        lambda d: d.line().dtype == np.uint32,
        lambda d: d.weights() == [1.0],
        lambda d: d.price() + 1,
        lambda d: d.day().isoformat(),
        lambda d: d.moment().isoformat(),
        lambda d: d.serial_number().hex,
        lambda d: d.folder() / "x",
        lambda d: d.trace() == [1.0],
        lambda d: d.pair() == (1.0, "simulated"),
        lambda d: d.volts() + 1.0,
        lambda d: d.state() == "on",
        lambda d: d.converter()(3) + 1.0,
        lambda d: d.part().move(3.0) + 1.0,
        lambda d: d.short().number + 1,
        lambda d: d.send("x") + 1,
        lambda d: d.name.upper(),
        lambda d: d.temperature_c + 1.0,
        lambda d: d.chain().grab(1),
        lambda d: len(d) == len(list(d)) + 1,
        lambda d: d[0] + 1.0,
        lambda d: float(d) + 1.0,
        lambda d: (d << 3) + 1,
        lambda d: [frame.number for frame in d.frames()] == [1],
        lambda d: list(d.bare_frames()) == [],
    ],
)
def test_answers_can_be_used_as_those_of_the_driver(stage: Any, use: Any) -> None:
    assert use(stage)


def test_context_managers_are_entered_with_what_they_yield(stage: Any) -> None:
    with stage.armed() as armed, stage.held(), stage.lent() as lent:
        assert (armed, lent) == (1, 1)
    with stage as entered:
        assert entered is stage

    async def use() -> Any:
        async with stage.armed_async() as value:
            return value, [frame.number async for frame in stage.async_frames()], await stage.read_async(), await stage.later()

    assert run(use()) == (1, [1], 1.0, 1)


def test_attributes_hold_what_their_annotation_or_the_constructor_says(stage: Any) -> None:
    assert (stage.found, stage.gain, stage.axis.move(3.0), stage.LIMIT_MM) == ("simulated", 4.0, 1.0, 5)


@pytest.mark.parametrize("name", ["low", "mode", "handle", "channel"])
def test_what_only_the_drivers_code_knows_must_be_given(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"Stage\.{name} is set by the driver's own code.*'returns: {{{name}: VALUE}}'"):
        getattr(simulated(port="COM1"), name)
    assert getattr(simulated(port="COM1", returns={name: 7}), name) == 7
    device = simulated(port="COM1")
    setattr(device, name, 8)
    assert getattr(device, name) == 8


def test_parts_of_a_device_are_stand_ins(stage: Any) -> None:
    assert isinstance(stage.axis, Axis)
    with pytest.raises(TypeError, match=r"Axis\.move\(x_mm\)"):
        stage.axis.move()
    with pytest.raises(AttributeError, match="did you mean 'move'"):
        stage.axis.mov(3.0)


def test_a_property_without_setter_cannot_be_set(stage: Any) -> None:
    stage.exposure_ms = 5.0
    assert stage.exposure_ms == 5.0
    with pytest.raises(AttributeError, match="'temperature_c' of 'Stage' object has no setter"):
        stage.temperature_c = 20.0

    class Mock:
        temperature_c = 3.0

    hooks = Hooks("stage", logging.getLogger("stage"), Latch(), contract=surface_of(Stage))
    with pytest.raises(AttributeError, match="has no setter"):
        wrap(Mock(), hooks).temperature_c = 20.0


def test_a_dataclass_holds_its_arguments() -> None:
    lamp = simulated(Lamp, port="COM1", power_mw=7.0)
    assert (lamp.port, lamp.power_mw, lamp.history) == ("COM1", 7.0, [])


def test_a_driver_that_makes_up_its_attributes_may_have_any() -> None:
    assert simulated(Loose, gain=3).gain
    with pytest.raises(AttributeError):
        simulated(Base).gain


def test_a_type_that_holds_itself_ends() -> None:
    class Node:
        def children(self) -> list[typing.Any]: ...

        def deep(self) -> list[list[list[list[list[list[int]]]]]]: ...

    assert simulated(Node).children() == []
    assert simulated(Node).deep()
