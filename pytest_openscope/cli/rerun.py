"""``openscope rerun``: repeats a session with the files, parameters and commit that it had, and says what differs today."""

from __future__ import annotations

import difflib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import ConfigRequest, load, look_up
from ..log import MASK, ExactMasker
from ..records import END_STATE, METADATA, describe_repository, freeze
from ..session import file_today, masker_of, read_as_run
from ..system import read_json
from .common import WrongUse

_CONTINUE = "--continue-session"
_SHOWN = 12


def rerun(
    session_folder: Annotated[Path, typer.Argument(help="the session to repeat", metavar="SESSION_FOLDER")],
    more: Annotated[
        list[str] | None, typer.Argument(help="further options of pytest, after --", metavar="[-- OPTIONS]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="touch nothing real")] = False,
    today: Annotated[bool, typer.Option("--today", help="run today's tests and parameter file, not the session's")] = False,
) -> int:
    """Repeat a session, and say first what differs today from what it ran with.

    Its command line, subject and parameters are repeated, with its own tests and parameter file where today's differ, at the
    commit of the experiment's repository that it ran. The rig file is today's. Exit code: that of pytest; 4 when the session
    cannot be repeated (nothing is started).
    """
    folder = session_folder.expanduser().absolute()
    session = read_as_run(folder)
    if session is None:
        problem = f"{folder} keeps no record of what it ran with"
        raise WrongUse(f"{problem} -> give a session folder of this version, the one above {METADATA}")
    repeat = _Repeat(folder, session, use_today=today)
    differences = list(repeat.differences())
    print(f"repeats session {folder.name} ({repeat.end.get('outcome') or 'without an ending'}, {repeat.end.get('start_time')})")
    print("\n".join(["differs today:", *(f"  {line}" for line in differences)]) if differences else "nothing differs today")
    with tempfile.TemporaryDirectory(prefix="openscope-rerun-", ignore_cleanup_errors=True) as place:
        arguments = repeat.arguments(Path(place), dry_run, more or [])
        if repeat.mistakes:
            raise WrongUse(*repeat.mistakes)
        print(f"runs in {repeat.directory}: pytest {' '.join(arguments)}\n", flush=True)
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.run(command, cwd=repeat.directory, env=repeat.environment(), check=False).returncode


class _Repeat:
    """One session that is repeated.

    Attributes:
        mistakes: why it cannot be.
        directory: where pytest runs: the session's own folder, or one with its files as they were.
    """

    def __init__(self, folder: Path, session: Mapping[str, Any], *, use_today: bool) -> None:
        self.folder, self.session, self.use_today = folder, session, use_today
        self.metadata = folder / METADATA
        self.end: dict[str, Any] = read_json(self.metadata / END_STATE) or {}
        self.mistakes: list[str] = []
        self.directory = Path(session["invocation_directory"])
        self.rig_file = Path(session["rig_file"])
        self._mask = ExactMasker(self._secrets())
        self._states = {one["path"]: file_today(one, self._mask) for one in session["files"]}
        self._revisions: list[dict[str, Any]] = []
        with suppress(OSError, ValueError):  # of a session that died in its first moments
            self._revisions = json.loads((self.metadata / "git_revisions.json").read_text(encoding="utf-8"))
        self._experiment = next((one for one in self._revisions if one.get("experiment")), None)
        self._moved: dict[Path, Path] = {}

    def _secrets(self) -> frozenset[str]:
        """Return the secrets of today's rig and parameter files, which are masked in the session's copies."""
        parameter_file = self.session.get("parameter_file")
        files = (Path(parameter_file),) if parameter_file and Path(parameter_file).is_file() else ()
        request = ConfigRequest(self.rig_file, params_files=files, dry_run=True, environ=os.environ)
        found = load(request).configuration if self.rig_file.is_file() else None
        return found.secrets if found is not None else frozenset()

    # -- what differs --------------------------------------------------------------------------------------------------------

    def differences(self) -> Iterator[str]:
        """Yield what is another today than it was in the session."""
        if (now := platform.python_version()) != self.session["python"]:
            yield f"Python {self.session['python']} -> {now}"
        if (system := platform.platform()) != self.session["platform"]:
            yield f"computer: {self.session['platform']} -> {system}"
        yield from _packages(self.session["freeze"], freeze())
        for entry in self.session["files"]:
            state = self._states[entry["path"]]
            if state != "same":
                yield f"{entry['role']}: {entry['path']} {'is gone' if state == 'gone' else 'has changed'}{self._runs(entry)}"
                yield from self._diff(entry) if state == "changed" else ()
        for one in self._revisions:
            yield from self._code(one)

    def _runs(self, entry: Mapping[str, Any]) -> str:
        if entry["role"] == "rig":
            return "; today's is used" if self.rig_file.is_file() else "; the session's is used"
        return "; today's is used" if self.use_today else "; the session's is used"

    def _diff(self, entry: Mapping[str, Any]) -> Iterator[str]:
        if entry.get("kept") is None:
            return
        before = (self.session["folder"] / entry["kept"]).read_text(encoding="utf-8", errors="replace").splitlines()
        today = Path(entry["path"]).read_text(encoding="utf-8", errors="replace")
        now = masker_of(entry["role"], self._mask)(today).splitlines()
        lines = [line for line in difflib.unified_diff(before, now, n=0, lineterm="") if not re.match(r"---|\+\+\+|@@", line)]
        yield from (f"    {line}" for line in lines[:_SHOWN])
        if len(lines) > _SHOWN:
            yield f"    … {len(lines) - _SHOWN} more lines"

    def _code(self, before: Mapping[str, Any]) -> Iterator[str]:
        name, path = before["name"], Path(before["path"])
        if before.get("source") == "installed package":
            return
        if not (path / ".git").exists():
            yield f"repository {name}: {path} is gone" if not before.get("experiment") else f"repository {name} is cloned again"
            return
        now = describe_repository(path, name)
        if now["commit"] != before.get("commit"):
            pinned = "; the session's commit is checked out" if before.get("experiment") else ""
            yield f"repository {name}: at {before.get('commit')} -> {now['commit']}{pinned}"
        if before.get("dirty") and before.get("experiment"):
            kept = self.metadata / "repository_changes.diff"
            changes = ", ".join(before.get("changes", []))
            yield f"repository {name}: the session ran with local changes ({changes}), kept in {kept}"
        elif now["dirty"] and not before.get("dirty"):
            yield f"repository {name}: has local changes, which it had not"

    # -- what is run ---------------------------------------------------------------------------------------------------------

    def arguments(self, place: Path, dry_run: bool, more: list[str]) -> list[str]:
        """Return pytest's arguments; ``place`` takes the session's own files where today's differ."""
        repeated = [entry for entry in self.session["files"] if entry["role"] != "rig"]
        if not self.use_today and any(self._states[one["path"]] != "same" for one in repeated):
            self._lay_out(place, repeated)
        elif not self.directory.is_dir():
            self.mistakes.append(
                f"{self.directory}, in which the session ran, is gone -> make it again, or run without --today"
            )
        rig = self._rig(place)
        given = [self._translate(argument) for argument in _without_option(self.session["command"][1:], _CONTINUE)]
        arguments = [*given, "--rig-config", str(rig), "--output-root", self.session["output_root"]]
        for option, key in (("--subject-id", "subject_id"), ("--user-id", "user_id")):
            if self.end.get(key):
                arguments += [option, str(self.end[key])]
        arguments += [part for setting in self._settings() for part in ("--param", setting)]
        if (dry_run or self.end.get("dry_run")) and "--dry-run" not in arguments:
            arguments.append("--dry-run")
        again = {_key(text) for text in more}
        for argument in arguments:
            if MASK in argument and _key(argument) not in again:
                remedy = f"give it again: -- --param {_key(argument)}=…"
                self.mistakes.append(f"{argument} is a secret that the session's files do not hold -> {remedy}")
        return [*_without_masked(arguments), *more]

    def _settings(self) -> Iterator[str]:
        """Yield the parameters that must be given, since their source is not repeated or not the same any more."""
        sources = (read_json(self.metadata / "command_line_arguments.json") or {}).get("value_sources") or {}
        parameters = read_json(self.metadata / "input_parameters.json") or {}
        yield f"rerun_of={json.dumps(self.folder.name)}"
        if parameters.get("session_uuid"):
            yield "session_uuid=null"
        if self._experiment is not None and self._experiment.get("checked_out"):
            yield f"repository_commit_hash={self._experiment['commit']}"
        for key, source in sources.items():
            if source.endswith(f"({_CONTINUE})") and key not in ("subject_id", "user_id"):
                try:
                    yield f"{key}={json.dumps(look_up(parameters, key))}"
                except KeyError:
                    continue

    def _lay_out(self, place: Path, entries: list[dict[str, Any]]) -> None:
        """Write the session's files as they were, in the layout that they had."""
        base = Path(self.session["base"])
        for entry in entries:
            path, kept = Path(entry["path"]), entry.get("kept")
            if kept is None or (entry["masked"] and self._states[entry["path"]] != "same"):
                if self._states[entry["path"]] != "same":
                    why = "was too large to be kept" if kept is None else "held secrets, which are not kept"
                    self.mistakes.append(f"{path} has changed, and {why} -> put it back, or run today's with --today")
                continue
            inside = path.is_relative_to(base)
            target = place / "files" / path.relative_to(base) if inside else (place / kept).with_name(path.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            # A file with secrets is the same today; its copy lacks them.
            shutil.copyfile(path if entry["masked"] else self.session["folder"] / kept, target)
            self._moved[path] = target
        self._moved[base] = place / "files"
        self._link_others(base, place / "files")
        self.directory = place / "files" / self.directory.relative_to(base)
        self.directory.mkdir(parents=True, exist_ok=True)

    def _link_others(self, base: Path, files: Path) -> None:
        """Put today's other files (tables, images) beside those of the session; Python files could be collected."""
        for folder in {target.parent for target in self._moved.values() if target.is_relative_to(files) and target != files}:
            today = base / folder.relative_to(files)
            for path in today.iterdir() if today.is_dir() else ():
                if path.suffix == ".py" or not path.is_file() or (folder / path.name).exists():
                    continue
                try:
                    (folder / path.name).symlink_to(path)
                except OSError:  # Windows wants a privilege for that
                    shutil.copyfile(path, folder / path.name)

    def _rig(self, place: Path) -> Path:
        """Return today's rig file: it says what hardware there is now. Where it is gone, the session's own."""
        if self.rig_file.is_file():
            return self.rig_file
        entry = next((one for one in self.session["files"] if one["role"] == "rig"), None)
        if entry is None or entry.get("kept") is None or entry["masked"]:
            self.mistakes.append(f"the rig file {self.rig_file} is gone, and its secrets are not kept -> put it back")
            return self.rig_file
        target = place / self.rig_file.name
        shutil.copyfile(self.session["folder"] / entry["kept"], target)
        return target

    def _translate(self, argument: str) -> str:
        """Return an argument with the path of a file that was laid out anew; all else is repeated as it was."""
        option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
        if not self._moved or (option and not equals):
            return argument
        name, colons, rest = value.partition("::")
        path = Path(os.path.abspath(Path(self.session["invocation_directory"]) / name))  # noqa: PTH100 - resolve() follows links
        if not Path(name).is_absolute() and not (path in self._moved and ".." in Path(name).parts):
            return argument
        for before in (path, *path.parents):
            if before in self._moved:
                return f"{option}{equals}{self._moved[before] / path.relative_to(before)}{colons}{rest}"
        return argument

    def environment(self) -> dict[str, str]:
        """Return the environment: today's, with what steers this plugin and pytest as it was."""
        today = {
            name: text for name, text in os.environ.items() if not name.startswith("OPENSCOPE_") and name != "PYTEST_ADDOPTS"
        }
        recorded = {name: self._translate(text) for name, text in self.session["environment"].items() if MASK not in text}
        hidden = {name: os.environ[name] for name in self.session["environment"] if name not in recorded and name in os.environ}
        return {**today, **recorded, **hidden}


def _packages(before: list[str], now: list[str]) -> Iterator[str]:
    old, new = (dict(_name_and_version(line) for line in lines) for lines in (before, now))
    changed = [f"{name} {old[name]} -> {new[name]}" for name in old if name in new and old[name] != new[name]]
    changed += [f"{name} {old[name]} is gone" for name in old if name not in new]
    changed += [f"{name} {new[name]} is new" for name in new if name not in old]
    if before and changed:
        more = f", … {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        yield f"packages: {', '.join(changed[:_SHOWN])}{more}"


def _name_and_version(line: str) -> tuple[str, str]:
    if line.startswith("-e "):
        path, _, rest = line.removeprefix("-e ").partition("  # ")
        name, _, version = rest.partition("==")
        return name, f"{version} (in {path})"
    name, _, version = line.partition("==") if " @ " not in line else line.partition(" @ ")
    return name, version


def _without_option(arguments: list[str], option: str) -> Iterator[str]:
    skip = False
    for argument in arguments:
        if skip or argument == option:
            skip = argument == option and not skip
        elif not argument.startswith(f"{option}="):
            yield argument


def _key(argument: str) -> str:
    return argument.removeprefix("--param=").partition("=")[0]


def _without_masked(arguments: list[str]) -> list[str]:
    """Leave out ``--param KEY=***``: what is given behind ``--`` takes its place."""
    kept: list[str] = []
    for argument in arguments:
        if MASK not in argument:
            kept.append(argument)
        elif kept and kept[-1] == "--param":
            kept.pop()
    return kept
