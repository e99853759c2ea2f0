"""The rig's configuration, the experiment's parameters, and how they are merged."""

from __future__ import annotations

from .configuration import Configuration
from .load import load, missing_mistakes
from .model import ConfigRequest, Expanded, GithubIssueSettings, Loaded, PipelineEntry, Rig, Settings

__all__ = [
    "ConfigRequest",
    "Configuration",
    "Expanded",
    "GithubIssueSettings",
    "Loaded",
    "PipelineEntry",
    "Rig",
    "Settings",
    "load",
    "missing_mistakes",
]
