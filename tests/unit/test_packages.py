"""Which packages take part in a session, and from which code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from git_kit import commit, git, make

from pytest_openscope.records import freeze, package_revisions
from pytest_openscope.records.revisions import describe_repository


def _install(site: Path, name: str, version: str, origin: dict[str, object] | None = None) -> None:
    """Write what pip writes beside an installed package."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if origin is not None:
        (folder / "direct_url.json").write_text(json.dumps(origin))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "lab" / ".venv" / "lib" / "site-packages"
    place.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(place))
    return place


def test_a_package_in_a_work_tree_has_commit_branch_and_dirt(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "drivers"
    head = make(source, {"lab_lamp/__init__.py": "raise RuntimeError('nothing imports it')\n", "lab_lamp/blue.py": ""})
    monkeypatch.syspath_prepend(str(source))
    (one,) = package_revisions(["lab_lamp.blue", "lab_lamp"])
    assert (one["name"], one["path"], one["commit"]) == ("drivers", str(source), head)
    assert (one["branch"], one["dirty"], one["source"]) == ("main", False, "checkout")
    (source / "lab_lamp" / "__pycache__").mkdir()
    (source / "lab_lamp" / "__pycache__" / "x.pyc").touch()
    assert describe_repository(source, "x")["dirty"] is False, "what Python writes by itself is no change"
    (source / "new.py").touch()
    assert describe_repository(source, "x")["dirty"] is True
    git(source, "checkout", "--quiet", "--detach")
    assert describe_repository(source, "x")["branch"] is None
    assert not list(package_revisions(["lab_lamp"], [str(source)])), "a repository that is listed is not listed again"


def test_an_installed_package_is_not_taken_for_the_repository_around_it(tmp_path: Path, site: Path) -> None:
    make(tmp_path / "around")
    git(tmp_path / "lab", "init", "--quiet")
    commit(tmp_path / "lab", {"readme": "x"})
    (site / "lab_far_stage.py").touch()
    _install(
        site,
        "lab_far_stage",
        "1.2",
        {"url": "https://u:t0psecret@h/lab.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}},
    )
    (one,) = package_revisions(["lab_far_stage", "there_is_no_such_module"])
    assert (one["name"], one["package_version"], one["source"]) == ("lab_far_stage", "1.2", "installed package")
    assert one["commit"] == "abc123"
    assert one["path"] == str(site)
    assert "t0psecret" not in json.dumps(one)


def test_the_list_of_packages_says_where_each_came_from(site: Path) -> None:
    _install(site, "lab_one", "1.0")
    _install(site, "lab.two", "2.0", {"url": "https://u:t0psecret@h/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}})
    _install(site, "lab_three", "3.0", {"url": "file:///src/lab%20three", "dir_info": {"editable": True}})
    _install(site, "lab_four", "4.0", {"url": "https://h/lab_four-4.0.whl", "archive_info": {}})
    found = {line for line in freeze() if "lab-" in line}
    assert found == {
        "lab-one==1.0",
        "lab-two @ git+https://u:***@h/x.git@abc",
        "-e /src/lab three  # lab-three==3.0",
        "lab-four @ https://h/lab_four-4.0.whl",
    }
    assert not any("t0psecret" in line for line in freeze())


def test_broken_records_of_packages_stop_nothing(site: Path) -> None:
    _install(site, "lab_bad", "1.0", {})
    (site / "lab_bad-1.0.dist-info" / "direct_url.json").write_text("{")
    assert "lab-bad==1.0" in freeze()
