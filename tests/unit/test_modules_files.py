"""Steps that copy and move files of the session: the instrument's description, the videos of cameras."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.config import PipelineEntry
from pytest_openscope.modules import ModuleContext, ModuleFailed, run_entry
from pytest_openscope.modules.failures import StepTimedOut
from pytest_openscope.records.phases import Phase


class Session:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "session"
        (self.folder / "launcher_metadata").mkdir(parents=True)
        self.answers: list[Any] | None = None
        self.asked: list[str] = []
        self.logger = logging.getLogger("steps")

    def ask(self, prompt: str, default: str | None = None) -> str:
        return str(self._next(prompt))

    def confirm(self, prompt: str) -> bool:
        return bool(self._next(prompt))

    def _next(self, prompt: str) -> Any:
        self.asked.append(prompt)
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)

    def run(self, name: str, **parameters: Any) -> None:
        entry = PipelineEntry(name=name, phase=Phase.POST_ACQUISITION, module_path=name, module_parameters=parameters)
        operator: Any = None if self.answers is None else self
        run_entry(entry, ModuleContext(parameters, self.folder, operator=operator, logger=self.logger))  # type: ignore[arg-type]

    def write(self, path: str, content: str = "video") -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        return file

    @property
    def files(self) -> dict[str, str]:
        return {
            path.relative_to(self.folder).as_posix(): path.read_text("utf-8")
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


# instrument_json_fetch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three descriptions of the instrument; the one in ``b`` is the newest, the last one has another name."""
    root = tmp_path / "processing"
    for changed, name in enumerate(("instrument.json", "a/instrument.json", "b/c/instrument.json", "b/other.json")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"from": name}), encoding="utf-8")
        os.utime(path, (1000 + changed, 1000 + changed))
    return root


def test_the_newest_description_is_copied(session: Session, root: Path) -> None:
    session.run("instrument_json_fetch", instrument_json_source_root=str(root))
    assert session.files == {"instrument.json": json.dumps({"from": "b/c/instrument.json"})}
    name = "metadata\\rig.json"
    session.run(
        "instrument_json_fetch",
        instrument_json_source_root=str(root),
        instrument_json_recursive=False,
        instrument_json_destination_name=name,
    )
    assert session.files["metadata/rig.json"] == json.dumps({"from": "instrument.json"})


def test_the_operator_names_another_one(session: Session, root: Path) -> None:
    session.answers = [False, "nowhere.json", f'"{root / "b" / "other.json"}"']
    session.run("instrument_json_fetch", instrument_json_source_root=str(root))
    assert session.files == {"instrument.json": json.dumps({"from": "b/other.json"})}
    assert "there is no file" in session.asked[2]
    session.answers = [False, ""]
    with pytest.raises(ModuleFailed, match="the operator does not want"):
        session.run("instrument_json_fetch", instrument_json_source_root=str(root))


def test_another_description_is_not_replaced_unasked(session: Session, root: Path) -> None:
    mine = session.write("instrument.json", "{}")
    with pytest.raises(ModuleFailed, match="nobody says whether to replace it"):
        session.run("instrument_json_fetch", instrument_json_source_root=str(root))
    session.answers = [True, False]
    session.run("instrument_json_fetch", instrument_json_source_root=str(root))
    assert mine.read_text("utf-8") == "{}"
    session.answers = [True, True]
    session.run("instrument_json_fetch", instrument_json_source_root=str(root))
    assert "b/c" in mine.read_text("utf-8")
    session.answers = None
    session.run("instrument_json_fetch", instrument_json_source_root=str(root))  # the same: nothing to ask
    mine.write_text("{}", encoding="utf-8")
    session.run("instrument_json_fetch", instrument_json_source_root=str(root), assume_yes=True)
    assert "b/c" in mine.read_text("utf-8")


@pytest.mark.parametrize("required", [True, False])
def test_no_description_or_one_that_is_no_json(session: Session, tmp_path: Path, required: bool, caplog: Any) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"a": ', encoding="utf-8")
    for given, words in (
        ({"instrument_json_source_root": str(tmp_path / "gone")}, "there is no instrument.json in .*gone"),
        ({"instrument_json_source_path": str(tmp_path / "x.json")}, "there is no instrument.json in .*x.json"),
        ({"instrument_json_source_path": str(broken)}, "is no JSON: "),
    ):
        if required:
            with pytest.raises(ModuleFailed, match=words):
                session.run("instrument_json_fetch", **given)
        else:
            session.run("instrument_json_fetch", instrument_json_required=False, **given)
    assert session.files == {}
    assert len(caplog.records) == (0 if required else 3)


def test_a_share_that_hangs_is_left_in_time(session: Session, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    released = threading.Event()
    monkeypatch.setattr(os, "walk", lambda _: released.wait(30) and iter(()))
    with pytest.raises(StepTimedOut, match=r"looking for instrument.json in .* took longer than 0.2 s"):
        session.run("instrument_json_fetch", instrument_json_source_root=str(root), timeout_s=0.2)
    released.set()


# behavior_videos_flatten


def test_videos_of_nested_folders_come_together(session: Session) -> None:
    for path in ("run1/behavior-videos/Face/video.MP4", "behavior-videos/Body/video.avi", "deep/er/behavior-videos/eye.mkv"):
        session.write(path, path)
    session.write("run1/behavior-videos/Face/metadata.csv", "csv")
    session.run("behavior_videos_flatten", output_session_folder=str(session.folder), behavior_videos_prune_empty=True)
    manifest = json.loads(session.files.pop("launcher_metadata/routing_manifest.json"))
    assert manifest == {
        "entries": [
            {"type": "behavior_videos_flattened", "files": ["behavior-videos/Face/video.MP4", "behavior-videos/eye.mkv"]}
        ]
    }
    assert {name: text for name, text in session.files.items() if "launcher" not in name} == {
        "behavior-videos/Body/video.avi": "behavior-videos/Body/video.avi",
        "behavior-videos/Face/video.MP4": "run1/behavior-videos/Face/video.MP4",
        "behavior-videos/eye.mkv": "deep/er/behavior-videos/eye.mkv",
        "run1/behavior-videos/Face/metadata.csv": "csv",
    }
    assert not (session.folder / "deep/er/behavior-videos").exists()
    before = session.files
    session.run("behavior_videos_flatten")  # all is in place
    assert session.files == before


def test_nothing_is_overwritten(session: Session) -> None:
    session.write("behavior-videos/Face/video.mp4", "first")
    session.write("behavior-videos/Face/video_dup1.mp4", "second")
    session.write("run/behavior-videos/Face/video.mp4", "third")
    session.run("behavior_videos_flatten")
    texts = {name.rpartition("/")[2]: text for name, text in session.files.items()}
    assert [texts[name] for name in ("video.mp4", "video_dup1.mp4", "video_dup2.mp4")] == ["first", "second", "third"]


def test_copies_leave_the_originals_and_are_made_once(session: Session) -> None:
    session.write("run/behavior-videos/Face/video.mp4", "v")
    session.write("run/behavior-videos/Face/note.mp4.txt", "no video")
    given = {"behavior_videos_copy_only": "true", "behavior_videos_destination": "all\\videos", "manifest_path": "m.json"}
    for _ in range(2):
        session.run("behavior_videos_flatten", **given)
    assert [*session.files] == [
        "all/videos/Face/video.mp4",
        "m.json",
        "run/behavior-videos/Face/note.mp4.txt",
        "run/behavior-videos/Face/video.mp4",
    ]
    assert json.loads(session.files["m.json"])["entries"][0]["files"] == ["all/videos/Face/video.mp4"]


def test_a_folder_within_a_folder_counts_for_itself(session: Session) -> None:
    session.write("behavior-videos/behavior-videos/Face/v.mp4", "v")
    session.run("behavior_videos_flatten")
    assert "behavior-videos/Face/v.mp4" in session.files
    assert not (session.folder / "behavior-videos/behavior-videos").exists()


def test_one_videos_failure_does_not_stop_the_others(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    for camera in ("Body", "Eye", "Face"):
        session.write(f"run/behavior-videos/{camera}/v.mp4", camera)
    real = shutil.move

    def move(source: Path, target: Path) -> Any:
        if "Eye" in str(source):
            raise PermissionError(13, "it is open in another program", str(source))
        return real(source, target)

    monkeypatch.setattr(shutil, "move", move)
    with pytest.raises(ModuleFailed, match=r"1 videos stay where they are: run/behavior-videos/Eye/v.mp4: .*open in another"):
        session.run("behavior_videos_flatten")
    assert [name for name in session.files if name.endswith("mp4")] == [
        "behavior-videos/Body/v.mp4",
        "behavior-videos/Face/v.mp4",
        "run/behavior-videos/Eye/v.mp4",
    ]
    assert len(json.loads(session.files["launcher_metadata/routing_manifest.json"])["entries"][0]["files"]) == 2


def test_a_broken_manifest_stops_it_before_anything_is_moved(session: Session) -> None:
    session.write("run/behavior-videos/v.mp4")
    session.write("launcher_metadata/routing_manifest.json", "{")
    before = session.files
    with pytest.raises(ModuleFailed, match="no routing manifest"):
        session.run("behavior_videos_flatten")
    assert session.files == before


def test_no_folder_of_that_name_is_no_failure(session: Session) -> None:
    session.write("videos/v.mp4")
    session.run("behavior_videos_flatten")
    assert [*session.files] == ["videos/v.mp4"]
