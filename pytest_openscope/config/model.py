"""What the configuration is once it has been read: plain frozen data that the rest of the plugin works from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records import Mistake, OnFailure, Phase
from .frozen import record

if TYPE_CHECKING:
    from .configuration import Configuration


def look_up(mapping: Mapping[str, Any], key: str) -> Any:
    """Return the value at a key, dotted or with dots of its own; numbers reach into lists.

    Raises:
        KeyError: there is none.
    """
    if key in mapping:
        return mapping[key]
    head, _, rest = key.partition(".")
    while rest:
        inner = mapping.get(head)
        if isinstance(inner, list):
            inner = {str(index): item for index, item in enumerate(inner)}
        if isinstance(inner, Mapping):
            try:
                return look_up(inner, rest)
            except KeyError:
                pass
        part, _, rest = rest.partition(".")
        head = f"{head}.{part}"
    raise KeyError(key)


@record(frozen=True)
class Rig(Mapping[str, Any]):
    """The rig. As a mapping it holds the lab's own values: ``rig["COM_port"]``, ``rig["camera.exposure_time"]``.

    Attributes:
        rig_id: the rig's name.
        path: the rig file.
        output_root_folder: as the rig file has it; a session may override it.
        state_directory: what belongs to the rig and outlives sessions; nothing has created it yet.
        devices: name to options, as written, checked for misspelt keys.
        requirements, readiness: the blocks as written.
        values: the lab's own values.
        defaults: parameters that the rig file sets.
        raw: the whole file.
    """

    rig_id: str
    path: Path
    state_directory: Path
    output_root_folder: str | None = None
    devices: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    requirements: Mapping[str, Any] = field(default_factory=dict)
    readiness: Mapping[str, Any] = field(default_factory=dict)
    values_: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        try:
            return look_up(self.values_, key)
        except KeyError:
            pass
        try:
            return look_up({**self.raw, "rig_id": self.rig_id}, key)
        except KeyError:
            raise KeyError(f"{key!r} is not in {self.path.name}; it has: {', '.join(self.values_) or 'no values'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def __bool__(self) -> bool:
        return True

    def __hash__(self) -> int:
        return hash((self.rig_id, self.path))

    def __repr__(self) -> str:
        return f"Rig({self.rig_id!r}, {self.path.name!r}, values: {', '.join(self.values_) or 'none'})"


@record(frozen=True)
class GithubIssueSettings:
    """The ``github_issue`` block; the token itself is never here, only the name of its environment variable."""

    enabled: bool = False
    repo: str | None = None
    token_env: str = "GITHUB_ISSUE_TOKEN"
    labels: tuple[str, ...] = ("auto-report",)
    report_on: tuple[str, ...] = ("exception", "pre_acquisition", "post_acquisition")
    max_output_lines: int = 80
    include_launcher_log: bool = True
    launcher_log_mode: str = "full"
    sanitize_launcher_log: bool = False
    include_subject_user: bool = False
    include_rig_config: bool = False
    api_base_url: str = "https://api.github.com"
    max_body_chars: int = 60_000
    report_dry_runs: bool = False
    max_new_issues_per_day: int = 10
    max_comments_per_issue: int = 30
    timeout_s: float = 20.0
    report_wait_s: float = 5.0

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


@record(frozen=True)
class Settings:
    """Typed values of all known keys; :mod:`.schema` has their meaning, units and defaults."""

    rig_id: str
    output_root: Path
    subject_id: str | None = None
    user_id: str | None = None
    session_uuid: str | None = None
    launcher_version: str | None = None
    launcher: str = "base"
    script_path: str | None = None
    script_parameters: dict[str, Any] = field(default_factory=dict)
    script_arguments: tuple[str, ...] = ()
    command: tuple[str, ...] | str | None = None
    python_exe_path: str | None = None
    python_venv_path: str | None = None
    python_arguments: tuple[str, ...] = ()
    bonsai_exe_path: str | None = None
    bonsai_setup_script: str | None = None
    bonsai_config_path: str | None = None
    matlab_engine_name: str | None = None
    matlab_entrypoint: str | None = None
    matlab_function: str | None = None
    matlab_entrypoint_args: tuple[Any, ...] = ()
    matlab_entrypoint_kwargs: dict[str, Any] = field(default_factory=dict)
    matlab_entrypoint_nargout: int = 0
    matlab_engine_connect_timeout_sec: float = 120.0
    matlab_engine_connect_poll_interval_sec: float = 1.0
    matlab_cancel_timeout_sec: float = 30.0
    matlab_keep_engine_alive: bool = True
    repository_url: str | None = None
    repository_commit_hash: str = "main"
    local_repository_path: str | None = None
    resource_log_interval: float = 5.0
    centralized_log_directory: str | None = None
    log_level: str = "INFO"
    log_levels: dict[str, str] = field(default_factory=dict)
    session_log: str = "launcher_metadata/launcher.log"
    acquisition_error_terminate: bool = False
    acquisition_error_grace_period_sec: float = 5.0
    process_start_timeout_sec: float | None = None
    acquisition_echo: bool = False
    acquisition_timeout_s: float | None = None
    session_timeout: float | None = None
    ask_notes: bool = True
    on_crash: str = "stop"
    mirror_wait_s: float = 5.0
    mirror_finish_s: float = 600.0
    report_wait_s: float = 5.0
    low_disk_gb: float = 5.0
    low_memory_percent: float = 95.0
    show_locals: bool = False
    stop_graceful_s: float = 10.0
    stop_terminate_s: float = 5.0
    stop_kill_s: float = 5.0
    grace_s: float = 10.0
    session_sync_role: str | None = None
    session_sync_port: int | None = None
    session_sync_bind_host: str = "0.0.0.0"
    session_sync_expected_slaves: int = 1
    session_sync_master_host: str | None = None
    session_sync_retry_delay_sec: float = 1.0
    session_sync_key_param: str = "subject_id"
    session_sync_session_key: str | None = None
    session_sync_session_name: str | None = None
    session_sync_name_param: str = "session_uuid"
    session_sync_node_name: str | None = None
    session_sync_timeout_sec: float = 300.0
    session_sync_ack_timeout_sec: float = 300.0
    session_sync_allow_bypass: bool = True
    session_sync_bypass_prompt: str | None = None
    github_issue: GithubIssueSettings | None = None


@record(frozen=True)
class PipelineEntry:
    """One step of a parameter file.

    Attributes:
        name: unique within its phase (``disk_space_check``, ``disk_space_check[2]``; a script's stem).
        module_type: ``launcher_module`` or ``script_module`` (which the older ``repo_module`` is, too).
        module_path: name of a ready-made module, or path of a Python file in the repository.
        parameters: ``module_parameters``, to be merged over the parameters for this step alone.
        function: function of a script module; None means the contract's own names.
        function_args: keyword arguments of that function; None where the entry gives none.
        timeout_s: longest run of the step.
        attempts, retry_delay_s: how often it is tried, and how long after a failure.
        raw: the entry as written.
        where: ``day1.json: pre_acquisition_pipeline[0]``.
    """

    name: str
    phase: Phase
    module_type: str
    module_path: str
    parameters: dict[str, Any]
    on_failure: OnFailure = OnFailure.CONTINUE
    function: str | None = None
    function_args: dict[str, Any] | None = None
    timeout_s: float | None = None
    attempts: int = 1
    retry_delay_s: float = 0.0
    raw: Any = None
    where: str = ""


@record(frozen=True)
class ConfigRequest:
    """What the user gave.

    Attributes:
        rig_config: the rig file.
        rig_config_where: what named it (``--rig-config``).
        params_files: parameter files; more than one is a mistake.
        ini_overrides: ``KEY=VALUE`` of the ini file, in order; below ``named``.
        ini_where: what they are called in mistakes and sources.
        param_overrides: ``KEY=VALUE`` of the command line, in order.
        named: key to (value, where) from ini keys and the environment; below ``--param``.
        options: the same from named options; above ``--param``.
        dry_run, no_input: as decided.
        validating: the rig is validated, so that an unusable output root is a finding, not a mistake.
        cwd: what relative paths are relative to.
        environ: environment variables.
    """

    rig_config: Path | None
    rig_config_where: str = "--rig-config"
    params_files: tuple[Path, ...] = ()
    ini_overrides: tuple[str, ...] = ()
    ini_where: str = "openscope_param"
    param_overrides: tuple[str, ...] = ()
    named: Mapping[str, tuple[object, str]] = field(default_factory=dict)
    options: Mapping[str, tuple[object, str]] = field(default_factory=dict)
    dry_run: bool = False
    no_input: bool = False
    validating: bool = False
    cwd: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=dict)


@record(frozen=True)
class Expanded:
    """The configuration with every placeholder replaced, the session's among them."""

    parameters: dict[str, Any]
    settings: Settings
    rig: Rig
    pre_pipeline: tuple[PipelineEntry, ...]
    post_pipeline: tuple[PipelineEntry, ...]


@record(frozen=True)
class Loaded:
    """What :func:`.load.load` found: a configuration, or everything that is wrong.

    ``missing`` names required values (``subject_id``) that nobody gave; they are no mistakes as long as somebody can be asked.
    ``unknown`` is what a dry run simulates because this version cannot do it.
    """

    configuration: Configuration | None
    mistakes: tuple[Mistake, ...] = ()
    missing: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    unknown: tuple[Mistake, ...] = ()
