"""Real git repositories for the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from windows_limits import wine_version

_IDENTITY = (
    "-c",
    "user.name=t",
    "-c",
    "user.email=t@example.org",
    "-c",
    "init.defaultBranch=main",
    "-c",
    "commit.gpgsign=false",
)


def git(folder: Path, *arguments: str) -> str:
    """Run git as a person would; submodules by file:// are allowed."""
    if wine_version() and shutil.which("git") is None:
        pytest.skip("Wine: there is no git for Windows in the package registries")
    command = ["git", *_IDENTITY, "-c", "protocol.file.allow=always", *arguments]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def commit(folder: Path, files: dict[str, str | None], message: str = "a change") -> str:
    """Write (None: remove) files, commit them, and return the commit."""
    for name, text in files.items():
        path = folder / name
        if text is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def make(folder: Path, files: dict[str, str | None] | None = None) -> str:
    """Make a repository with one commit and return it."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    return commit(folder, files or {"stimulus.py": "print('v1')\n"}, "first")
