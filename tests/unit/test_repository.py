"""Cloning, fetching and checking out the experiment's repository, against real git repositories."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from git_kit import commit, git, make

from pytest_openscope.acquisition import (
    RepositoryError,
    changes_as_diff,
    check_out,
    check_repository,
    examine,
    repository_of,
)
from pytest_openscope.acquisition.repository import Repository, _plain, _without_credentials
from pytest_openscope.system import FileLock, GitFailed


class Lab:
    """A remote with history, a submodule and a tag, and where a rig clones it to."""

    def __init__(self, folder: Path) -> None:
        self.remote, self.sub = folder / "remote" / "stimulus", folder / "remote" / "shared"
        self.sub_first = make(self.sub, {"shared.py": "SHARED = 1\n"})
        self.first = make(self.remote)
        git(self.remote, "tag", "v1")
        git(self.remote, "submodule", "--quiet", "add", self.sub.as_uri(), "libs/shared")
        self.second = commit(self.remote, {"stimulus.py": "print('v2')\n", "table.csv": "a\n"})
        git(self.remote, "branch", "wide")
        self.third = commit(self.remote, {"stimulus.py": "print('v3')\n"})
        self.local = folder / "rig" / "code"
        self.folder = self.local / "stimulus"
        self.said: list[str] = []

    @property
    def url(self) -> str:
        return self.remote.as_uri()

    def repository(self, wanted: str = "main", **more: Any) -> Repository:
        keys = {"repository_url": self.url, "local_repository_path": str(self.local), "repository_commit_hash": wanted}
        found, mistakes = repository_of({**keys, **more}, Path.cwd())
        assert not mistakes
        assert found is not None
        return found

    def check_out(self, wanted: str = "main", allow_dirty: bool = False, **more: Any) -> Any:
        keys = {name: more.pop(name) for name in list(more) if name.startswith(("repository", "local"))}
        found = check_out(self.repository(wanted, **keys), allow_dirty=allow_dirty, say=self.said.append, **more)
        if "user" not in more:
            found.release()
        return found

    def text(self, name: str = "stimulus.py") -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def lose_remotes(self) -> None:
        shutil.rmtree(self.remote.parent)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    config = tmp_path / "gitconfig"
    config.write_text(
        '[user]\nname = t\nemail = t@example.org\n[protocol "file"]\nallow = always\n[init]\ndefaultBranch = main\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return Lab(tmp_path)


def test_a_branch_is_cloned_with_its_submodule(lab: Lab) -> None:
    found = lab.check_out()
    assert (found.commit, found.changes, lab.text()) == (lab.third, (), "print('v3')\n")
    assert lab.text("libs/shared/shared.py") == "SHARED = 1\n"
    assert git(lab.folder, "symbolic-ref", "--short", "HEAD") == "main"
    assert git(lab.folder, "status", "--porcelain") == ""
    assert [path.name for path in lab.local.iterdir() if not path.name.endswith(".lock")] == ["stimulus"]
    assert any(line.startswith(f"cloning {lab.url}") for line in lab.said)


@pytest.mark.parametrize("form", ["hash", "capital hash", "short hash", "tag", "branch", "lightweight hash of a tag"])
def test_every_form_of_a_commit(lab: Lab, form: str) -> None:
    git(lab.remote, "tag", "-a", "v2", "-m", "second", lab.second)
    wanted = {
        "hash": lab.second,
        "capital hash": lab.second.upper(),
        "short hash": lab.second[:9],
        "tag": "v2",
        "branch": "wide",
        "lightweight hash of a tag": lab.second,
    }[form]
    assert lab.check_out(wanted).commit == lab.second
    assert lab.text() == "print('v2')\n"


def test_what_is_here_needs_no_network(lab: Lab) -> None:
    lab.check_out()
    lab.lose_remotes()
    for wanted, expected in ((lab.first, lab.first), ("v1", lab.first), (lab.second[:10], lab.second), (lab.third, lab.third)):
        assert lab.check_out(wanted).commit == expected
        assert examine(lab.repository(wanted)).ready
        assert git(lab.folder, "rev-parse", "HEAD") == expected
    # The submodule left with the first commit and came back.
    assert lab.text("libs/shared/shared.py") == "SHARED = 1\n"


def test_a_branch_follows_its_remote(lab: Lab) -> None:
    lab.check_out()
    fourth = commit(lab.remote, {"new.py": "x\n"})
    assert examine(lab.repository()).commit is None, "a branch is known only once its remote was asked"
    assert lab.check_out().commit == fourth
    assert git(lab.folder, "symbolic-ref", "--short", "HEAD") == "main"
    fifth = commit(lab.remote, {"new.py": "y\n"})
    assert lab.check_out(fifth).commit == fifth


def test_a_rewritten_branch_leaves_the_local_one_alone(lab: Lab) -> None:
    lab.check_out()
    mine = commit(lab.folder, {"mine.py": "mine\n"})
    git(lab.remote, "reset", "--hard", lab.second)
    assert lab.check_out().commit == lab.second
    assert git(lab.folder, "rev-parse", "refs/heads/main") == mine


def test_a_branch_whose_remote_is_gone_stops_or_is_confirmed(lab: Lab) -> None:
    lab.check_out()
    lab.lose_remotes()
    with pytest.raises(RepositoryError) as caught:
        lab.check_out()
    assert f"main was last seen at {lab.third}" in str(caught.value)
    assert f"--param repository_commit_hash={lab.third}" in str(caught.value)
    asked: list[str] = []
    assert lab.check_out(confirm=lambda question: bool(asked.append(question)) or True).commit == lab.third
    assert lab.third in asked[0]


def test_local_changes_are_named_file_by_file_and_survive(lab: Lab) -> None:
    lab.check_out(lab.second)
    (lab.folder / "stimulus.py").write_text("print('mine')\n")
    (lab.folder / "table.csv").unlink()
    (lab.folder / "notes").mkdir()
    (lab.folder / "notes" / "größe 1.txt").write_text("mine\n", encoding="utf-8")
    (lab.folder / "libs" / "shared" / "shared.py").write_text("SHARED = 2\n")
    (lab.folder / "__pycache__").mkdir()
    (lab.folder / "__pycache__" / "stimulus.cpython-311.pyc").write_bytes(b"")
    for wanted in (lab.second, lab.third, "main", "v1"):
        with pytest.raises(RepositoryError) as caught:
            lab.check_out(wanted)
        text = str(caught.value)
        for line in ("modified stimulus.py", "deleted table.csv", "new notes/größe 1.txt", "modified libs/shared/shared.py"):
            assert f"    {line}" in text
        assert "4 local changes" in text
        assert "--allow-dirty" in text
    assert lab.text() == "print('mine')\n"
    assert git(lab.folder, "rev-parse", "HEAD") == lab.second


def test_allowed_changes_stay_and_their_diff_makes_them_again(lab: Lab, tmp_path: Path) -> None:
    lab.check_out(lab.second)
    (lab.folder / "table.csv").write_text("mine\n")
    (lab.folder / "new.bin").write_bytes(bytes(range(256)))
    (lab.folder / "libs" / "shared" / "shared.py").write_text("SHARED = 2\n")
    found = lab.check_out(lab.third, allow_dirty=True)
    assert found.commit == lab.third
    assert sorted(map(str, found.changes)) == ["modified libs/shared/shared.py", "modified table.csv", "new new.bin"]
    assert (lab.text("table.csv"), lab.text()) == ("mine\n", "print('v3')\n")
    patch, large = changes_as_diff(lab.repository(lab.third))
    assert not large
    again = tmp_path / "again"
    git(tmp_path, "clone", "--quiet", "--recurse-submodules", lab.url, str(again))
    shutil.rmtree(again / ".git")
    subprocess.run(["git", "apply", "-p1"], cwd=again, input=patch, check=True, env={**os.environ, "GIT_DIR": os.devnull})
    assert (again / "table.csv").read_text() == "mine\n"
    assert (again / "new.bin").read_bytes() == bytes(range(256))
    assert (again / "libs" / "shared" / "shared.py").read_text() == "SHARED = 2\n"
    assert git(lab.folder, "diff", "--cached", "--name-only") == "", "the index is as it was"


def test_allowed_changes_that_a_checkout_would_overwrite_stop_it(lab: Lab) -> None:
    lab.check_out(lab.second)
    (lab.folder / "stimulus.py").write_text("print('mine')\n")
    repository = lab.repository(lab.third)
    (mistake,) = check_repository(repository, examine(repository), True, "day1.json")
    assert "would overwrite local changes: modified stimulus.py" in str(mistake)
    with pytest.raises(RepositoryError):
        lab.check_out(lab.third, allow_dirty=True)
    assert lab.text() == "print('mine')\n"


def test_an_untracked_file_in_the_way_is_not_overwritten(lab: Lab) -> None:
    lab.check_out("v1")
    (lab.folder / "table.csv").write_text("mine\n")
    for wanted in (lab.second, "main"):
        with pytest.raises((RepositoryError, GitFailed), match=r"table\.csv"):
            lab.check_out(wanted, allow_dirty=True)
    assert lab.text("table.csv") == "mine\n"


def test_commits_that_no_branch_holds_are_kept(lab: Lab) -> None:
    lab.check_out(lab.second)
    mine = commit(lab.folder, {"mine.py": "mine\n"})
    inner = commit(lab.folder / "libs" / "shared", {"inner.py": "mine\n"})
    git(lab.folder, "checkout", "--quiet", "--", ".")
    git(lab.folder / "libs" / "shared", "checkout", "--quiet", lab.sub_first)
    git(lab.folder / "libs" / "shared", "checkout", "--quiet", inner)
    mine = commit(lab.folder, {}, "with the submodule")
    lab.check_out(lab.third)
    assert git(lab.folder, "rev-parse", f"openscope-kept-{mine[:12]}") == mine
    assert git(lab.folder / "libs" / "shared", "rev-parse", f"openscope-kept-{inner[:12]}") == inner
    assert any("was on no branch" in line for line in lab.said)


def test_a_submodule_at_another_commit_is_a_local_change(lab: Lab) -> None:
    lab.check_out()
    inner = commit(lab.folder / "libs" / "shared", {"inner.py": "mine\n"})
    with pytest.raises(RepositoryError, match="other commit in submodule libs/shared"):
        lab.check_out()
    lab.check_out(lab.third, allow_dirty=True)
    assert git(lab.folder / "libs" / "shared", "rev-parse", "HEAD") == inner


def test_a_submodule_that_went_missing_comes_back(lab: Lab) -> None:
    lab.check_out()
    git(lab.folder, "submodule", "deinit", "--force", "--all")
    assert not examine(lab.repository(lab.third)).ready
    lab.check_out(lab.third)
    assert lab.text("libs/shared/shared.py") == "SHARED = 1\n"


@pytest.mark.parametrize("wanted", ["mian", "0" * 40, "abcdef1"])
def test_a_commit_that_nobody_has(lab: Lab, wanted: str) -> None:
    for _ in ("clone", "fetch"):
        with pytest.raises(RepositoryError, match="has no commit, tag or branch") as caught:
            lab.check_out(wanted)
        assert wanted != "mian" or "did you mean main?" in str(caught.value)
        assert len(list(lab.local.iterdir())) == (2 if lab.folder.exists() else 1), "no half clone is left behind"
        lab.check_out("v1")


def test_a_commit_of_no_branch_is_fetched_by_its_hash(lab: Lab) -> None:
    lab.check_out()
    git(lab.remote, "checkout", "--quiet", "-b", "pull")
    hidden = commit(lab.remote, {"hidden.py": "x\n"})
    git(lab.remote, "checkout", "--quiet", "main")
    git(lab.remote, "branch", "-D", "pull")
    git(lab.remote, "config", "uploadpack.allowAnySHA1InWant", "true")
    assert lab.check_out(hidden).commit == hidden


def test_folders_that_are_something_else_are_left_alone(lab: Lab, tmp_path: Path) -> None:
    lab.folder.mkdir(parents=True)
    (lab.folder / "data.txt").write_text("mine\n")
    with pytest.raises(RepositoryError, match="is no git repository"):
        lab.check_out()
    git(lab.local, "init", "--quiet")
    with pytest.raises(RepositoryError, match="is no repository of its own"):
        lab.check_out()
    shutil.rmtree(lab.folder)
    lab.folder.write_text("a file")
    with pytest.raises(RepositoryError, match="is no folder"):
        lab.check_out()
    lab.folder.unlink()
    lab.folder.mkdir()
    assert lab.check_out().commit == lab.third, "an empty folder is no obstacle"


def test_a_clone_of_something_else_counts_only_for_a_commit_that_is_in_it(lab: Lab, tmp_path: Path) -> None:
    lab.check_out()
    elsewhere = (tmp_path / "fork" / "stimulus").as_uri()
    with pytest.raises(RepositoryError, match=r"is a clone of .*, not of .*fork"):
        lab.check_out(repository_url=elsewhere)
    assert lab.check_out(lab.first, repository_url=elsewhere).commit == lab.first


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("git@github.com:lab/code.git", "https://github.com/Lab/code"),
        ("ssh://git@host/lab/code.git", "https://user:word@host/lab/code/"),
        ("/srv/git/code.git", "file:///srv/git/code"),
        (r"C:\git\code", "C:/git/code/"),
    ],
)
def test_two_spellings_of_one_address(one: str, other: str) -> None:
    assert _plain(one) == _plain(other)


def test_a_half_clone_of_a_killed_session_is_cleared_away(lab: Lab) -> None:
    left = lab.local / ".stimulus.openscope-clone-4711"
    (left / ".git" / "objects").mkdir(parents=True)
    (left / ".git" / "objects" / "pack").write_text("half")
    (left / ".git" / "objects" / "pack").chmod(0o400)
    assert lab.check_out().commit == lab.third
    assert not left.exists()


def test_another_session_that_uses_git_there_is_waited_for(lab: Lab) -> None:
    lab.local.mkdir(parents=True)
    with FileLock(lab.local / ".stimulus.openscope.lock") as lock:
        assert lock.acquire()
        with pytest.raises(RepositoryError, match="another session uses git"):
            lab.check_out(repository_timeout_s=0.2)
    assert lab.check_out().commit == lab.third


def test_no_session_moves_the_code_under_another_one(lab: Lab) -> None:
    running = [lab.check_out(lab.second, user="mouse1")]
    running.append(lab.check_out(lab.second, user="mouse2"))  # the same commit disturbs nobody
    with pytest.raises(RepositoryError, match="session mouse1, mouse2 runs another commit"):
        lab.check_out(lab.third, user="mouse3")
    assert lab.text() == "print('v2')\n"
    for one in running:
        one.release()
    assert lab.check_out(lab.third).commit == lab.third


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_session_that_died_uses_nothing_any_more(lab: Lab) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pytest_openscope.acquisition import check_out, repository_of\n"
        "keys = {'repository_url': sys.argv[1], 'local_repository_path': sys.argv[2], 'repository_commit_hash': 'v1'}\n"
        "found = check_out(repository_of(keys, Path.cwd())[0], user='mouse1'); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, lab.url, str(lab.local)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert lab.text() == "print('v1')\n"
    running = lab.check_out(lab.third, user="mouse2")
    running.release()
    assert not (lab.local / ".stimulus.openscope.in-use").exists()


def test_an_empty_remote(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet", "--bare")
    with pytest.raises(RepositoryError, match="the repository is empty"):
        lab.check_out(repository_url=(tmp_path / "empty").as_uri())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_clone_of_another_account_is_refused_with_the_way_out(lab: Lab) -> None:
    lab.check_out()
    for path in (lab.folder, lab.folder / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(RepositoryError, match=r"belongs to another account -> .*safe\.directory"):
        lab.check_out()


def test_a_lock_that_a_killed_git_left_is_named(lab: Lab) -> None:
    lab.check_out()
    (lab.folder / ".git" / "index.lock").touch()
    with pytest.raises(GitFailed, match=r"index\.lock"):
        lab.check_out("v1")
    assert lab.text() == "print('v3')\n"


def test_the_environment_of_a_git_hook_does_not_reach_in(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(lab.remote / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(lab.remote))
    assert lab.check_out("v1").commit == lab.first
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert git(lab.remote, "rev-parse", "HEAD") == lab.third


def test_git_that_is_not_installed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(GitFailed, match="git is not installed"):
        examine(lab.repository())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"repository_url": "https://h/x.git"}, "local_repository_path: is missing"),
        ({"repository_commit_hash": "--upload-pack=x"}, "is no commit, tag or branch"),
        ({"repository_commit_hash": "main~1"}, "is no commit, tag or branch"),
        ({"repository_url": "--upload-pack=touch x"}, "is no address of a repository"),
    ],
)
def test_keys_that_make_no_sense(keys: dict[str, str], words: str) -> None:
    base = {} if keys == {"repository_url": "https://h/x.git"} else {"repository_url": "u", "local_repository_path": "/r"}
    found, mistakes = repository_of({**base, **keys}, Path.cwd())
    assert found is None
    assert words in str(mistakes[0])


# -- a remote that hangs -------------------------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/lab/stimulus.git"


def _git_processes() -> list[str]:
    import psutil

    me = psutil.Process()
    children = [child for child in me.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    return [child.name() for child in children if "git" in child.name()]


def test_a_remote_that_hangs_is_given_up_in_time(lab: Lab, silent: str) -> None:
    started = time.monotonic()
    with pytest.raises(GitFailed, match="git clone did not end within 1 s") as caught:
        lab.check_out(repository_url=silent, repository_timeout_s=1)
    assert caught.value.kind == "timeout"
    assert time.monotonic() - started < 15
    assert not lab.folder.exists()
    assert [path.name for path in lab.local.iterdir()] == [".stimulus.openscope.lock"]
    assert not _git_processes()


def test_a_fetch_that_hangs_leaves_the_clone_as_it_was(lab: Lab, silent: str) -> None:
    lab.check_out(lab.second)
    git(lab.folder, "remote", "set-url", "origin", silent)
    with pytest.raises(RepositoryError, match="did not end within 1 s"):
        lab.check_out(repository_url=silent, repository_timeout_s=1)
    assert git(lab.folder, "rev-parse", "HEAD") == lab.second
    assert not _git_processes()
    assert lab.check_out(lab.first, repository_url=silent).commit == lab.first, "pinned commits need no remote"


def test_an_interrupt_ends_git(lab: Lab, silent: str) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    started = time.monotonic()
    with pytest.raises(GitFailed) as caught:
        lab.check_out(repository_url=silent, stopped=stop.is_set)
    assert caught.value.kind == "stopped"
    assert time.monotonic() - started < 15
    assert not _git_processes()


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_session_that_is_killed_while_it_clones_leaves_nothing_that_stops_the_next(lab: Lab, silent: str) -> None:
    code = (
        "import sys; from pathlib import Path; from pytest_openscope.acquisition import check_out, repository_of\n"
        "keys = {'repository_url': sys.argv[1], 'local_repository_path': sys.argv[2]}\n"
        "check_out(repository_of(keys, Path.cwd())[0])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, silent, str(lab.local)])
    deadline = time.monotonic() + 20
    while not list(lab.local.glob(".stimulus.openscope-clone-*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    import psutil

    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lab.check_out().commit == lab.third
    for child in children:
        child.kill()


# -- credentials ---------------------------------------------------------------------------------------------------------


class _Guarded(SimpleHTTPRequestHandler):
    """A repository over "dumb" HTTP, for those who know name and password."""

    asked: list[str]

    def do_GET(self) -> None:
        expected = "Basic " + b64encode(b"ada:t0p/secret-word").decode()
        self.asked.append(self.headers.get("Authorization") or "")
        if self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="lab"')
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def guarded(lab: Lab) -> Iterator[str]:
    bare = lab.remote.parent / "guarded.git"
    git(lab.remote, "clone", "--quiet", "--bare", str(lab.remote), str(bare))
    git(bare, "update-server-info")
    handler = type("Handler", (_Guarded,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(lab.remote.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}/guarded.git"
    server.shutdown()
    server.server_close()


def test_credentials_open_the_remote_and_are_told_nowhere(
    lab: Lab, guarded: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    word = "t0p/secret-word"
    spied = tmp_path / "spied"
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {spied}\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
    url = f"http://ada:t0p%2Fsecret-word@{guarded}"
    found = lab.check_out(lab.first, repository_url=url)
    assert found.commit == lab.first
    folder = lab.local / "guarded"
    everything = "\n".join(lab.said) + spied.read_text() + (folder / ".git" / "config").read_text()
    assert guarded in everything
    for shape in (word, "t0p%2Fsecret-word"):
        assert shape not in everything
        assert shape not in repr(lab.repository(repository_url=url))


def test_wrong_credentials_are_an_error_without_the_word(lab: Lab, guarded: str) -> None:
    with pytest.raises(GitFailed) as caught:
        lab.check_out(repository_url=f"http://ada:wr0ng-w0rd@{guarded}")
    assert "wr0ng-w0rd" not in str(caught.value) + caught.value.said + "\n".join(lab.said)
    assert "guarded.git" in str(caught.value)
    with pytest.raises(GitFailed, match=r"could not read Username|terminal prompts disabled|Authentication failed"):
        lab.check_out(repository_url=f"http://{guarded}")


def test_names_passwords_and_tokens_of_addresses() -> None:
    token = "ghp_" + "a1B2" * 9
    assert _without_credentials("https://host/x.git") == ("https://host/x.git", "", "")
    assert _without_credentials("https://u:p%40w@host:8/x") == ("https://host:8/x", "u", "p%40w")
    assert _without_credentials(f"https://{token}@host/x") == ("https://host/x", token, "")
    assert _without_credentials("https://bob@host/x") == ("https://bob@host/x", "", "")
    assert _without_credentials("ssh://git:pw@host/x") == ("ssh://git@host/x", "", "pw")
    assert _without_credentials("git@host:lab/x.git") == ("git@host:lab/x.git", "", "")


def test_an_error_of_the_server_is_told(lab: Lab) -> None:
    class Broken(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(GitFailed, match="503"):
        lab.check_out(repository_url=f"http://127.0.0.1:{server.server_port}/x.git")
    server.shutdown()
    server.server_close()
