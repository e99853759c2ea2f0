"""Run laboratory experiments as pytest sessions: ``pytest --rig-config rig.yaml``."""

from __future__ import annotations

__version__ = "0.1.0"
#: Version of the OpenScope experimental launcher whose parameter files and session folders this package implements.
LAUNCHER_FORMAT_VERSION = "0.2.57"
