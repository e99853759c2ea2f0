"""Ready-made steps in Python experiments: called by name, with the parameters that an entry of a parameter file would have."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import PipelineEntry, keys_of
from ..records import Phase
from .context import ModuleContext
from .entries import run_step, simulates
from .other_steps import OwnSteps, guess
from .parameters import StepParameters
from .ready_made import ReadyMade, find_step, known_names

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
        return sorted(known_names(self._own))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        step = find_step(name, self._phase(), self._own)
        if step is None:
            raise AttributeError(f"there is no step {name!r}; {guess(name, dir(self))}")
        known = list(keys_of(step.model)) if isinstance(step, ReadyMade) else None

        def call(**parameters: Any) -> Any:
            for key in parameters:
                if known is not None and key not in known:
                    raise TypeError(f"{name}() has no parameter {key!r}; {guess(key, known)}")
            return self._run(name, parameters)

        if isinstance(step, ReadyMade):
            call.__signature__ = _signature(step.model)  # type: ignore[attr-defined]
        call.__name__ = call.__qualname__ = name
        call.__doc__ = step.run.__doc__ if isinstance(step, ReadyMade) else f"A step of {step.origin}."
        return call

    def _run(self, name: str, parameters: dict[str, Any]) -> Any:
        given = {key: str(value) if isinstance(value, Path) else value for key, value in parameters.items()}
        entry = PipelineEntry(
            name=name, phase=self._phase(), module_path=name, module_parameters=self._expand(given), where=f"steps.{name}"
        )
        context = self._make(entry)
        if not simulates(entry, context):
            return run_step(entry, context)
        self._on_simulated(name)
        return None


def _maker(folder: Path) -> Maker:
    def make(entry: PipelineEntry) -> ModuleContext:
        return ModuleContext(
            dict(entry.module_parameters), folder, logger=logging.getLogger(f"pytest_openscope.modules.{entry.name}")
        )

    return make


def _signature(model: type[StepParameters]) -> inspect.Signature:
    """Return the signature that ``help`` and editors show."""
    return inspect.Signature(
        [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
            for key, field in keys_of(model).items()
        ]
    )
