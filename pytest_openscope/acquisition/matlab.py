"""The adapter ``matlab``: a function, called in a MATLAB that runs already, or in an Octave of its own.

The call is that of the launcher, whose parameter files stay valid: ``slap2_launcher('execute', <session folder>, <name>,
<value>, ...)``, any other entry point ``f(<arguments>, <session folder>, <name>, <value>, ...)``; a resumed one gets
``'resume', true`` too.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any, TextIO

from ..config import Settings
from ..system import StopPolicy, native_path
from .adapter import Adapter, Decision, Finding, Severity, Task, mistake, typed
from .commands import check_program, check_script
from .failures import AcquisitionFailed
from .matlab_engine import INSTALL, PACKAGE, EngineDied, EngineInterrupted, EngineUnavailable, MatlabEngine
from .octave import FUNCTION_FAILED, octave_command, why_unusable
from .paths import in_repository, is_absolute, is_elsewhere, is_template
from .spec import AcquisitionSpec

_SLAP2 = "slap2_launcher"
_FUNCTION = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")
_CODE = (".m", ".mlx", ".p", ".mex", ".mexa64", ".mexmaca64", ".mexmaci64", ".mexw64", ".oct")
_KEYS = ("octave_exe_path", "script_parameters")


class MatlabAdapter(Adapter):
    """``launcher: matlab``, with ``matlab_engine: matlab`` (a shared MATLAB) or ``octave``."""

    kind = "matlab"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._engine: MatlabEngine | None = None
        self._call: MatlabCall | None = None
        self._died = self._resume = False

    def spec(self) -> AcquisitionSpec:
        """Return Octave's command, or the call in MATLAB; that one can run once :meth:`prepare` has connected."""
        settings, function, arguments, folders = self.settings, self._function(), self._arguments(), self._folders()
        cancel_s = settings.matlab_cancel_timeout_sec
        spec = replace(self.task.defaults, name=function, explain_silence=lambda pid: _SILENT[settings.matlab_engine])
        if settings.matlab_engine == "octave":
            try:
                command = octave_command(self._octave(), function, arguments, settings.matlab_entrypoint_nargout, folders)
            except TypeError as error:
                raise mistake("matlab_entrypoint_args", str(error), "give texts, numbers, lists and mappings") from error
            return replace(spec, command=command, stop=StopPolicy(cancel_s, 0.0, self.task.defaults.stop.kill_s))
        self._call = MatlabCall(self._engine, function, arguments, folders, settings)
        # MATLAB, with what it controls, is not ours to kill.
        stop = StopPolicy(cancel_s, 0.0, 0.0)
        return replace(spec, command=(self._engine_words(), function, *map(str, arguments)), call=self._call, stop=stop)

    def describe(self) -> str:
        """Return the call as MATLAB code, nearly."""
        return f"{self._engine_words()}: {self._function()}({', '.join(map(repr, self._arguments()))})"

    def check(self, dry_run: bool) -> Iterator[Finding]:
        """Look for the engine's program or package, for the folders of m-files, and for the entry point in them."""
        octave = self.settings.matlab_engine == "octave"
        if not dry_run and octave:
            yield from check_program(self._octave(), "octave_exe_path")
        elif not dry_run and importlib.util.find_spec(PACKAGE.partition(".")[0]) is None:
            # Looking for matlab.engine itself would load MATLAB's libraries.
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
        """Connect to MATLAB, or see that Octave starts."""
        settings = self.settings
        timeout_s = settings.matlab_engine_connect_timeout_sec
        if settings.matlab_engine == "octave":
            if problem := why_unusable(self._octave(), timeout_s):
                raise self.not_ready(problem)
            return
        poll_s = settings.matlab_engine_connect_poll_interval_sec
        try:
            self._engine = MatlabEngine(settings.matlab_engine_name, timeout_s, poll_s, self.task.notice)
        except EngineUnavailable as error:
            raise self.not_ready(str(error)) from error

    def release(self) -> None:
        """Let go of a MATLAB on which nothing was called; a call does so itself."""
        engine, self._engine = self._engine, None
        if engine is not None and (self._call is None or not self._call.begun):
            _close(engine, self.settings)

    def after_failure(self, error: AcquisitionFailed, attempt: int) -> Decision:
        """Let the operator decide to go on with another engine, when this one died."""
        settings = self.settings
        if settings.matlab_engine == "octave":
            facts = error.facts
            is_gone = facts.returncode not in (None, 0, FUNCTION_FAILED) and not facts.stop_reason
            what = "Start Octave again and resume the acquisition?"
        else:
            self._died = self._died or isinstance(error.__cause__, EngineDied)
            is_gone = self._died and isinstance(error.__cause__, (EngineDied, EngineUnavailable))
            what = f"Start MATLAB again, share it as {settings.matlab_engine_name!r}, then resume the acquisition?"
        if not (is_gone and settings.matlab_enable_resume):
            return "fail"
        self._resume = self.task.ask(f"{error}. {what}", ("resume", "fail"), "resume") == "resume"
        return "retry" if self._resume else "fail"

    @cached_property
    def settings(self) -> Settings:
        """The parameters of this kind, typed; what a Python experiment gives was not checked before."""
        return typed({key: value for key, value in self.parameters.items() if key.startswith("matlab_") or key in _KEYS})

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


_SILENT = {
    "matlab": "MATLAB may be busy with another function, or wait at a dialog or a button: look at its window",
    "octave": "Octave may wait for input, which nobody can give it",
}


class MatlabCall:
    """One call of a function in MATLAB (see :class:`.calls.Call`); once ``begun`` it lets go of MATLAB itself."""

    def __init__(
        self, engine: MatlabEngine | None, function: str, arguments: list[Any], folders: list[str], settings: Settings
    ) -> None:
        self._engine, self._function, self._arguments, self._folders = engine, function, arguments, folders
        self._settings = settings
        self._cancelled = self.begun = False

    def run(self, stdout: TextIO, stderr: TextIO) -> int | None:
        """Call it, and let go of MATLAB."""
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
            _close(engine, self._settings)
        return None

    def cancel(self) -> None:
        self._cancelled = True
        if self._engine is not None:
            self._engine.interrupt()


def _close(engine: MatlabEngine, settings: Settings) -> None:
    engine.close(None if settings.matlab_keep_engine_alive else settings.matlab_cancel_timeout_sec)
