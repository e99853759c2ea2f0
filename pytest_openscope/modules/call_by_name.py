"""Ready-made steps in Python experiments: called by name, with the parameters that an entry of a parameter file would have."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import PipelineEntry, keys_of, nearest
from ..records import Phase
from .context import ModuleContext
from .entries import run_step, simulates
from .other_steps import OwnSteps
from .parameters import ReadyMade, StepParameters
from .ready_made import READY_MADE, find_step

Maker = Callable[[PipelineEntry], ModuleContext]


class Steps:
    """The ready-made steps: ``steps.disk_space_check(required_free_gb=10)``.

    Each takes its parameters by name, as ``module_parameters`` of a parameter file would, and returns what its function in the
    reference returns. What is not given comes from the session's parameters. In a dry run it is simulated where an entry of a
    parameter file would be, and returns None. Steps of the rig's own (``modules:``), of installed packages and of an installed
    launcher are there too.

    The fixture ``steps`` gives those of the running session. ``Steps(folder)`` works on any folder, outside of sessions too: to
    describe or archive a session of last month, or to try a step.
    """

    def __init__(
        self,
        where: Path | str | Maker,
        *,
        phase: Callable[[], Phase] = lambda: Phase.PRE_ACQUISITION,
        own_steps: OwnSteps | None = None,
        expand: Callable[[Any], Any] = lambda value: value,
        on_simulated: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._make = where if callable(where) else _maker(Path(where))
        self._phase = phase
        self._own = own_steps or OwnSteps()
        self._expand = expand
        self._on_simulated = on_simulated

    def __repr__(self) -> str:
        return f"<Steps: {', '.join(dir(self))}>"

    def __dir__(self) -> list[str]:
        return sorted({*READY_MADE, *self._own.names()})

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        step = find_step(name, self._phase(), self._own)
        if step is None:
            near = nearest(name, dir(self), 2)
            raise AttributeError(f"there is no step {name!r}" + (f"; did you mean {near!r}?" if near else ""))

        def call(**parameters: Any) -> Any:
            if isinstance(step, ReadyMade):
                _refuse_mistakes(name, step, parameters)
            return self._run(name, parameters)

        if isinstance(step, ReadyMade) and step.model is not None:
            call.__signature__ = _signature(step.model)  # type: ignore[attr-defined]
        call.__name__ = call.__qualname__ = name
        call.__doc__ = step.run.__doc__ if isinstance(step, ReadyMade) else f"A step of {step.origin}."
        return call

    def _run(self, name: str, parameters: dict[str, Any]) -> Any:
        given = {key: str(value) if isinstance(value, Path) else value for key, value in parameters.items()}
        entry = PipelineEntry(name, self._phase(), "launcher_module", name, self._expand(given), where=f"steps.{name}")
        context = self._make(entry)
        simulated = simulates(entry, context) if context.dry_run else None
        if simulated is None:
            return run_step(entry, context)
        context.logger.info("dry run: would %s", simulated)
        self._on_simulated(name)
        return None


def _maker(folder: Path) -> Maker:
    def make(entry: PipelineEntry) -> ModuleContext:
        return ModuleContext(dict(entry.parameters), folder, logger=logging.getLogger(f"pytest_openscope.modules.{entry.name}"))

    return make


def _refuse_mistakes(name: str, step: ReadyMade, given: dict[str, Any]) -> None:
    """Raise for an argument that a step does not have, as Python does for its functions."""
    if step.model is not None:
        known = list(keys_of(step.model))
        for key in given:
            if key not in known:
                near = nearest(key, known, 2)
                hint = f"did you mean {near!r}?" if near else f"it has: {', '.join(known)}"
                raise TypeError(f"{name}() has no parameter {key!r}; {hint}")
    elif step.problems is not None and (found := step.problems(given)):
        raise TypeError(f"{name}(): " + "; ".join(f"{key}: {problem}" for key, problem in found))


def _signature(model: type[StepParameters]) -> inspect.Signature:
    """Return the signature that ``help`` and editors show."""
    return inspect.Signature(
        [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
            for key, field in keys_of(model).items()
        ]
    )
