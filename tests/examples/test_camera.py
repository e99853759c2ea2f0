"""The camera rig: a real ffmpeg records, and the session folder holds what it recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Done, Example


def _check_recording(done: Done) -> None:
    assert done.end_state["outcome"] == "passed"
    assert done.measured("frames") == pytest.approx(60, abs=1)
    assert done.end_state["attachments"] == ["body_camera.png"]
    assert (done.folder / "body_camera.png").read_bytes().startswith(b"\x89PNG")
    assert (done.folder / "body_camera.mkv").stat().st_size > 10_000
    (facts,) = done.end_state["acquisitions"]
    assert facts["returncode"] == 0
    assert facts["duration_s"] > 1  # in real time
    assert "frame=   60" in done.log


def test_as_tests(camera: Example) -> None:
    pytest.importorskip("imageio_ffmpeg")
    done = camera.run()
    _check_recording(done)
    assert list(done.outcomes.items()) == [(f"test_{name}", "passed") for name in ("disk_space", "record", "frames", "picture")]
    assert "body_camera.stderr frame=" in done.log


def test_as_a_parameter_file(camera: Example) -> None:
    pytest.importorskip("imageio_ffmpeg")
    done = camera.run("camera.json")
    _check_recording(done)
    assert list(done.outcomes) == ["disk_space_check", "record", "count_frames", "save_picture"]


def test_too_few_frames_fail(camera: Example) -> None:
    pytest.importorskip("imageio_ffmpeg")
    done = camera.run("camera.json", "--param", "duration_s=1", code=1)
    assert "frames = 30 is outside [59, 61]" in done.log
    assert done.outcomes["save_picture"] is not None  # on_failure is continue


@pytest.mark.parametrize("arguments", [[], ["camera.json"]])
def test_a_dry_run_needs_no_ffmpeg(camera: Example, arguments: list[str]) -> None:
    missing = camera.folder / "imageio_ffmpeg.py"
    missing.write_text("raise ImportError('not installed')", encoding="utf-8")
    done = camera.run("--dry-run", *arguments)
    assert done.end_state["outcome"] == "passed"
    assert done.end_state["dry_run"] is True
    assert not (done.folder / "body_camera.mkv").exists()
