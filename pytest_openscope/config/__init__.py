"""The configuration of a session: models of every key, the files that give them, layers, placeholders."""

from .configuration import Configuration, Expanded, expand_rig, expand_section, reread
from .fields import check, keys_of
from .files import read_mapping
from .lab_models import load_model
from .layers import source_of
from .loading import ConfigRequest, Loaded, load, missing_mistakes
from .models import ADAPTERS, Device, GithubIssueSettings, PipelineEntry, Readiness, Requirements, Rig, Settings, look_up
from .roots import default_state_directory
from .schema import parameters_schema, rig_schema
from .yaml_rules import dump_yaml

__all__ = [
    "ADAPTERS",
    "ConfigRequest",
    "Configuration",
    "Device",
    "Expanded",
    "GithubIssueSettings",
    "Loaded",
    "PipelineEntry",
    "Readiness",
    "Requirements",
    "Rig",
    "Settings",
    "check",
    "default_state_directory",
    "dump_yaml",
    "expand_rig",
    "expand_section",
    "keys_of",
    "load",
    "load_model",
    "look_up",
    "missing_mistakes",
    "parameters_schema",
    "read_mapping",
    "reread",
    "rig_schema",
    "source_of",
]
