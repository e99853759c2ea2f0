"""The adapter ``bonsai``: a workflow, run by Bonsai without its editor.

Command and retries are those of the launcher, whose parameter files stay valid. The workflow itself is read before it runs
(:mod:`.workflow`), and the files that it declares are looked for when it has run.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..records import AcquisitionFacts, safe_name
from ..system import cpu_s, native_path, patiently, window_titles
from .adapter import Adapter, Decision, Finding, Severity, mistake
from .commands import check_program, check_script, with_command
from .failures import AcquisitionFailed
from .paths import is_absolute, is_template
from .spec import AcquisitionSpec
from .workflow import Output, Reading, WorkflowRefused, read_workflow

PROVENANCE = "bonsai_provenance"
_EXTRA = 'pip install "pytest-openscope[bonsai]"'
#: How .NET prints an exception on stderr; a workflow may print one that it has handled, too.
_EXCEPTION = re.compile(r"\s*(?:[A-Z]\w*\.)+\w*Exception(?:`\d+)?(?:\s*\(|:|\s*$)")
#: ... and how one looks after which nothing of the workflow runs any more.
_FINAL = re.compile(r"\s*(?:[Uu]nhandled [Ee]xception\b|Bonsai\.Workflow\w*Exception\b)")
_LISTED = 8
#: Files of one writer that the provenance lists.
_MOST_FILES = 1000


class BonsaiAdapter(Adapter):
    """``launcher: bonsai``."""

    kind = "bonsai"

    _reading: Reading | None = None
    _unread = ""
    _before: Mapping[Path, tuple[int, int]] = MappingProxyType({})

    # What runs ------------------------------------------------------------------------------------------------------

    def spec(self) -> AcquisitionSpec:
        """Return the command, with the workflow's folder as its working directory: from there Bonsai looks for includes."""
        self.need(bonsai_exe_path="the program", script_path="a workflow")
        program, workflow = self._absolute("bonsai_exe_path"), self._absolute("script_path")
        properties: list[str] = []
        for name, value in (self.parameters.get("script_parameters") or {}).items():
            properties += ["-p", f"{name}={self._property(str(name), value)}"]
        command = (
            program,
            workflow,
            "--start",
            "--no-editor",
            *properties,
            *self.arguments("script_arguments"),
            "-p",
            f"RootFolder={self.task.folder}",
        )
        folder = Path(workflow).parent
        stops = self.task.defaults.stderr_fails
        return with_command(
            self.task.defaults,
            command,
            cwd=folder if folder.is_dir() else None,
            stderr_fails=stops or self.setting("bonsai_fail_on_stderr"),
            stderr_stops=stops,
            good_exit_codes=(0, *self._exit_codes()),
            fatal=partial(_fatal_line, self._patterns()),
            fatal_is_final=lambda line: stops or _FINAL.match(line) is not None,
            explain_silence=self._explain_silence,
        )

    def _absolute(self, key: str) -> str:
        path = self.path(key)
        if is_absolute(str(path)) or self._is_open(str(path)):
            return str(path)
        return str(path.absolute()) if len(path.parts) > 1 or path.is_file() else str(path)

    def _property(self, name: str, value: Any) -> str:
        if isinstance(value, str) and value and name.lower().endswith(("_path", "_file")) and not is_absolute(value):
            return value if self._is_open(value) else str(self.task.folder / native_path(value))
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _is_open(self, text: str) -> bool:
        """Tell whether a session that is only being checked has yet to replace placeholders in a text."""
        return self.task.folder == Path() and is_template(text)

    def _exit_codes(self) -> tuple[int, ...]:
        try:
            return tuple(int(code) for code in self.setting("bonsai_acceptable_exit_codes"))
        except ValueError:
            key = "bonsai_acceptable_exit_codes"
            raise mistake(key, f"{self.parameters[key]!r} are no exit codes", "write whole numbers") from None

    def _patterns(self) -> list[re.Pattern[str]]:
        key = "bonsai_retry_error_patterns"
        found = []
        for text in self.setting(key):
            try:
                found.append(re.compile(text))
            except re.error as error:
                raise mistake(key, f"{text!r} is no regular expression: {error}", "correct it") from None
        return found

    def _explain_silence(self, pid: int | None) -> str:
        known = []
        titles = window_titles(pid) if pid is not None else []
        if titles:
            known.append(f"it shows the windows {', '.join(map(repr, titles[:_LISTED]))}, of which one may wait for a click")
        layouts = [path.name for path in layouts_of(self.path("script_path"))]
        if layouts:
            known.append(f"{', '.join(layouts)} makes it open visualizers although it runs with --no-editor")
        lacking = [text for text in self._package_problems() if "not installed" in text]
        if lacking:
            known.append(f"packages are missing, which Bonsai offers to restore in a window: {'; '.join(lacking[:_LISTED])}")
        used_s = cpu_s(pid) if pid is not None else None
        if used_s is not None:
            known.append(f"it has used {used_s:.1f} s of CPU time")
        if not titles and not layouts and not lacking:
            known.append("no window, visualizer layout or missing package explains it; many workflows print nothing at all")
        return "; ".join(known)

    # Before it runs ---------------------------------------------------------------------------------------------------

    def check(self, dry_run: bool) -> Iterator[Finding]:
        command = self.spec().command
        if not dry_run:
            yield from self._check_program(command[0])
        missing = list(check_script(self.parameters, command[1], dry_run))
        yield from missing
        if not missing and not is_template(command[1]) and self.setting("bonsai_check_workflow"):
            yield from self._check_workflow(command, dry_run)

    def _check_program(self, program: str) -> Iterator[Finding]:
        key = "bonsai_setup_script"
        for one in check_program(program, "bonsai_exe_path"):
            if self.parameters.get(key) and not Path(program).exists():
                setup = str(self.path(key))
                if not is_template(setup) and not Path(setup).is_file():
                    yield Finding(f"there is no {program!r}, and no {setup!r} that would bring it", "mend the paths", key)
                return
            yield one
        for problem in self._package_problems():
            yield Finding(problem, "run Bonsai's setup script, or correct bonsai_config_path", "bonsai_config_path", "warning")

    def _check_workflow(self, command: tuple[str, ...], dry_run: bool) -> Iterator[Finding]:
        """Tell of a workflow's faults: as errors in a dry run, as warnings in a real session, which the lab may know better.

        What Bonsai certainly refuses is an error in both.
        """
        key = "script_path"
        mild: Severity = "unknown" if dry_run else "warning"
        try:
            reading = read_workflow(Path(command[1]), command[1:])
        except ImportError:
            yield Finding("the workflow is not read: baghban is not installed", _EXTRA, key, mild)
        except WorkflowRefused as error:
            yield Finding(str(error), error.remedy, error.key)
        except Exception as error:
            problem = f"the workflow cannot be read here: {type(error).__name__}: {error}"
            yield Finding(problem, "bonsai_check_workflow: false leaves it unread", key, mild)
        else:
            for fault in reading.faults:
                if fault.severity != "info":
                    certain = fault.severity == "error" and (dry_run or fault.code == "PROPERTY")
                    severity: Severity = "error" if certain else "warning"
                    where = "script_parameters" if fault.code == "PROPERTY" else key
                    yield Finding(fault.problem, fault.remedy, where, severity)

    def rehearse(self) -> None:
        self._read()
        self._write_provenance()

    def prepare(self) -> None:
        """Install Bonsai where it is missing, compare its packages, write down what runs."""
        program = Path(self.spec().command[0])
        if is_absolute(str(program)) and not program.exists():
            self._install(program)
        problems = self._package_problems()
        if problems:
            text = f"Bonsai's packages are not those of {self._config_file()}: {'; '.join(problems[:_LISTED])}"
            if self.setting("bonsai_package_mismatch") == "fail":
                raise self.not_ready(text)
            self.task.notice(text)
        self._read()
        if self._unread and self.setting("bonsai_check_outputs"):
            self.task.notice(f"the files that the workflow declares are not looked for, since it is not read: {self._unread}")
        if self.attempt > 1:
            self._put_aside()
        self._write_provenance()
        files = [path for output in self._judged() for path in output.files(self.task.folder)]
        self._before = {path: _version_of(path) for path in files if not path.is_relative_to(self.task.folder)}

    def _install(self, program: Path) -> None:
        if not self.parameters.get("bonsai_setup_script"):
            raise self.not_ready(f"there is no {program}, and no bonsai_setup_script that would bring it")
        script = self.path("bonsai_setup_script").absolute()
        if not script.is_file():
            raise self.not_ready(f"there is no {program}, and no {script} that would bring it")
        spec = AcquisitionSpec(
            command=_setup_command(script),
            name=f"{script.stem} of Bonsai",
            cwd=script.parent,
            timeout_s=self.setting("bonsai_setup_timeout_s"),
            stop=self.task.defaults.stop,
            echo=self.task.defaults.echo,
        )
        self.task.run(spec)
        if not program.exists():
            raise self.not_ready(f"{script} has run, and there is still no {program}")

    # Packages -------------------------------------------------------------------------------------------------------

    def _config_file(self) -> Path:
        if self.parameters.get("bonsai_config_path"):
            return self.path("bonsai_config_path")
        return self._home() / "Bonsai.config"

    def _home(self) -> Path:
        """Return Bonsai's folder, also of one that is found on PATH."""
        program = self.path("bonsai_exe_path")
        found = shutil.which(str(program)) if len(program.parts) == 1 else None
        return Path(found).parent if found else program.parent

    def _packages(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Return the versions that ``Bonsai.config`` names, and those that are installed beside Bonsai."""
        wanted = pinned_packages(self._config_file())
        return wanted, installed_packages(self._home() / "Packages", wanted)

    def _package_problems(self) -> list[str]:
        config = self._config_file()
        if is_template(str(config)) or not self._home().is_dir():
            return []
        if not config.is_file():
            return [f"there is no {config}"] if self.parameters.get("bonsai_config_path") else []
        try:
            wanted, installed = self._packages()
        except (ET.ParseError, OSError) as error:
            return [f"{config} cannot be read: {error}"]
        problems = []
        for name, version in wanted.items():
            found = installed[name]
            if not found:
                problems.append(f"{name} {version} is not installed")
            elif not any(_same_version(version, one) for one in found):
                problems.append(f"{name} is {', '.join(found)} instead of {version}")
        return problems

    # What it is, and what it left -------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Keep what the workflow is as it runs now; that it cannot be read costs the record and the check of outputs only."""
        command = self.spec().command
        self._reading, self._unread = None, ""
        try:
            self._reading = read_workflow(Path(command[1]), command[1:])
        except ImportError:
            self._unread = f"baghban is not installed: {_EXTRA}"
        except Exception as error:
            self._unread = f"{type(error).__name__}: {error}"

    def _write_provenance(self, found: dict[str, Any] | None = None) -> None:
        spec, reading = self.spec(), self._reading
        try:
            wanted, installed = self._packages()
        except (ET.ParseError, OSError):
            wanted, installed = {}, {}
        content: dict[str, Any] = {
            "workflow": spec.command[1],
            "command": list(spec.command),
            "working_directory": str(spec.cwd) if spec.cwd else None,
            "attempt": self.attempt,
            "package_versions": {name: {"wanted": wanted[name], "installed": installed[name]} for name in wanted},
        }
        if reading is None:
            content["not_read"] = self._unread
        else:
            content.update(reading.provenance)
            content["faults"] = [vars(fault) for fault in reading.faults]
            content["not_checked"] = reading.not_checked
            content["outputs"] = [{**vars(one), "files": (found or {}).get(one.writer)} for one in reading.outputs]
        label = f".{safe_name(self.task.label, '_')}" if self.task.label else ""
        self.task.save(f"{PROVENANCE}{label}.json", content)

    def verdict(self, facts: AcquisitionFacts) -> str:
        """Look for the files that the workflow declares as its outputs."""
        if self._reading is None:
            return ""
        problems: list[str] = []
        found: dict[str, Any] = {}
        for output in self._judged():
            files = [one for one in output.files(self.task.folder) if self._is_of_this_run(one)]
            found[output.writer] = {str(one): one.stat().st_size for one in files[:_MOST_FILES]}
            problem = self._problem_of(output, files)
            if problem:
                problems.append(problem)
        self._write_provenance(found)
        return "; ".join(problems) if self.setting("bonsai_check_outputs") else ""

    def _judged(self) -> list[Output]:
        return [output for output in self._reading.outputs if output.judged] if self._reading is not None else []

    def _is_of_this_run(self, path: Path) -> bool:
        """A file outside of the session folder may be an earlier session's; what counts is that it is new, or has changed."""
        return path.is_relative_to(self.task.folder) or self._before.get(path) != _version_of(path)

    def _problem_of(self, output: Output, files: list[Path]) -> str:
        place = output.place(self.task.folder)
        if not files:
            name = f"{place.stem}*{place.suffix}" if output.suffixed else place.name
            text = f"{output.writer} has left no {name} in {place.parent}"
            astray = [] if is_absolute(output.path) else output.files(self.path("script_path").absolute().parent)
            return text + (f" (but {astray[0]}, outside of the session folder)" if astray else "")
        empty = [one.name for one in files if one.stat().st_size == 0]
        return f"{output.writer} has left {', '.join(empty)} empty" if len(empty) == len(files) else ""

    def _put_aside(self) -> None:
        """Keep what a failed attempt has written from being replaced by the next one."""
        for output in self._judged():
            place = output.place(self.task.folder)
            if not output.suffixed and place.is_file() and place.is_relative_to(self.task.folder):
                kept = place.with_name(f"{place.stem}.attempt-{self.attempt - 1}{place.suffix}")
                if not kept.exists():
                    patiently(partial(place.rename, kept))
                    self.task.notice(f"{place.name} of attempt {self.attempt - 1} is kept as {kept.name}")

    # Retries --------------------------------------------------------------------------------------------------------

    def after_failure(self, error: AcquisitionFailed, attempt: int) -> Decision:
        """Ask the operator, as the launcher does; without one, the default of the parameters counts.

        Unlimited retries are the operator's alone: without one there is no end to them.
        """
        limit = self.setting("bonsai_max_retries")
        limit = None if limit is None or limit < 0 else limit
        may_retry = limit is None or attempt <= limit
        fallback = "proceed" if self.setting("bonsai_continue_on_failure") else "retry"
        default = self.setting("bonsai_failure_default") or fallback
        if default == "retry" and not may_retry:
            default = "abort"
        choices = [*(["retry"] if may_retry else []), "proceed", "abort"]
        answer = self.task.ask(f"Bonsai failed: {error}", choices, default)
        if answer is None:
            answer = "abort" if default == "retry" and limit is None else default
        if answer == "retry":
            time.sleep(self.setting("bonsai_retry_delay_sec"))
            return "retry"
        return "proceed" if answer == "proceed" else "fail"


def _fatal_line(patterns: list[re.Pattern[str]], stream: str, lines: list[bytes]) -> str:
    """Return the line that tells of a fatal error, the final one before others; Bonsai itself reports on stderr."""
    if stream != "stderr" and not patterns:
        return ""
    found = ""
    for text in (line.decode("utf-8", "replace") for line in lines):
        if stream == "stderr" and _FINAL.match(text):
            return text.strip()[:500]
        is_exception = stream == "stderr" and _EXCEPTION.match(text)
        if not found and (is_exception or any(pattern.search(text) for pattern in patterns)):
            found = text.strip()[:500]
    return found


def _version_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def layouts_of(workflow: Path) -> list[Path]:
    """Return the visualizer layouts of a workflow, which Bonsai opens with ``--no-editor`` too."""
    name = f"{workflow.name}.layout"
    beside = [workflow.with_name(name), workflow.parent / ".bonsai" / name]
    inner = workflow.parent / ".bonsai" / workflow.stem
    return [path for path in (*beside, inner / "Default.layout", inner / name) if path.is_file()]


def pinned_packages(config: Path) -> dict[str, str]:
    """Return the package versions that a ``Bonsai.config`` names; empty when it is not there.

    Raises:
        xml.etree.ElementTree.ParseError, OSError: it cannot be read.
    """
    if not config.is_file():
        return {}
    found = (one for one in ET.parse(config).iter() if one.tag.rpartition("}")[2] == "Package")
    return {one.attrib["id"]: one.attrib["version"] for one in found if one.get("id") and one.get("version")}


def installed_packages(folder: Path, names: dict[str, str]) -> dict[str, list[str]]:
    """Return the installed versions of each named package, from the folders ``<name>.<version>``."""
    there = sorted(one.name for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
    return {
        name: [one[len(name) + 1 :] for one in there if re.fullmatch(rf"{re.escape(name)}\.\d[^/\\]*", one, re.IGNORECASE)]
        for name in names
    }


def _same_version(one: str, other: str) -> bool:
    """NuGet's rule: zeros at the end, case and build metadata make no difference."""

    def plain(version: str) -> tuple[str, str]:
        numbers, _, label = version.partition("+")[0].lower().partition("-")
        return re.sub(r"(?:\.0+)+$", "", numbers), label

    return plain(one) == plain(other)


def _setup_command(script: Path) -> tuple[str, ...]:
    if script.suffix.lower() == ".ps1":
        shell = "powershell" if sys.platform == "win32" else "pwsh"
        return (shell, "-NoProfile", "-ExecutionPolicy", "Bypass", "-File", str(script))
    return (str(script),)
