"""The experiment's repository in a session: looked at before anything is created, checked out before the first step."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import pytest

from ..acquisition import (
    Change,
    Repository,
    RepositoryError,
    changes_as_diff,
    check_out,
    check_parameters,
    check_repository,
    examine,
    local_changes,
    repository_folder,
    repository_of,
)
from ..config import source_of
from ..log import ExactMasker
from ..records import (
    ConfigurationError,
    Mistake,
    Outcome,
    describe_repository,
    failure_from_exception,
    git_revisions,
    package_revisions,
)
from ..system import GitFailed, write_atomic
from .interrupts import StepInterrupted
from .operator import say_at_once

if TYPE_CHECKING:
    from ..config import Configuration
    from .state import SessionState

_LOGGER = "pytest_openscope.repository"
#: The local changes that a session ran with.
CHANGES_DIFF = "repository_changes.diff"
_BEFORE = pytest.StashKey[tuple[Change, ...]]()
#: The end of a session waits no longer for git.
_END_S = 5.0
_SHOWN = 10
_KEYS = ("repository_url", "local_repository_path", "repository_commit_hash")
#: Parameters that mean something else once the commit is checked out.
_OF_THE_REPOSITORY = ("script_path", "script_parameters", "bonsai_exe_path", "bonsai_setup_script", "bonsai_config_path")
#: Whose packages take part in a session.
_GROUPS = ("pytest_openscope.modules", "pytest_openscope.acquisition")


@dataclass
class Findings:
    """What is found before a session begins.

    Attributes:
        mistakes: the session is refused.
        unknown: what a dry run cannot know on this computer.
        warnings: are told and stop nothing.
    """

    mistakes: list[Mistake] = field(default_factory=list)
    unknown: list[Mistake] = field(default_factory=list)
    warnings: list[Mistake] = field(default_factory=list)


def check_code(configuration: Configuration, allow_dirty: bool, found: Findings) -> None:
    """Look at the repository and at the scripts that parameters name, as far as they are known by now.

    Scripts of a repository whose commit is not checked out yet are looked at once it is.
    """
    ready = not configuration.validating and _check_repository(configuration, allow_dirty, found)
    check_scripts(configuration, ready, found)


def _check_repository(configuration: Configuration, allow_dirty: bool, found: Findings) -> bool:
    """Tell whether the folder holds exactly the wanted commit."""
    parameters = configuration.expander().all(configuration.parameters)
    if any("{" in str(parameters.get(key) or "") for key in _KEYS):
        return False  # known once the session has its name
    repository, mistakes = repository_of(parameters, configuration.cwd, configuration.secrets)
    unknown: list[Mistake] = []
    not_here = unknown if configuration.dry_run else mistakes
    ready = False
    if repository is not None and repository.foreign:
        problem = f"{repository.folder.name} belongs on a drive of another computer"
        remedy = "give a path of this one: --param local_repository_path=PATH"
        not_here.append(Mistake("", problem, remedy, "local_repository_path"))
    elif repository is not None:
        try:
            tree = examine(repository)
            ready = tree.ready
            mistakes += check_repository(repository, tree, allow_dirty, "repository")
            if configuration.dry_run and not ready:
                what = "is not cloned on this computer" if not tree.exists else f"is not at {repository.wanted}"
                remedy = "a dry run clones and checks out nothing"
                unknown.append(Mistake("", f"{repository.folder} {what}", remedy, "repository_url"))
        except RepositoryError as error:
            mistakes += error.mistakes
        except GitFailed as failure:
            not_here.append(Mistake("", str(failure), "install git, or put it on the PATH", "repository_url"))
    # A key that nobody gave is named by the repository's.
    fallback = source_of(configuration.sources, "repository_url")
    found.mistakes += _located(configuration, mistakes, fallback)
    found.unknown += _located(configuration, unknown, fallback)
    return ready


def _located(configuration: Configuration, mistakes: list[Mistake], fallback: str) -> list[Mistake]:
    return [replace(one, where=source_of(configuration.sources, one.key, fallback)) for one in mistakes]


def check_scripts(configuration: Configuration, ready: bool, found: Findings) -> None:
    """Look at the scripts of pipelines and acquisition; ``ready``: the repository's commit is checked out."""
    fetched = bool(configuration.parameters.get("repository_url"))
    elsewhere = fetched and not ready
    pending = elsewhere and not configuration.dry_run
    entries = (*configuration.pre_pipeline, *configuration.post_pipeline)
    if entries:
        from ..modules import OwnSteps, check_entries

        found.mistakes += check_entries(
            entries,
            repository=None if pending else repository_folder(configuration.parameters),
            folders=configuration.script_folders,
            parameters=configuration.parameters,
            own_steps=OwnSteps(configuration.rig.modules, configuration.rig.path.parent),
            dry_run=configuration.dry_run,
            elsewhere=elsewhere,
            unknown=found.unknown,
        )
    if configuration.parameter_file is None or configuration.validating:
        return
    acquisition = _check_acquisition(configuration, configuration.dry_run)
    if elsewhere:
        # What lies in the folder is not what will run.
        for kind in (acquisition.mistakes, acquisition.warnings):
            own = [one for one in kind if one.key.rpartition(".")[2] in _OF_THE_REPOSITORY]
            acquisition.unknown += own
            kind[:] = [one for one in kind if one not in own]
    found.mistakes += acquisition.mistakes
    found.warnings += acquisition.warnings
    found.unknown += [] if pending else acquisition.unknown


def check_acquisition(configuration: Configuration) -> tuple[list[Mistake], list[Mistake]]:
    """Return what a validation finds in the acquisition that the parameters describe: mistakes, and warnings.

    What a dry run would refuse counts as a mistake, and so does what the rig lacks.
    """
    found = _check_acquisition(configuration, dry_run=True)
    if not configuration.dry_run:
        more = _check_acquisition(configuration, dry_run=False)
        found.mistakes += [one for one in more.mistakes if one not in found.mistakes]
        found.warnings += [one for one in more.warnings if one not in (*found.mistakes, *found.warnings)]
    return found.mistakes, found.warnings


def _check_acquisition(configuration: Configuration, dry_run: bool) -> Findings:
    found = Findings()
    parameters = configuration.expander().all(configuration.parameters)
    found.mistakes += check_parameters(parameters, dry_run, unknown=found.unknown, warnings=found.warnings)
    file = (configuration.parameter_file or configuration.rig_file).name
    return Findings(*(_located(configuration, kind, file) for kind in (found.mistakes, found.unknown, found.warnings)))


def prepare_repository(session: SessionState) -> None:
    """Check the wanted commit out, look at the scripts in it, and write down what will run.

    What goes wrong is a failure of the session: no step runs. An interrupt ends git, and is raised by who holds it.
    """
    configuration = session.configuration
    repository, _ = repository_of(session.parameters, configuration.cwd, session.secrets)
    if repository is None or session.validating:
        return
    if session.dry_run:
        session.simulate("repository", f"check out {repository.wanted} of {repository.url} in {repository.folder}")
        return

    def confirm(question: str) -> bool:
        if not session.operator.available:
            return False
        try:
            with session.interrupts.window():
                return session.operator.confirm(question, default=False)
        except (EOFError, StepInterrupted):
            return False

    checked_out = False
    try:
        found = check_out(
            repository,
            allow_dirty=session.options.allow_dirty,
            user=session.folder.name,
            say=partial(session.log.write, "INFO", _LOGGER),
            announce=partial(say_at_once, session.config),
            stopped=lambda: session.interrupts.count > 0,
            confirm=confirm,
        )
        session.config.add_cleanup(found.release)
        session.config.stash[_BEFORE] = found.changes
        session.log.write("INFO", _LOGGER, f"{repository.folder} is at {found.commit} ({repository.wanted})")
        for change in found.changes:
            session.log.write("WARNING", _LOGGER, f"local change: {change}")
        if found.changes:
            session.notices.append(f"{repository.folder} has {len(found.changes)} local changes, kept in {CHANGES_DIFF}")
            session.guard(f"writing {CHANGES_DIFF}", partial(_keep_changes, session, repository))
        scripts = Findings()
        check_scripts(configuration, True, scripts)
        session.tell(map(str, scripts.warnings))
        if scripts.mistakes:
            raise ConfigurationError(scripts.mistakes)
        checked_out = True
    except (RepositoryError, ConfigurationError, GitFailed) as error:
        if isinstance(error, GitFailed) and error.kind == "stopped":
            return
        _refuse(session, error)
    session.guard("writing git_revisions.json", partial(write_revisions, session, checked_out))


def _keep_changes(session: SessionState, repository: Repository) -> None:
    patch, large = changes_as_diff(repository)
    text = ExactMasker(session.secrets)(patch.decode("utf-8", "surrogateescape"))
    write_atomic(session.metadata / CHANGES_DIFF, text.encode("utf-8", "surrogateescape"))
    for name in large:
        session.log.write("WARNING", _LOGGER, f"too large for {CHANGES_DIFF}: {name}")


def _refuse(session: SessionState, error: Exception) -> None:
    text = f"the experiment's code cannot be had as wanted, no step runs: {error}"
    session.log.write("ERROR", _LOGGER, text)
    say_at_once(session.config, ExactMasker(session.secrets)(text))
    session.fail(failure_from_exception(error, outcome=Outcome.ERROR))
    session.gate.stop("the experiment's code cannot be had as wanted", everything=True)


def tell_of_new_changes(session: SessionState) -> None:
    """Tell of changes that the session itself has left in the repository: they would stop the next one."""
    before = session.config.stash.get(_BEFORE, None)
    repository, _ = repository_of(session.parameters, session.configuration.cwd, session.secrets)
    if before is None or repository is None:
        return
    fresh = [change for change in local_changes(repository.git(), repository.folder, _END_S) if change not in before]
    if fresh:
        shown = ", ".join(map(str, fresh[:_SHOWN])) + (f" and {len(fresh) - _SHOWN} more" if len(fresh) > _SHOWN else "")
        text = f"this session has left in {repository.folder}, which will stop the next one: {shown} -> name them in .gitignore"
        session.tell([text])


def write_revisions(session: SessionState, checked_out: bool = False) -> None:
    """Write ``git_revisions.json``: the experiment's repository first, then all other code that takes part."""
    configuration = session.configuration
    repository, _ = repository_of(session.parameters, configuration.cwd, session.secrets)
    found: list[dict[str, Any]] = []
    if repository is not None and (repository.folder / ".git").exists():
        own = {**describe_repository(repository.folder.resolve(), repository.folder.name), "wanted": repository.wanted}
        own.update(experiment=True, checked_out=checked_out)
        with suppress(RepositoryError, GitFailed):
            own["changes"] = [str(change) for change in examine(repository).changes]
            own["dirty"] = bool(own["changes"])
        found.append(own)
    folders = [session.config.rootpath, configuration.rig_file.parent, *configuration.script_folders]
    known = {one["path"] for one in found}
    found += [one for one in git_revisions(folders) if one["path"] not in known or "package_version" in one]
    drivers = [str(device.get("driver") or "") for device in session.rig.devices.values()]
    modules = [driver.partition(":")[0] for driver in drivers if ":" in driver]
    installed = entry_points()
    for group in _GROUPS:
        modules += [point.value.partition(":")[0] for point in installed.select(group=group)]
    found += package_revisions(modules, [one["path"] for one in found])
    session.save("git_revisions.json", found)
