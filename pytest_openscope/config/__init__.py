"""The configuration of a session: models of every key, the files that give them, layers, placeholders."""

from .configuration import Configuration, Expanded, expand_rig, expand_section
from .fields import (
    CHOICE,
    Flag,
    Id,
    Integer,
    Number,
    PathText,
    Seconds,
    Section,
    Text,
    Texts,
    Values,
    check,
    has_placeholder,
    key,
    keys_of,
    seconds,
    show,
)
from .files import read_mapping
from .lab_models import load_model
from .layers import source_of
from .loading import ConfigRequest, Loaded, load
from .models import (
    ADAPTERS,
    KNOWN_PARAMETERS,
    AlertSettings,
    Device,
    GithubIssueSettings,
    OtelSettings,
    PipelineEntry,
    Readiness,
    Requirements,
    Rig,
    Settings,
    look_up,
)
from .roots import default_state_directory
from .schema import parameters_schema, rig_schema
from .suggest import nearest
from .yaml_rules import dump_yaml
