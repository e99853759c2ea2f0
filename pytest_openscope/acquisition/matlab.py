"""The adapter ``matlab``: a function, called in a MATLAB that runs already, or in GNU Octave.

The call is that of the launcher, whose parameter files stay valid: ``slap2_launcher('execute', <session folder>, <name>,
<value>, ...)``, any other entry point ``f(<arguments>, <session folder>, <name>, <value>, ...)``; a resumed one gets
``'resume', true`` too.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any, TextIO

from pydantic import ValidationError

from ..config import Settings
from ..records import ConfigurationError, Mistake
from ..system import MARK_FOLDER, MARK_NAME, MARK_SESSION, StopPolicy, native_path
from .adapter import Adapter, Decision, Finding, Severity, Task, mistake
from .commands import check_program, check_script
from .engines import Engine, EngineDied, EngineInterrupted, EngineUnavailable
from .failures import AcquisitionFailed
from .matlab_engine import INSTALL, PACKAGE, MatlabEngine
from .octave import OctaveEngine
from .paths import in_repository, is_absolute, is_elsewhere, is_template
from .spec import OUTPUT_FOLDER, AcquisitionSpec

_SLAP2 = "slap2_launcher"
_FUNCTION = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")
_CODE = (".m", ".mlx", ".p", ".mex", ".mexa64", ".mexmaca64", ".mexmaci64", ".mexw64", ".oct")
_KEYS = ("octave_exe_path", "script_parameters")


class MatlabAdapter(Adapter):
    """``launcher: matlab``, with ``matlab_engine: matlab`` (a shared MATLAB) or ``octave``."""

    kind = "matlab"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._engine: Engine | None = None
        self._call: EngineCall | None = None
        self._died = self._resume = False

    def spec(self) -> AcquisitionSpec:
        """Return the call; on an engine once :meth:`prepare` has one."""
        settings, function, arguments = self.settings, self._function(), self._arguments()
        octave = settings.matlab_engine == "octave"
        # Octave can be killed, which takes its time; MATLAB, with what it controls, is not ours to kill.
        kill_s = self.task.defaults.stop.kill_s if octave else 0.0
        self._call = EngineCall(self._engine, function, arguments, self._folders(), settings)
        return replace(
            self.task.defaults,
            command=(self._engine_words(), function, *map(str, arguments)),
            call=self._call,
            name=function,
            stop=StopPolicy(settings.matlab_cancel_timeout_sec, 0.0, kill_s),
            explain_silence=lambda pid: _SILENT[settings.matlab_engine],
        )

    def describe(self) -> str:
        """Return the call as MATLAB code, nearly."""
        return f"{self._engine_words()}: {self._function()}({', '.join(map(repr, self._arguments()))})"

    def check(self, dry_run: bool) -> Iterator[Finding]:
        """Look for the engine's program or package, for the folders of m-files, and for the entry point in them."""
        octave = self.settings.matlab_engine == "octave"
        if not dry_run and octave:
            yield from check_program(self._octave(), "octave_exe_path")
        elif not dry_run and not _is_installed():
            yield Finding(f"the package {PACKAGE} is not installed", INSTALL, "matlab_engine")
        missing: list[Finding] = []
        if self.parameters.get("script_path"):
            missing += check_script(self.parameters, str(self.path("script_path")), dry_run)
        for folder in self._own_folders():
            if not is_template(folder) and not Path(folder).is_dir():
                severity: Severity = "unknown" if dry_run and is_elsewhere(self.parameters, folder) else "error"
                missing.append(Finding(f"there is no folder {folder!r}", "mend the path", "matlab_path", severity))
        yield from missing
        folders = self._folders()
        if folders and not missing and not any(map(is_template, folders)) and not self._is_in(folders):
            problem = f"there is no m-file of {self._function()!r} in {', '.join(folders)}"
            remedy = "mend the name, or add its folder to matlab_path"
            # MATLAB has a search path of its own, which nobody here knows.
            yield Finding(problem, remedy, "matlab_entrypoint", "error" if octave else "warning")

    def prepare(self) -> None:
        """Connect to MATLAB, or start Octave."""
        settings = self.settings
        try:
            if settings.matlab_engine == "octave":
                self._engine = OctaveEngine(
                    self._octave(),
                    self._environment(),
                    settings.matlab_engine_connect_timeout_sec,
                    settings.matlab_cancel_timeout_sec,
                    self.task.defaults.stop.kill_s,
                )
            else:
                self._engine = MatlabEngine(
                    settings.matlab_engine_name,
                    settings.matlab_engine_connect_timeout_sec,
                    settings.matlab_engine_connect_poll_interval_sec,
                    settings.matlab_cancel_timeout_sec,
                    self.task.notice,
                )
        except EngineUnavailable as error:
            raise self.not_ready(str(error)) from error

    def release(self) -> None:
        """Let go of an engine on which nothing was called; a call does so itself."""
        engine, self._engine = self._engine, None
        if engine is not None and (self._call is None or not self._call.begun):
            engine.close(self.settings.matlab_keep_engine_alive)

    def after_failure(self, error: AcquisitionFailed, attempt: int) -> Decision:
        """Let the operator decide to go on with another engine, when this one died."""
        settings = self.settings
        self._died = self._died or isinstance(error.__cause__, EngineDied)
        if not self._died or not isinstance(error.__cause__, (EngineDied, EngineUnavailable)):
            return "fail"
        if not settings.matlab_enable_resume:
            return "fail"
        if settings.matlab_engine == "octave":
            what = "Start Octave again and resume the acquisition?"
        else:
            what = f"Start MATLAB again, share it as {settings.matlab_engine_name!r}, then resume the acquisition?"
        self._resume = self.task.ask(f"{error}. {what}", ("resume", "fail"), "resume") == "resume"
        return "retry" if self._resume else "fail"

    @cached_property
    def settings(self) -> Settings:
        """The parameters of this kind, typed; what a Python experiment gives was not checked before."""
        own = {key: value for key, value in self.parameters.items() if key.startswith("matlab_") or key in _KEYS}
        try:
            return Settings.model_validate(own)
        except ValidationError as error:
            mistakes = [Mistake("parameters", one["msg"], "mend the value", str(one["loc"][0])) for one in error.errors()]
            raise ConfigurationError(mistakes) from error

    def _function(self) -> str:
        given = self.parameters.get("matlab_entrypoint") or self.parameters.get("matlab_function")
        if not given and self.parameters.get("script_path"):
            given = PureWindowsPath(str(self.parameters["script_path"])).stem
        name = str(given or _SLAP2)
        if not is_template(name) and not _FUNCTION.fullmatch(name):
            raise mistake(
                "matlab_entrypoint", f"{name!r} is no name of a MATLAB function", "give its name, without .m and folder"
            )
        return name

    def _arguments(self) -> list[Any]:
        settings = self.settings
        arguments = list(settings.matlab_entrypoint_args)
        slap2 = self._function() == _SLAP2
        if slap2 and arguments[:1] == ["execute"]:
            del arguments[0]
        if settings.matlab_pass_session_folder:
            position = settings.matlab_session_folder_position or ("prepend" if slap2 else "append")
            index = {"prepend": "0", "append": str(len(arguments))}.get(position, position)
            if index.isdecimal():
                arguments.insert(int(index), str(self.task.folder))
            elif index != "ignore":
                remedy = "write prepend, append, ignore or a number"
                raise mistake("matlab_session_folder_position", f"{position!r} is no position", remedy)
        if slap2:
            arguments.insert(0, "execute")
        pairs = {**settings.script_parameters, **settings.matlab_entrypoint_kwargs}
        # The launcher passes this one on by itself.
        rig = self.parameters.get("matlab_rig_description_path") or self.parameters.get("rig_description_path")
        if rig:
            pairs.setdefault("rig_description_path", str(rig))
        for name, value in pairs.items():
            arguments += [str(name), value]
        if self._resume and settings.matlab_resume_keyword not in arguments:
            arguments += [settings.matlab_resume_keyword, True]
        return arguments

    def _own_folders(self) -> list[str]:
        texts = (str(in_repository(self.parameters, text)) for text in self.settings.matlab_path)
        return [text if is_template(text) or is_absolute(text) else str(Path(text).absolute()) for text in texts]

    def _folders(self) -> list[str]:
        """Return the folders that are put on the search path: the script's, and those of ``matlab_path``."""
        script = [str(self.path("script_path").absolute().parent)] if self.parameters.get("script_path") else []
        return list(dict.fromkeys([*script, *self._own_folders()]))

    def _is_in(self, folders: list[str]) -> bool:
        *packages, name = self._function().split(".")
        inner = Path(*(f"+{package}" for package in packages))
        return any((Path(folder) / inner / (name + suffix)).is_file() for folder in folders for suffix in _CODE)

    def _engine_words(self) -> str:
        return "Octave" if self.settings.matlab_engine == "octave" else f"MATLAB engine {self.settings.matlab_engine_name}"

    def _octave(self) -> str:
        given = self.settings.octave_exe_path
        return str(native_path(given)) if given else "octave-cli"

    def _environment(self) -> dict[str, str]:
        folder = str(self.task.folder)
        marks = {MARK_SESSION: self.task.folder.name, MARK_FOLDER: folder, MARK_NAME: self._function(), OUTPUT_FOLDER: folder}
        environ = {name: text for name, text in os.environ.items() if name != "OPENSCOPE_RIG_CONFIG"}
        return {**environ, **marks}


_SILENT = {
    "matlab": "MATLAB may be busy with another function, or wait at a dialog or a button: look at its window",
    "octave": "Octave may wait for input, which nobody can give it",
}


class EngineCall:
    """One call of a function on an engine (see :class:`.calls.Call`).

    Attributes:
        pid, create_time: the engine's process, when it is ours.
        begun: it was called, and lets go of the engine itself.
    """

    def __init__(
        self, engine: Engine | None, function: str, arguments: list[Any], folders: list[str], settings: Settings
    ) -> None:
        self._engine, self._function, self._arguments, self._folders = engine, function, arguments, folders
        self._settings = settings
        self._cancelled = self.begun = False
        self.pid = engine.pid if engine else None
        self.create_time = engine.create_time if engine else None

    def run(self, stdout: TextIO, stderr: TextIO) -> int | None:
        """Call it, and let go of the engine."""
        engine = self._engine
        assert engine is not None, "prepare() comes first"
        self.begun = True
        nargout = self._settings.matlab_entrypoint_nargout
        try:
            engine.evaluate(self._function, self._arguments, nargout, self._folders, stdout, stderr)
        except (EngineInterrupted, EngineDied):
            if not self._cancelled:
                raise
            return 130
        finally:
            engine.close(self._settings.matlab_keep_engine_alive)
        return None

    def cancel(self) -> None:
        """Ask the engine to interrupt it."""
        self._cancelled = True
        if self._engine is not None:
            self._engine.interrupt()


def _is_installed() -> bool:
    """Tell whether ``matlab`` is there; ``matlab.engine`` itself would load MATLAB's libraries."""
    return importlib.util.find_spec(PACKAGE.partition(".")[0]) is not None
