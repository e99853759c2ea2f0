"""Recording and reading videos with ffmpeg."""

from __future__ import annotations

import subprocess
from pathlib import Path


def ffmpeg() -> str:
    """The program that imageio-ffmpeg brings; its bare name where that is not installed (a dry run does not start it)."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return "ffmpeg"
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def record_command(movie: Path, duration_s: float, frame_rate_hz: float, frame_size: str) -> list[str]:
    """Record ffmpeg's test picture in real time; -stats prints the progress to stderr, on one line that overwrites itself.

    Matroska, because what a killed ffmpeg leaves of it can still be read.
    """
    source = f"testsrc=size={frame_size}:rate={frame_rate_hz:g}:duration={duration_s:g}"
    quiet = ["-hide_banner", "-nostdin", "-loglevel", "warning", "-stats", "-stats_period", "0.5"]
    codec = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    return [ffmpeg(), *quiet, "-re", "-f", "lavfi", "-i", source, *codec, str(movie)]


def count_frames(movie: Path) -> int:
    """Decode the whole video and count."""
    import imageio_ffmpeg

    frames, _duration_s = imageio_ffmpeg.count_frames_and_secs(str(movie))
    return int(frames)


def save_frame(movie: Path, picture: Path, at_s: float) -> Path:
    """Write the frame at this time as PNG."""
    command = [ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", "-ss", f"{at_s:g}", "-i", str(movie)]
    subprocess.run([*command, "-frames:v", "1", str(picture)], check=True, timeout=60)
    return picture
