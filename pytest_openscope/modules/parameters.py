"""The parameters of ready-made steps: how they are read, what can be wrong with them, and how long a step may take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BeforeValidator, ValidationError

from ..config import KNOWN_PARAMETERS, Flag, Integer, Number, Section, check, keys_of, seconds
from ..config import Seconds as _Seconds
from ..records import Mistake
from ..system import BoundedCall, awake_s
from .failures import ModuleFailed, StepTimedOut

#: Keys of the session, some of which it adds itself; an entry may give them, as files of the launcher do.
_OF_OTHERS = (*KNOWN_PARAMETERS, "output_session_folder", "session_folder", "dry_run", "simulate_in_dry_run", "rig_id")

ResultT = TypeVar("ResultT")
ParametersT = TypeVar("ParametersT", bound="StepParameters")


def _plain(value: Any) -> Any:
    """Read a text as the number or flag that it stands for, as placeholders and older files give it."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            pass
    return value


FlagText = Annotated[Flag, BeforeValidator(_plain)]
NumberText = Annotated[Number, BeforeValidator(_plain)]
IntegerText = Annotated[Integer, BeforeValidator(_plain)]
SecondsText = Annotated[_Seconds, BeforeValidator(_plain)]


class StepParameters(Section):
    """What ``module_parameters`` of a ready-made step may hold. A key that is absent there is looked up in the parameters."""

    #: Keys that the rig may give, so that a dry run elsewhere can do without.
    of_the_rig: ClassVar[tuple[str, ...]] = ()

    timeout_s: SecondsText | None = seconds(None, "longest run of the step; the operator's answers take no time", 0.001)

    def missing(self) -> Iterable[tuple[str, str]]:
        """Return what a run cannot do without and nobody gave: pairs of key and remedy."""
        return ()

    def would(self) -> str:
        """Say what a dry run leaves out."""
        raise NotImplementedError


def read_parameters(
    model: type[ParametersT], parameters: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[ParametersT, list[Mistake]]:
    """Return a step's parameters, with defaults where they are wrong, and what is wrong with them.

    An entry's own parameters count before those of the session; ``timeout_s`` is the entry's alone.
    """
    shared = {name: parameters[name] for name in keys_of(model) if name in parameters and name != "timeout_s"}
    mine = {name: value for name, value in own.items() if name in keys_of(model) or name not in _OF_OTHERS}
    return check(model, {**shared, **mine}, "", "")


def parameters_of(model: type[ParametersT], parameters: Mapping[str, Any], own: Mapping[str, Any]) -> ParametersT:
    """Return a step's parameters, complete.

    Raises:
        ModuleFailed: some are wrong or missing; all of them are named.
    """
    read, found = read_parameters(model, parameters, own)
    wrong = [f"{one.key}: {one.problem}" + (f" -> {one.remedy}" if one.remedy else "") for one in found]
    wrong += [f"{key} is missing -> {remedy}" for key, remedy in read.missing() if key not in {one.key for one in found}]
    if wrong:
        raise ModuleFailed("; ".join(wrong))
    return read


def unused(model: type[StepParameters], own: Mapping[str, Any]) -> list[str]:
    """Return the entry's keys that the step does not have."""
    return [name for name in own if name not in keys_of(model) and name not in _OF_OTHERS]


def limit_s(model: type[StepParameters], own: Mapping[str, Any]) -> float | None:
    """Return ``timeout_s`` as an entry gives it, for who watches the step from outside; None where it is none, or wrong."""
    try:
        return model.model_validate({"timeout_s": own["timeout_s"]}).timeout_s if "timeout_s" in own else None
    except ValidationError:
        return None


def within(timeout_s: float | None, what: str, function: Callable[[], ResultT]) -> ResultT:
    """Return what ``function`` returns, and wait for it no longer than ``timeout_s``.

    For calls that a dead share or a slow server holds up in the operating system, where nothing can end them: they go on in a
    thread that nobody waits for.

    Raises:
        StepTimedOut: it took longer.
        Exception: whatever the function raises.
    """
    if timeout_s is None:
        return function()
    call = BoundedCall("openscope-step", function, timeout_s)
    call.run()
    if not call.ended:
        raise StepTimedOut(f"{what} took longer than {timeout_s:g} s")
    if call.error is not None:
        raise call.error
    return call.result  # type: ignore[no-any-return]


class Deadline:
    """The time that a step has left."""

    def __init__(self, timeout_s: float | None, what: str) -> None:
        self._timeout_s, self._what = timeout_s, what
        self._end = None if timeout_s is None else awake_s() + timeout_s

    def left_s(self, most_s: float) -> float:
        """Return the time left, ``most_s`` at most.

        Raises:
            StepTimedOut: there is none.
        """
        left_s = most_s if self._end is None else min(most_s, self._end - awake_s())
        if left_s <= 0:
            raise StepTimedOut(f"{self._what} took longer than {self._timeout_s:g} s (timeout_s)")
        return left_s

    @property
    def passed(self) -> bool:
        return self._end is not None and awake_s() >= self._end

    def check(self) -> None:
        """Raise when the time is up.

        Raises:
            StepTimedOut: it is.
        """
        self.left_s(1.0)
