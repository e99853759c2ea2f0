"""The rig's configuration, the experiment's parameters, and how they are merged."""

from __future__ import annotations

from .coerce import (
    check_section,
)
from .configuration import (
    Configuration,
    expand_rig,
    reread,
)
from .loading import (
    load,
    missing_mistakes,
)
from .merge import (
    source_of,
)
from .model import (
    ConfigRequest,
    Expanded,
    GithubIssueSettings,
    Loaded,
    PipelineEntry,
    Rig,
    Settings,
)
from .roots import (
    default_state_directory,
)
from .schema import (
    READINESS_KEYS,
    REQUIREMENTS_KEYS,
)

__all__ = [
    "READINESS_KEYS",
    "REQUIREMENTS_KEYS",
    "ConfigRequest",
    "Configuration",
    "Expanded",
    "GithubIssueSettings",
    "Loaded",
    "PipelineEntry",
    "Rig",
    "Settings",
    "check_section",
    "default_state_directory",
    "expand_rig",
    "load",
    "missing_mistakes",
    "reread",
    "source_of",
]
