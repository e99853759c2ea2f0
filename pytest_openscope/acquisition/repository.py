"""The repository of the experiment's code: looked at before a session, cloned, fetched and checked out in it.

Nothing that somebody made is ever destroyed: a checkout is never forced, local changes stop it (or are kept, and recorded), and
commits that no branch holds get one before they are left. What is here already needs no network.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ..log import ExactMasker, mask_text
from ..records import Mistake
from ..system import FileLock, Git, GitFailed, patiently, remove_file, remove_tree
from .paths import repository_folder

Parameters = Mapping[str, Any]

_DEFAULT = "main"
_TIMEOUT_S = 600.0
_HEX = re.compile(r"[0-9a-f]{7,64}")
_FULL_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
#: What no branch, tag or commit may hold (git-check-ref-format).
_NO_REFERENCE = re.compile(r"^-|[\s~^:?*\[\\\x00-\x1f\x7f]|\.\.|@\{|//|/$|\.lock$|^$")
_LISTED = 40
_STATES = {"M": "modified", "T": "modified", "A": "added", "D": "deleted", "R": "renamed", "C": "copied", "U": "in conflict"}
#: Larger new files are named in a record of changes, but not kept in it.
_KEPT_BYTES = 10_000_000
#: Answers git's question for name and password of one host out of this process's environment.
_HELPER = '!f() { test "$1" = get || exit 0; echo "username=$OPENSCOPE_GIT_USER"; echo "password=$OPENSCOPE_GIT_PASSWORD"; }; f'


@dataclass(frozen=True)
class Repository:
    """What the parameters say of the experiment's repository.

    Attributes:
        url: without credentials.
        wanted: commit, tag or branch.
        timeout_s: longest clone, fetch or checkout.
        secrets: values that may not be told.
        foreign: the folder is one of a Windows computer, and this is none.
    """

    url: str
    folder: Path
    wanted: str = _DEFAULT
    timeout_s: float = _TIMEOUT_S
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    foreign: bool = False

    def git(self, *, say: Callable[[str], None] | None = None, stopped: Callable[[], bool] = bool) -> Git:
        """Return git as it is run for this repository."""
        masker = ExactMasker(self.secrets)
        settings: tuple[str, ...] = ()
        environment: dict[str, str] = {}
        if self.user or self.password:
            parts = urlsplit(self.url)
            key = f"credential.{parts.scheme}://{parts.netloc}.helper"
            # The empty one takes away helpers that the user's configuration names: they could ask, or store what is given here.
            settings = (f"{key}=", f"{key}={_HELPER}")
            environment = {"OPENSCOPE_GIT_USER": self.user, "OPENSCOPE_GIT_PASSWORD": self.password}
        return Git(lambda text: mask_text(text, masker), settings, environment, stopped, say)


@dataclass(frozen=True)
class Change:
    """A file that differs from the commit: ``kind`` is ``modified``, ``new``, ``deleted``, …"""

    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


@dataclass(frozen=True)
class WorkTree:
    """What lies in the repository's folder: commit and branch that are checked out, local changes, submodules not there yet.

    ``commit`` is the one that is wanted, as far as that can be told without asking the remote.
    """

    exists: bool = False
    head: str | None = None
    branch: str | None = None
    commit: str | None = None
    changes: tuple[Change, ...] = ()
    lacks_submodules: bool = False

    @property
    def ready(self) -> bool:
        """Nothing is to be done: exactly the wanted commit is checked out."""
        return self.commit is not None and self.head == self.commit and not self.lacks_submodules


class RepositoryError(Exception):
    """The repository cannot be had as wanted; every reason, for the operator."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def repository_of(
    parameters: Parameters, cwd: Path, secrets: frozenset[str] = frozenset()
) -> tuple[Repository | None, list[Mistake]]:
    """Return the repository that expanded parameters name, None without ``repository_url``, and what is wrong with the keys."""
    url = str(parameters.get("repository_url") or "").strip()
    if not url:
        return None, []
    mistakes = []
    folder = repository_folder(parameters)
    wanted = str(parameters.get("repository_commit_hash") or _DEFAULT).strip()
    if folder is None:
        remedy = "give the folder that holds, or gets, the repository's folder"
        mistakes.append(Mistake("parameters", "is missing: repository_url needs a place", remedy, "local_repository_path"))
    if _NO_REFERENCE.search(wanted):
        problem = f"{wanted!r} is no commit, tag or branch"
        mistakes.append(
            Mistake("parameters", problem, "give a full hash, or the name of a tag or branch", "repository_commit_hash")
        )
    if url.startswith("-"):
        problem = f"{mask_text(url, secrets)!r} is no address of a repository"
        mistakes.append(Mistake("parameters", problem, "mend it", "repository_url"))
    if mistakes or folder is None:
        return None, mistakes
    clean, user, password = _without_credentials(url)
    if "://" not in clean and not re.match(r"(?:[^/\\]+@)?[^/\\:]{2,}:", clean) and (cwd / clean).is_dir():
        clean = str(cwd / clean)
    secret = password or user
    timeout_s = parameters.get("repository_timeout_s")
    found = Repository(
        clean,
        cwd / folder,
        wanted.lower() if _FULL_HASH.fullmatch(wanted.lower()) else wanted,
        _TIMEOUT_S if timeout_s is None else float(timeout_s),
        unquote(user),
        unquote(password),
        secrets | ({secret, unquote(secret)} if secret else set()),
        foreign=sys.platform != "win32" and bool(PureWindowsPath(str(parameters["local_repository_path"])).drive),
    )
    return found, []


def _without_credentials(url: str) -> tuple[str, str, str]:
    """Return the URL without the user's name and password, and both of them as written.

    A name without password stays in the URL, unless it is shaped like a token; SSH needs its user's name.
    """
    if "://" not in url:
        return url, "", ""
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    user, colon, password = credentials.partition(":")
    if not credentials or (not colon and mask_text(url) == url):
        return url, "", ""
    if parts.scheme not in ("http", "https"):
        return urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host)), "", password
    return urlunsplit(parts._replace(netloc=host)), user, password


def examine(repository: Repository, git: Git | None = None) -> WorkTree:
    """Look at the repository's folder, without the network and without changing anything.

    Raises:
        RepositoryError: what is there cannot be used.
        GitFailed: git is not there, or took too long.
    """
    git = git or repository.git()
    folder = repository.folder
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            # Without git it could not be cloned.
            git(next(parent for parent in folder.parents if parent.is_dir()), "version")
            return WorkTree()
    except OSError as error:
        raise _error("local_repository_path", f"{folder} cannot be read: {error.strerror or error}", "mend it") from error
    if not folder.is_dir():
        raise _error("local_repository_path", f"{folder} is no folder", _ELSEWHERE)
    try:
        top = git(folder, "rev-parse", "--show-toplevel").rstrip("\r\n")
    except GitFailed as failure:
        if "dubious ownership" in failure.said:
            remedy = f"make it this account's own, or: git config --global --add safe.directory {folder.as_posix()}"
            raise _error("local_repository_path", f"{folder} belongs to another account", remedy) from None
        if failure.kind == "failed":
            raise _error("local_repository_path", f"{folder} is no git repository", _ELSEWHERE) from None
        raise
    if not Path(top).samefile(folder):
        raise _error("local_repository_path", f"{folder} is no repository of its own, it lies in that of {top}", _ELSEWHERE)
    commit = _known_here(git, folder, repository.wanted)
    origin = git.answers(folder, "config", "--get", "remote.origin.url") or ""
    pinned = commit is not None and commit.startswith(repository.wanted)
    if origin and _plain(origin) != _plain(repository.url) and not pinned:
        problem = f"{folder} is a clone of {git.mask(origin)}, not of {repository.url}"
        raise _error("local_repository_path", problem, _ELSEWHERE)
    return WorkTree(
        exists=True,
        head=_commit(git, folder, "HEAD"),
        branch=_branch(git, folder),
        commit=commit,
        changes=local_changes(git, folder),
        lacks_submodules=_lacks_submodules(git, folder),
    )


_ELSEWHERE = "move it away, or give another local_repository_path"


def _error(key: str, problem: str, remedy: str) -> RepositoryError:
    return RepositoryError([Mistake("repository", problem, remedy, key)])


def _commit(git: Git, folder: Path, name: str) -> str | None:
    """Return the commit that a name stands for, if it is here."""
    return git.answers(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")


def _branch(git: Git, folder: Path) -> str | None:
    return git.answers(folder, "symbolic-ref", "--quiet", "--short", "HEAD")


def _submodules(git: Git, folder: Path) -> list[str]:
    listed = git(folder, "ls-files", "--stage", "-z").split("\0")
    return [entry.partition("\t")[2] for entry in listed if entry.startswith("160000 ")]


def _known_here(git: Git, folder: Path, wanted: str) -> str | None:
    """Return the commit when it is here for sure: a branch is where its remote says, so it is not."""
    if _FULL_HASH.fullmatch(wanted):
        return _commit(git, folder, wanted)
    tag = _commit(git, folder, f"refs/tags/{wanted}")
    if tag is not None or not _HEX.fullmatch(wanted.lower()):
        return tag
    if any(_commit(git, folder, f"{place}/{wanted}") for place in ("refs/remotes/origin", "refs/heads")):
        return None
    return _commit(git, folder, wanted.lower())


def _plain(url: str) -> str:
    """Return host and path of a URL, for comparison: ``git@host:lab/code.git`` is ``https://host/lab/code``."""
    text = url.strip().replace("\\", "/")
    if "://" in text:
        parts = urlsplit(text)
        text = f"{parts.netloc.rpartition('@')[2].lower()}/{parts.path.lstrip('/')}" if parts.netloc else parts.path
    elif found := re.match(r"(?:[^/@:]+@)?([^/:]{2,}):(?!/)(.*)", text):
        text = f"{found[1].lower()}/{found[2]}"
    text = text.rstrip("/").removesuffix(".git").rstrip("/")
    return text.lower() if sys.platform == "win32" or text.lower().startswith("github.com/") else text


def local_changes(git: Git, folder: Path, timeout_s: float = 60.0) -> tuple[Change, ...]:
    """Return every file that differs from the commit that is checked out, submodules included, and every new one.

    Left out are Python's caches, which the steps' own imports make, and submodules that an earlier checkout left behind.
    """
    modules = Path(git(folder, "rev-parse", "--absolute-git-dir").rstrip("\r\n")) / "modules"
    arguments = ("--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=none")
    changes = []
    for entry in git(folder, "status", *arguments, timeout_s=timeout_s).split("\0"):
        code, path = entry[:2], entry[3:]
        if not path or _is_cache(path):
            continue
        if code == "??":
            if not (path.endswith("/") and _is_old_submodule(folder / path, modules)):
                changes.append(Change("new", _shown(path)))
            continue
        kind = "in conflict" if "U" in code or code in ("AA", "DD") else _STATES.get(code.strip()[:1], "modified")
        if kind == "modified" and (folder / path / ".git").exists():
            inner = local_changes(git, folder / path, timeout_s)
            changes += [Change(one.kind, f"{_shown(path)}/{one.path}") for one in inner]
            recorded = git.answers(folder, "rev-parse", "--verify", "--quiet", f"HEAD:{path}")
            if _commit(git, folder / path, "HEAD") != recorded:
                changes.append(Change("other commit in submodule", _shown(path)))
            continue
        changes.append(Change(kind, _shown(path)))
    return tuple(changes)


def _is_cache(path: str) -> bool:
    return "__pycache__" in path.split("/") or path.endswith(".pyc")


def _is_old_submodule(place: Path, modules: Path) -> bool:
    """Tell whether a folder is what is left of a submodule that this commit does not have."""
    try:
        text = (place / ".git").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return text.startswith("gitdir:") and (place / text[7:].strip()).resolve().is_relative_to(modules.resolve())


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _lacks_submodules(git: Git, folder: Path) -> bool:
    if not (folder / ".gitmodules").exists():
        return False
    listed = git.answers(folder, "submodule", "status", "--recursive") or ""
    return any(line.startswith("-") for line in listed.splitlines())


def check_repository(repository: Repository, tree: WorkTree, allow_dirty: bool, where: str) -> list[Mistake]:
    """Return what keeps the session from checking its commit out, as far as that is known before it begins."""
    if not tree.changes:
        return []
    if not allow_dirty:
        remedy = "commit, stash or remove them, or give --allow-dirty, which leaves them and records them in the session folder"
        lines = [f"\n    {change}" for change in tree.changes]
        many = f"{len(lines)} local changes" if len(lines) > 1 else "a local change"
        more = f"\n    and {len(lines) - _LISTED} more (git status)" if len(lines) > _LISTED else ""
        problem = f"{repository.folder} has {many}, which no commit describes:{''.join(lines[:_LISTED])}{more}\n "
        return [Mistake(where, problem, remedy, "local_repository_path")]
    if tree.commit is None or tree.head is None or tree.commit == tree.head:
        return []
    git = repository.git()
    differing = git(repository.folder, "diff", "--name-only", "-z", tree.head, tree.commit).split("\0")
    names = ", ".join(str(change) for change in tree.changes if change.path in map(_shown, differing))
    if not names:
        return []
    problem = f"{repository.folder}: the checkout of {repository.wanted} would overwrite local changes: {names}"
    return [Mistake(where, problem, "commit or stash them", "local_repository_path")]


@dataclass(frozen=True)
class CheckedOut:
    """What a session runs: ``commit`` with ``changes``.

    Until ``release()``, or the end of the process, no other session moves the folder to another commit.
    """

    commit: str
    changes: tuple[Change, ...]
    in_use: FileLock

    def release(self) -> None:
        """Let other sessions check out what they want."""
        self.in_use.release()
        with suppress(OSError):
            remove_file(self.in_use.path)
            self.in_use.path.parent.rmdir()  # the last one


def check_out(
    repository: Repository,
    *,
    allow_dirty: bool = False,
    user: str = "",
    say: Callable[[str], None] = lambda text: None,
    announce: Callable[[str], None] = lambda text: None,
    stopped: Callable[[], bool] = bool,
    confirm: Callable[[str], bool] = lambda question: False,
) -> CheckedOut:
    """Clone, fetch and check out as far as needed, so that exactly the wanted commit is in the repository's folder.

    Args:
        allow_dirty: local changes stay; without, they are an error.
        user: name of the session; the process's number without.
        say: gets what is done, and what git says of it.
        announce: gets what may take long, before it begins.
        stopped: asked all the time; True ends it.
        confirm: asked whether to go on with a branch as it is here, when its remote cannot be asked.

    Raises:
        RepositoryError: it cannot be done; nothing that was there is lost.
        GitFailed: git failed, took too long or was stopped.
    """
    git = repository.git(say=say, stopped=stopped)
    checkout = _Checkout(repository, git, allow_dirty, user or str(os.getpid()), say, announce, confirm)
    try:
        repository.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(repository.folder.parent / f".{repository.folder.name}.openscope.lock")
        if not _acquire(lock, repository.timeout_s, stopped):
            raise _error("local_repository_path", f"another session uses git in {repository.folder}", "wait for its end")
    except OSError as error:
        problem = f"{repository.folder.parent} cannot be written: {error.strerror or error}"
        raise _error("local_repository_path", problem, "make it writable, or give another one") from error
    with lock:
        return checkout.run()


def _acquire(lock: FileLock, timeout_s: float, stopped: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout_s
    while not lock.acquire(0.5):
        if stopped() or time.monotonic() > deadline:
            return False
    return True


@dataclass
class _Checkout:
    repository: Repository
    git: Git
    allow_dirty: bool
    user: str
    say: Callable[[str], None]
    announce: Callable[[str], None]
    confirm: Callable[[str], bool]

    def __post_init__(self) -> None:
        self.folder = self.repository.folder
        self.users = self.folder.parent / f".{self.folder.name}.openscope.in-use"

    def run(self) -> CheckedOut:
        tree = examine(self.repository, self.git)
        if not tree.exists:
            commit = self._clone()
        else:
            mistakes = check_repository(self.repository, tree, self.allow_dirty, "repository")
            if mistakes:
                raise RepositoryError(mistakes)
            commit = tree.commit or self._fetch()
            if tree.head != commit:
                self._refuse_beside_others(commit)
                self._move(tree, commit)
            self._update_submodules(self.folder, tree.changes)
        head = self.git(self.folder, "rev-parse", "HEAD").strip()
        if head != commit:
            raise _error("repository_commit_hash", f"{self.folder} is at {head}, not at {commit}", "look at it with git status")
        changes = local_changes(self.git, self.folder)
        if changes and not self.allow_dirty:
            # A file that no commit can hold as it is here: names that differ in case only, line ends, a filter that is missing.
            raise RepositoryError(check_repository(self.repository, WorkTree(True, head, changes=changes), False, "repository"))
        in_use = FileLock(self.users / self.user)
        if not in_use.acquire():
            raise _error("local_repository_path", f"{in_use.path} is locked", "give another local_repository_path")
        return CheckedOut(commit, changes, in_use)

    def _refuse_beside_others(self, commit: str) -> None:
        """Raise where another session of this computer runs the code that lies here now; notes of dead ones are removed."""
        users = []
        for path in sorted(self.users.iterdir()) if self.users.is_dir() else ():
            lock = FileLock(path)
            if not lock.acquire():
                users.append(path.name)
                continue
            lock.release()
            with suppress(OSError):
                remove_file(path)
        if users:
            problem = f"session {', '.join(users)} runs another commit in {self.folder} than {commit}"
            raise _error("local_repository_path", problem, "wait for its end, or give each rig a folder of its own")

    def _begin(self, text: str) -> None:
        text = f"{text} (at most {self.repository.timeout_s:g} s)"
        self.say(text)
        self.announce(text)

    def _clone(self) -> str:
        """Clone beside the final place, which then appears whole; what a killed clone left is removed."""
        repository, parent, stem = self.repository, self.folder.parent, f".{self.folder.name}.openscope-clone-"
        for left in parent.glob(f"{stem}*"):
            with suppress(OSError):
                remove_tree(left)
        place = parent / f"{stem}{os.getpid()}"
        self._begin(f"cloning {repository.url} into {self.folder}")
        try:
            self._long(parent, "clone", "--no-checkout", "--progress", *_LONG_PATHS, "--", repository.url, place.name)
            commit = self._resolve(place)
            at_branch = _branch(self.git, place) == repository.wanted and _commit(self.git, place, "HEAD") == commit
            self._long(place, "checkout", *(("--quiet", repository.wanted) if at_branch else ("--detach", commit)))
            self._update_submodules(place, ())
            with suppress(OSError):
                self.folder.rmdir()  # an empty one may be there
            patiently(partial(place.rename, self.folder))
        except BaseException:
            with suppress(OSError):
                remove_tree(place)
            raise
        self.say(f"checked out {commit} ({repository.wanted})")
        return commit

    def _fetch(self) -> str:
        folder, url, wanted = self.folder, self.repository.url, self.repository.wanted
        self._begin(f"fetching {wanted} from {url}")
        try:
            self._long(folder, "fetch", "--progress", "--", url, "+refs/heads/*:refs/remotes/origin/*")
            with suppress(RepositoryError):
                return self._resolve(folder)
            with suppress(GitFailed):
                what = wanted if _HEX.fullmatch(wanted) else f"refs/tags/{wanted}:refs/tags/{wanted}"
                self._long(folder, "fetch", "--", url, what)
        except GitFailed as failure:
            if failure.kind in ("stopped", "missing"):
                raise
            return self._go_on_without(failure)
        return self._resolve(folder)

    def _go_on_without(self, failure: GitFailed) -> str:
        """Return the commit of a branch as it is here, if the operator wants that; nothing falls back in silence."""
        wanted, git = self.repository.wanted, self.git
        here = _commit(git, self.folder, f"refs/remotes/origin/{wanted}")
        if here is None:
            raise failure
        date = git.answers(self.folder, "log", "-1", "--format=%cd, %s", "--date=iso", here)
        known = f"{wanted} was last seen at {here} ({date})"
        if not self.confirm(f"The remote cannot be asked: {failure}. {known}. Run that commit?"):
            remedy = f"mend the connection, or run what is here: --param repository_commit_hash={here}"
            raise _error("repository_url", f"{failure}; {known}", remedy) from failure
        self.say(f"the operator chose {here}: {failure}")
        return here

    def _resolve(self, folder: Path) -> str:
        """Return the wanted commit, once everything has been fetched.

        Raises:
            RepositoryError: the remote has nothing of that name.
        """
        wanted, git = self.repository.wanted, self.git
        references = [f"refs/remotes/origin/{wanted}", f"refs/tags/{wanted}"]
        if _HEX.fullmatch(wanted.lower()):
            references.append(wanted)
        for reference in references:
            if found := _commit(git, folder, reference):
                return found
        listed = git(folder, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/tags", "refs/remotes/origin").splitlines()
        names = [name.removeprefix("origin/") for name in listed if name != "origin/HEAD"]
        near = difflib.get_close_matches(wanted, names, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"known: {', '.join(names[:20]) or 'nothing, the repository is empty'}"
        problem = f"{self.repository.url} has no commit, tag or branch {wanted!r}"
        raise _error("repository_commit_hash", problem, remedy)

    def _move(self, tree: WorkTree, commit: str) -> None:
        git, folder, wanted = self.git, self.folder, self.repository.wanted
        self._keep_commits(folder, tree.branch)
        local = _commit(git, folder, f"refs/heads/{wanted}")
        if local is not None and _commit(git, folder, f"refs/remotes/origin/{wanted}") != commit:
            local = None
        behind = local is not None and git.answers(folder, "merge-base", "--is-ancestor", local, commit) is not None
        if behind and tree.branch in (wanted, None):
            self._long(folder, "checkout", "--no-track", "-B", wanted, commit)
        else:
            if local is not None:
                self.say(f"the local branch {wanted} is left as it is: {local}")
            self._long(folder, "checkout", "--detach", commit)
        self.say(f"checked out {commit} ({wanted}); before it was {tree.head}{f' ({tree.branch})' if tree.branch else ''}")

    def _keep_commits(self, folder: Path, branch: str | None) -> None:
        """Give a branch to commits that nothing but HEAD holds: git would remove them some weeks after they are left."""
        git = self.git
        head = _commit(git, folder, "HEAD")
        if branch or not head or git.answers(folder, "for-each-ref", "--count=1", "--contains", head, "--format=x"):
            return
        name = f"openscope-kept-{head[:12]}"
        git(folder, "branch", name, head)
        self.say(f"{folder}: commit {head} was on no branch; it is kept as {name}")

    def _update_submodules(self, folder: Path, changes: tuple[Change, ...]) -> None:
        """Bring submodules to the commits that are recorded; those that somebody has changed stay as they are."""
        if not (folder / ".gitmodules").exists():
            return
        changed = [f"{change.path}/" for change in changes]
        paths = _submodules(self.git, folder)
        free = [path for path in paths if not any(one.startswith(f"{_shown(path)}/") for one in changed)]
        for path in free:
            if (folder / path / ".git").exists():
                self._keep_commits(folder / path, _branch(self.git, folder / path))
        if free:
            self._long(folder, "submodule", "update", "--init", "--recursive", "--progress", "--", *free)

    def _long(self, folder: Path, *arguments: str) -> str:
        return self.git(folder, *arguments, timeout_s=self.repository.timeout_s)


_LONG_PATHS = ("--config", "core.longpaths=true") if sys.platform == "win32" else ()


def changes_as_diff(repository: Repository) -> tuple[bytes, list[str]]:
    """Return all local changes as a patch for ``patch -p1``, and the new files that are too large to be in it.

    New files and submodules are in it; the repository's own index is left alone.

    Raises:
        GitFailed: git failed, or took too long.
    """
    return _diff(repository.git(), repository.folder, "", repository.timeout_s)


def _diff(git: Git, folder: Path, prefix: str, timeout_s: float) -> tuple[bytes, list[str]]:
    large: list[str] = []
    prefixes = (f"--src-prefix=a/{prefix}", f"--dst-prefix=b/{prefix}")
    parts = [git(folder, "diff", "--binary", "--no-color", "--no-ext-diff", *prefixes, "HEAD", timeout_s=timeout_s)]
    for path in git(folder, "ls-files", "--others", "--exclude-standard", "-z").split("\0"):
        if not path or path.endswith("/") or _is_cache(path):
            continue
        size = (folder / path).lstat().st_size
        if size > _KEPT_BYTES:
            large.append(f"{_shown(prefix + path)} ({size:,} bytes)")
            continue
        # git says 1 for "they differ".
        arguments = ("diff", "--binary", "--no-color", "--no-ext-diff", *prefixes, "--no-index", "--", os.devnull, path)
        parts.append(git(folder, *arguments, good=(0, 1)))
    for path in _submodules(git, folder):
        if (folder / path / ".git").exists():
            inner, more = _diff(git, folder / path, f"{prefix}{path}/", timeout_s)
            parts.append(os.fsdecode(inner))
            large += more
    return b"".join(os.fsencode(part) for part in parts), large
