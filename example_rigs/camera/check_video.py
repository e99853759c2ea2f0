"""Steps of camera.json (script modules)."""

from __future__ import annotations

import video

from pytest_openscope import ModuleContext


def count_frames(context: ModuleContext, movie_path: str, ordered: float) -> None:
    """A relative movie_path lies in the session folder."""
    context.measure("frames", video.count_frames(context.path(movie_path)), minimum=ordered - 1, maximum=ordered + 1)


def save_picture(context: ModuleContext, movie_path: str, picture_path: str, at_s: float) -> None:
    context.attach(video.save_frame(context.path(movie_path), context.path(picture_path), at_s))
