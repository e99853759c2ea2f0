"""What a module is given, and how it says that it failed."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..log import mask_json
from ..records import METADATA, Measurement, safe_name
from ..system import json_bytes, native_path, write_atomic, write_json
from .failures import ModuleFailed
from .other_steps import OwnSteps
from .scripts import ScriptImports


class Operator(Protocol):
    """Who answers questions; both methods raise ``EOFError`` when nobody is there."""

    def ask(self, prompt: str, default: str | None = None, /) -> str:
        """Return the line that the operator typed, or ``default`` for an empty one."""
        ...

    def confirm(self, prompt: str, /) -> bool:
        """Return whether the operator agreed."""
        ...


def _nothing(*_: Any, **__: Any) -> None:
    return None


@dataclass(repr=False)
class ModuleContext:
    """What a step may use. A function gets it as the argument that is annotated ``ModuleContext``.

    Attributes:
        parameters: merged and expanded parameters, this step's ``module_parameters`` merged over them.
        session_folder: where the session keeps its data.
        repository: checked-out repository, when there is one; script paths are relative to it.
        folders: where script paths are looked up besides (the parameter file's folder, the working directory).
        dry_run: nothing real may be touched.
        no_input: nobody answers questions.
        operator: who answers them; None counts as ``no_input``.
        logger: the step's logger.
        note: puts a line into the session's notes.
        record: keeps a measurement: ``name, value, unit``, and ``minimum, maximum, passed`` where it has limits.
        attach: registers a file as a result of the session.
        progress: shows on the terminal how far the step is: ``done, total, unit``; ``"bytes"`` are shown as kB, MB, GB.
        set_experiment_notes: the text for ``experiment_data.experiment_notes`` of ``end_state.json``.
        own_steps: the steps that the rig names itself.
        scripts: imported scripts; one object for the whole session, so that two steps of one script share its state.
    """

    parameters: dict[str, Any]
    session_folder: Path
    repository: Path | None = None
    folders: tuple[Path, ...] = ()
    dry_run: bool = False
    no_input: bool = False
    operator: Operator | None = None
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("pytest_openscope.modules"))
    note: Callable[[str], object] = _nothing
    record: Callable[..., object] = _nothing
    attach: Callable[[Path], object] = _nothing
    progress: Callable[..., object] = _nothing
    set_experiment_notes: Callable[[str], object] = _nothing
    own_steps: OwnSteps = field(default_factory=OwnSteps)
    scripts: ScriptImports = field(default_factory=ScriptImports)

    def __repr__(self) -> str:
        return f"<ModuleContext of {self.session_folder}>"  # tracebacks show it; parameters may hold secrets

    def ask(self, prompt: str, default: str | None = None) -> str:
        """Ask the operator.

        Raises:
            EOFError: nobody is there to answer.
        """
        return self._who_answers(prompt).ask(prompt, default)

    def confirm(self, prompt: str) -> bool:
        """Ask the operator for a yes.

        Raises:
            EOFError: nobody is there to answer.
        """
        return self._who_answers(prompt).confirm(prompt)

    def _who_answers(self, prompt: str) -> Operator:
        if self.no_input or self.operator is None:
            raise EOFError(f"nobody is there to answer: {prompt}")
        return self.operator

    def measure(
        self, name: str, value: float, unit: str = "", minimum: float | None = None, maximum: float | None = None
    ) -> None:
        """Record a value with its limits.

        Raises:
            ModuleFailed: it lies outside ``[minimum, maximum]``.
        """
        passed = (minimum is None or value >= minimum) and (maximum is None or value <= maximum)
        self.record(name, value, unit, minimum=minimum, maximum=maximum, passed=passed)
        if not passed:
            raise ModuleFailed(Measurement(name, value, unit, minimum, maximum).exceeded)

    def path(self, text: str) -> Path:
        """Return a path of a parameter, written with either slash; a relative one lies in the session folder."""
        return self.session_folder / native_path(text).expanduser()

    @property
    def full_parameters(self) -> dict[str, Any]:
        """``parameters`` with the session folder (under both of its names) and ``dry_run``."""
        folder = str(self.session_folder)
        return {"output_session_folder": folder, "session_folder": folder, "dry_run": self.dry_run, **self.parameters}

    @contextmanager
    def parameter_file(self, step: str) -> Iterator[Path]:
        """Yield the path of a JSON file with :attr:`full_parameters`, for functions that read one.

        It stays in ``launcher_metadata/module_parameters/``. Where a value is secret, the file that stays is masked, and
        the function reads a private one that is removed when the step ends.
        """
        parameters = self.full_parameters
        folder = self.session_folder / METADATA / "module_parameters"
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{safe_name(step, 'step')}.json"
        masked = mask_json(parameters)
        write_json(kept, masked)
        if json_bytes(masked) == json_bytes(parameters):
            yield kept
            return
        with tempfile.TemporaryDirectory(prefix="openscope-") as private:
            path = Path(private) / kept.name
            write_atomic(path, json_bytes(parameters))
            yield path
