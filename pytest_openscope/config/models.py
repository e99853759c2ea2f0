"""Every key of rig files and parameter files: type, default, unit, limits, meaning. All else is made from these models.

Times are in seconds and sizes in GB unless the unit says otherwise. A key whose name has no unit carries the name that
existing parameter files use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, cast

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator
from typing_extensions import TypeVar

from .. import LAUNCHER_FORMAT_VERSION
from ..log import mask_text
from ..records import Phase, is_folder_name, name_problem, session_name
from .fields import (
    AS_TEXTS,
    CHOICE,
    Command,
    Flag,
    Id,
    Integer,
    Kind,
    Level,
    Levels,
    List,
    Number,
    PathText,
    References,
    Seconds,
    Section,
    Text,
    Texts,
    Unfit,
    Values,
    Wrong,
    did_you_mean,
    has_placeholder,
    key,
    keys_of,
    seconds,
    show,
    validate,
)

PIPELINES = ("pre_acquisition_pipeline", "post_acquisition_pipeline")
#: GitHub's limit; its lists are filtered by labels with commas between them.
_LABEL_CHARS = 50
#: GitHub answers 422 to a longer body.
GITHUB_BODY_CHARS = 65_536

Policy = Literal["continue", "abort", "prompt"]
PhaseName = Literal["exception", "pre_acquisition", "post_acquisition"]


def _server_address(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^\s/?#@]+(?:/[^\s?#@]*)?", value):
        problem = f"{show(mask_text(value))} is no address of a server without user and password"
        raise Wrong(problem, "write e.g. http://collector:4318 or https://github.example.org/api/v3")
    return value.rstrip("/")


def _name_of_a_variable(value: str) -> str:
    if not value.replace("_", "a").isalnum() or mask_text(value) != value:
        raise Wrong("is no name of an environment variable", "give the variable's name, not the token that it holds")
    return value


Address = Annotated[Text, AfterValidator(_server_address)]
Variable = Annotated[Text, AfterValidator(_name_of_a_variable)]


class GithubIssueSettings(Section):
    """The ``github_issue`` block; the token itself is never here, only the name of its environment variable."""

    enabled: Flag = key(False, "report failures")
    repo: Text = key("", "owner/name of the repository that gets the issues")
    token_env: Variable = key("GITHUB_ISSUE_TOKEN", "environment variable that holds the access token")
    labels: Texts = key(("auto-report",), "labels of new issues; the first one finds them again")
    report_on: Annotated[tuple[PhaseName, ...], AS_TEXTS] = key(
        ("exception", "pre_acquisition", "post_acquisition"), "which failures are reported"
    )
    max_output_lines: Integer = key(80, "lines of log (mode tail) and of the acquisition's output", minimum=0)
    include_launcher_log: Flag = key(True, "put the session log into the issue")
    launcher_log_mode: Annotated[Literal["full", "tail"], CHOICE] = key("full", "all of the log or its end")
    sanitize_launcher_log: Flag = key(False, "mask subject and user in the log too")
    include_subject_user: Flag = key(False, "name subject and user")
    include_rig_config: Flag = key(False, "add the rig configuration (secrets masked)")
    api_base_url: Address = key("https://api.github.com", "address of the GitHub API")
    max_body_chars: Integer = key(60_000, "longest issue text", "characters", 1000, GITHUB_BODY_CHARS)
    report_dry_runs: Flag = key(False, "report failures of dry runs too")
    max_new_issues_per_day: Integer = key(10, "new issues of one rig in a day; the rest is summed up in one", minimum=1)
    max_comments_per_issue: Integer = key(30, "comments of one rig on one issue", minimum=0)
    timeout_s: Seconds = seconds(20.0, "longest attempt to send one report", 1.0)
    report_wait_s: Seconds | None = seconds(
        None, "overrides the parameter report_wait_s, whose default counts where this is not given"
    )

    @field_validator("repo")
    @classmethod
    def _owner_and_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"[\w.\-]+/[\w.\-]+", value):
            raise Wrong(f"{show(value)} is no owner/name", "write e.g. my-lab/my-experiments")
        return value

    @field_validator("labels")
    @classmethod
    def _labels_to_find_again(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for label in value:
            if not (0 < len(label.strip()) <= _LABEL_CHARS and "," not in label):
                problem = f"{show(label)} is no label that GitHub can find again"
                raise Wrong(problem, f"use 1 to {_LABEL_CHARS} characters and no comma")
        return value

    @classmethod
    def of(cls, settings: GithubIssueSettings | Mapping[str, Any]) -> GithubIssueSettings:
        """Return settings as they are, or from their JSON form, in which another version may have written other keys."""
        return settings if isinstance(settings, GithubIssueSettings) else validate(cls, settings)[0]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; there is no secret in them."""
        return self.model_dump(mode="json")

    @property
    def body_chars(self) -> int:
        """``max_body_chars``, with room for the line on occurrences that is filled in when a report is sent."""
        return min(self.max_body_chars, GITHUB_BODY_CHARS - 536)


class OtelSettings(Section):
    """The ``otel`` block; what a collector asks for as a password is never here, only the name of its environment variable."""

    endpoint: Address = key("", "address of the collector; /v1/logs, /v1/traces and /v1/metrics are added")
    headers_env: Variable = key(
        "OTEL_EXPORTER_OTLP_HEADERS", "environment variable that holds the request's headers: name=value,name=value"
    )
    signals: Annotated[tuple[Literal["logs", "traces", "metrics"], ...], AS_TEXTS] = key(
        ("logs", "traces", "metrics"), "what is sent: log records, steps as spans, resource samples"
    )
    include_subject_user: Flag = key(False, "name subject and user")
    dry_runs: Flag = key(False, "send what dry runs write too")
    timeout_s: Seconds = seconds(10.0, "longest attempt to send one batch", 0.1)
    finish_s: Seconds = seconds(60.0, "how long the helper process goes on sending after the session")


def _read_addresses(value: Any) -> tuple[str, ...]:
    """Read the addresses of people; no message repeats one, since each holds what gives access."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise Wrong("is no list of addresses", "write a list, e.g. [$ALERT_URL] or ['mailto://…', 'slack://…']")
    for number, item in enumerate(items, 1):
        if not isinstance(item, str) or not re.match(r"[\w+.\-]+://.", item):
            problem = f"address number {number} does not begin with mailto://, slack:// or the like"
            raise Wrong(problem, "correct it, or set the environment variable that it names")
    return tuple(items)


Addresses = Annotated[
    tuple[str, ...],
    BeforeValidator(_read_addresses),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}),
    Kind("texts", "list of addresses"),
]


class AlertSettings(Section):
    """The ``alerts`` block. The addresses are secrets: they are in no file of the session and no message shows one."""

    to: Addresses = key((), "addresses as apprise writes them; secret, so that `$NAME` of an environment variable is best")
    on: Annotated[tuple[Literal["failed", "crashed", "waiting"], ...], AS_TEXTS] = key(
        ("failed", "crashed", "waiting"),
        "when: the session failed, its process or the computer died, a question waits for an answer",
    )
    after_s: Seconds = seconds(600.0, "how long a question waits before people are told", 0.1)
    include_subject_user: Flag = key(False, "name subject and user")
    dry_runs: Flag = key(False, "tell of dry runs too")


#: Entry point group of packages that bring further kinds of acquisition.
ADAPTERS = "pytest_openscope.acquisition"
LAUNCHERS = ("base", "python", "command", "bonsai", "matlab")


def _read_launcher(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit(f"one of {', '.join(LAUNCHERS)}", "write one of them")
    kind = value.strip().lower()
    if kind not in LAUNCHERS:
        known = (*LAUNCHERS, *sorted(point.name for point in entry_points(group=ADAPTERS)))
        if kind not in (name.lower() for name in known):
            raise Wrong(f"{show(value)} is none of {', '.join(known)}", did_you_mean(kind, known) or "use one of them")
    return kind


def _check_name(value: Any, name: str) -> None:
    if not has_placeholder(name) and (problem := name_problem(name)):
        raise Wrong(f"{show(value)} {problem}", "give a shorter one in plain letters")


Launcher = Annotated[
    str,
    BeforeValidator(_read_launcher),
    WithJsonSchema({"anyOf": [{"enum": list(LAUNCHERS)}, {"type": "string"}]}),
    Kind("choice", ", ".join(f"`{name}`" for name in LAUNCHERS) + ", or what an installed adapter is called"),
]


class Settings(Section):
    """The parameters that mean something to this plugin, typed.

    ``rig_id``, ``output_root`` (the folder of the session folders on this computer) and ``github_issue`` are worked out from
    several keys when the configuration is loaded.
    """

    rig_id: str = Field("", exclude=True)
    output_root: Path = Field(Path(), exclude=True)

    schema_: Any = Field(None, alias="$schema", description="JSON Schema of the file, for editors; never fetched")
    module_schema: Any = key(None, "informational; never fetched")
    launcher_version: Text | None = key(
        None, "PEP 440 specifier of the launcher whose format the file follows; checked against 0.2.57"
    )
    launcher: Launcher = key("base", "what runs the acquisition")
    subject_id: Id | None = key(None, "the subject; asked for when absent")
    user_id: Id | None = key(None, "who runs the session; asked for when absent")
    output_root_folder: PathText | None = key(
        None, "folder of the session folders; made where it is missing, with a notice where its parent is missing too"
    )
    session_uuid: Id | None = key(None, "the session's name, when it is given from outside")
    rerun_of: Text | None = key(None, "the session that this one repeats; openscope rerun sets it")
    script_path: PathText | None = key(None, "acquisition script or workflow; a relative one lies in the repository")
    script_parameters: Values = key({}, "name/value pairs for the acquisition")
    script_arguments: Texts = key((), "further command-line arguments")
    command: Command | None = key(None, "program and arguments of the command launcher")
    python_exe_path: PathText | None = key(None, "interpreter of the python launcher")
    python_venv_path: PathText | None = key(None, "virtual environment of the python launcher")
    python_arguments: Texts = key((), "arguments between script and script_arguments")
    bonsai_exe_path: PathText | None = key(None, "Bonsai; a relative one lies in the repository")
    bonsai_setup_script: PathText | None = key(
        None, "run once when Bonsai is not there yet; a relative one lies in the repository"
    )
    bonsai_config_path: PathText | None = key(None, "Bonsai's package list; a relative one lies in the repository")
    bonsai_setup_timeout_s: Seconds = seconds(1800.0, "longest run of bonsai_setup_script", 0.1)
    bonsai_package_mismatch: Annotated[Literal["warn", "fail"], CHOICE] = key(
        "warn", "what packages do that are not those of Bonsai's package list"
    )
    bonsai_check_workflow: Flag = key(True, "read the workflow before the session starts, and tell of its faults")
    bonsai_check_outputs: Flag = key(True, "fail the acquisition when a file that the workflow declares is missing or empty")
    bonsai_fail_on_stderr: Flag = key(True, "output of Bonsai on stderr fails the acquisition when it has ended")
    bonsai_acceptable_exit_codes: List = key((), "exit codes of Bonsai that count as good, beside 0")
    bonsai_retry_error_patterns: Texts = key((), "regular expressions; a line of Bonsai's output that matches is a fatal error")
    bonsai_max_retries: Integer | None = key(
        None, "how often a failed workflow may be run again; without it, as often as the operator says"
    )
    bonsai_retry_delay_sec: Seconds = seconds(0.0, "before a workflow is run again")
    bonsai_failure_default: Annotated[Literal["retry", "proceed", "abort"], CHOICE] | None = key(
        None, "what a failed workflow leads to when the operator only presses Enter, or is not there; retry when it is absent"
    )
    bonsai_continue_on_failure: Flag = key(False, "older spelling of bonsai_failure_default: proceed")
    matlab_engine: Annotated[Literal["matlab", "octave"], CHOICE] = key(
        "matlab", "what runs the MATLAB code: a shared MATLAB, or GNU Octave"
    )
    matlab_engine_name: Text = key("slap2_launcher", "name of the shared MATLAB engine")
    octave_exe_path: PathText | None = key(None, "GNU Octave's octave-cli; default the one on PATH")
    matlab_path: Texts = key((), "folders to put on MATLAB's search path; relative ones lie in the repository")
    matlab_entrypoint: Text | None = key(None, "MATLAB function to call; default the stem of script_path, else slap2_launcher")
    matlab_function: Text | None = key(None, "older spelling of matlab_entrypoint")
    matlab_entrypoint_args: List = key((), "positional arguments")
    matlab_entrypoint_kwargs: Values = key({}, "name/value arguments")
    matlab_entrypoint_nargout: Integer = key(0, "number of outputs to ask for", minimum=0)
    matlab_pass_session_folder: Flag = key(True, "the session folder is one of the arguments")
    matlab_session_folder_position: Id | None = key(
        None,
        "where it stands among matlab_entrypoint_args: prepend, append, ignore or a number; default prepend for slap2_launcher,"
        " else append",
    )
    matlab_enable_resume: Flag = key(True, "offer to resume the acquisition when MATLAB has died")
    matlab_resume_keyword: Text = key("resume", "name of the argument that tells a resumed run so")
    matlab_engine_connect_timeout_sec: Seconds = seconds(120.0, "wait for the engine")
    matlab_engine_connect_poll_interval_sec: Seconds = seconds(1.0, "between two looks for the engine")
    matlab_cancel_timeout_sec: Seconds = seconds(30.0, "wait for MATLAB to stop")
    matlab_keep_engine_alive: Flag = key(True, "leave the engine running afterwards")
    repository_url: Text | None = key(None, "git repository of the experiment's code")
    repository_commit_hash: Id = key("main", "commit, tag or branch to check out")
    local_repository_path: PathText | None = key(None, "folder that holds the repository's folder")
    repository_timeout_s: Seconds = seconds(600.0, "longest clone, fetch or checkout of the repository", 0.1)
    pre_acquisition_pipeline: List = key((), "steps before the acquisition")
    post_acquisition_pipeline: List = key((), "steps after the acquisition")
    parameters_model: Text | None = key(
        None, "the lab's pydantic model of its own parameters, module:Class; experiment.parameters is then one of it"
    )
    resource_log_interval: Seconds = seconds(5.0, "between two resource samples", 0.1)
    centralized_log_directory: PathText | None = key(
        None, r"central mirror of all session logs: a full path, \\server\logs or /mnt/logs"
    )
    log_level: Level = key("INFO", "level of the session log")
    log_levels: Levels = key({}, "levels of single loggers, by name")
    session_log: PathText = key("launcher_metadata/launcher.log", "the session log, relative to the session folder")
    acquisition_error_terminate: Flag = key(False, "stop the acquisition after output on stderr")
    acquisition_error_grace_period_sec: Seconds = seconds(5.0, "from the first output on stderr to the stop")
    acquisitions: List = key((), "several acquisitions at once, each with the keys that differ from those above it")
    acquisition_stop_order: Texts = key(
        (), "names of acquisitions, the first to be stopped first; those not named follow, the last started first"
    )
    process_start_timeout_sec: Seconds | None = seconds(
        None, "stop the acquisition when it prints nothing for this long after its start"
    )
    acquisition_echo: Flag = key(False, "show the acquisition's output on the terminal too")
    acquisition_timeout_s: Seconds | None = seconds(None, "longest acquisition", 0.001)
    session_timeout: Seconds | None = seconds(None, "longest session", 0.001)
    ask_notes: Flag = key(True, "ask the operator for notes at the end")
    on_crash: Annotated[Literal["stop", "leave"], CHOICE] = key("stop", "what happens to the acquisition when the session dies")
    after_crash: Annotated[Literal["post_acquisition", "nothing"], CHOICE] = key(
        "post_acquisition", "what is made up for when the session's process has died: steps of post-acquisition not reached"
    )
    mirror_wait_s: Seconds = seconds(5.0, "longest wait for the mirror at the end of a session")
    mirror_finish_s: Seconds = seconds(600.0, "how long the helper process goes on mirroring after the session")
    report_wait_s: Seconds = seconds(5.0, "longest wait for a failure report at the end of a session")
    low_disk_gb: Number = key(5.0, "warn when the session's disk has less free", "GB", 0)
    low_memory_percent: Number = key(95.0, "warn when more of the memory is in use", "%", 1, 100)
    session_report: Flag = key(True, "make session_report.html at the end, where the extra `report` is installed")
    show_locals: Flag = key(False, "keep local variables of failed functions in debug_state.json")
    stop_graceful_s: Seconds = seconds(10.0, "from asking the acquisition to stop to terminating it")
    stop_terminate_s: Seconds = seconds(5.0, "from terminating to killing")
    stop_kill_s: Seconds = seconds(5.0, "wait for a killed process to vanish")
    grace_s: Seconds = seconds(10.0, "from a step's timeout to the kill of a session that does not come back")
    session_sync_role: Annotated[Literal["master", "slave"], CHOICE] | None = key(None, "part in a session over several PCs")
    session_sync_mode: Annotated[Literal["master", "slave"], CHOICE] | None = key(None, "older spelling of session_sync_role")
    session_sync_port: Integer | None = key(None, "TCP port of the master", minimum=1, maximum=65535)
    session_sync_bind_host: Text = key("0.0.0.0", "address on which the master listens")
    session_sync_expected_slaves: Integer = key(1, "number of slaves the master waits for", minimum=0)
    session_sync_master_host: Text | None = key(None, "the master's address")
    session_sync_retry_delay_sec: Seconds = seconds(1.0, "between two attempts to connect", 0.01)
    session_sync_key_param: Text = key("subject_id", "parameter whose value all PCs must share")
    session_sync_session_key: Id | None = key(None, "value that all PCs must share, instead of a parameter's")
    session_sync_session_name: Id | None = key(None, "session name that the master announces")
    session_sync_name_param: Text = key("session_uuid", "parameter that holds the session name")
    session_sync_node_name: Id | None = key(None, "this PC's name; the host's when absent")
    session_sync_timeout_sec: Seconds = seconds(
        300.0, "longest wait for the other PCs, at the start and before the acquisition", 0.1
    )
    session_sync_ack_timeout_sec: Seconds = seconds(300.0, "longest wait for one message", 0.1)
    session_sync_allow_bypass: Flag = key(True, "let the operator go on without the other PCs")
    session_sync_bypass_prompt: Text | None = key(None, "the question asked then; {role} stands for the role, b bypasses")
    session_sync_on_failure: Annotated[Literal["stop", "continue"], CHOICE] = key(
        "stop", "what this PC does when another one fails, is stopped or is lost, before its own acquisition has ended"
    )
    session_sync_silence_sec: Seconds = seconds(30.0, "after so long without a sign of life another PC counts as silent", 0.1)
    session_sync_end_wait_sec: Seconds = seconds(60.0, "longest wait at the end for the other PCs' outcomes")
    github_issue: GithubIssueSettings | None = key(None, "failure reports on GitHub")
    otel: OtelSettings | None = key(None, "records, steps and resource samples for an OpenTelemetry collector (extra `otel`)")
    alerts: AlertSettings | None = key(None, "messages to people: mail, Slack and others (extra `alerts`)")
    metadata_service_base_url: Text | None = key(None, "address of the metadata service, for the steps that ask it")
    metadata_api_base_url: Text | None = key(None, "older spelling of metadata_service_base_url")
    metadata_service_timeout: Seconds = seconds(10.0, "longest wait for one answer of the metadata service", 0.001)
    collect_mouse_runtime_data: Any = key(None, "recorded")
    protocol_id: Any = key(None, "recorded; a value or a list")
    mouse_platform_name: Any = key(None, "recorded")
    active_mouse_platform: Any = key(None, "recorded")

    @field_validator("subject_id", "user_id", "session_uuid")
    @classmethod
    def _empty_is_absent(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("subject_id")
    @classmethod
    def _names_a_folder(cls, value: str | None) -> str | None:
        if value:
            _check_name(value, session_name(value, datetime.now()))
        return value

    @field_validator("session_uuid")
    @classmethod
    def _is_a_folder(cls, value: str | None) -> str | None:
        if value and not has_placeholder(value) and not is_folder_name(value):
            remedy = 'leave out < > : " / \\ | ? * and a dot at the end, and names that Windows keeps for itself (CON, COM1)'
            raise Wrong(f"{show(value)} is no folder name", remedy)
        _check_name(value, value or "")
        return value

    @field_validator("session_log")
    @classmethod
    def _inside_the_session_folder(cls, value: str) -> str:
        parts = value.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or ":" in value or not parts[-1].strip():
            raise Wrong(f"{show(value)} is no file inside the session folder", "give a relative path, e.g. logs/session.log")
        for part in parts:
            _check_name(value, part)
        return value

    @field_validator("launcher_version")
    @classmethod
    def _includes_our_format(cls, value: str | None) -> str | None:
        try:
            fits = not value or SpecifierSet(value).contains(LAUNCHER_FORMAT_VERSION, prereleases=True)
        except InvalidSpecifier:
            raise Wrong(f"{show(value)} is no version specifier", "write e.g. '>=0.2,<0.3'") from None
        if not fits:
            problem = f"{show(value)} excludes {LAUNCHER_FORMAT_VERSION}, whose format this version implements"
            raise Wrong(problem, "check that the file means the same here, then widen the specifier")
        return value


class AcquisitionEntry(Settings):
    """One of several acquisitions: any key of the acquisition, and these."""

    name: Text | None = key(None, "what it is called in logs, file names and acquisition_stop_order")
    background: Flag = key(False, "it runs as long as the others, and is then stopped; its own earlier end is a failure")


class Device(Section):
    """One device of a rig."""

    driver: Text | None = key(None, "import path module:Class, or a ready-made driver: serial, visa, zmq, http, subprocess")
    params: Values = key({}, "arguments of the driver")
    mock: Any = key(None, "what takes the driver's place in a dry run: module:Class, a file or a mapping")
    open: Annotated[Literal["lazy", "eager"], CHOICE] = key(
        "lazy", "when it is opened: before pre-acquisition or when first asked for"
    )
    open_method: Text | None = key(
        None, "the driver's method that connects, where it is not the usual one; none for nothing to call"
    )
    close_method: Text | None = key(None, "the driver's method that disconnects; none for nothing to call")
    open_in_main_thread: Flag = key(False, "open unwatched, for libraries that are bound to a thread")
    open_timeout_s: Seconds = seconds(30.0, "longest opening", 0.001)
    close_timeout_s: Seconds = seconds(10.0, "longest closing", 0.001)
    check_timeout_s: Seconds = seconds(10.0, "longest check", 0.001)
    safe_state_timeout_s: Seconds = seconds(10.0, "longest safe_state", 0.001)
    call_timeout_s: Seconds | None = seconds(None, "longest call of another method; none: the step's own time counts", 0.001)
    safe_state: Any = key(None, "call that makes the device safe: {call: output, args: [false]}")
    safe_state_command: Command | None = key(None, "command line that makes the device safe when the session has died")
    log_io: Flag = key(False, "log what the device was told and answered")
    returns: Values = key({}, "answers in a dry run, by method")
    description: Text | None = key(None, "for people")
    resource: Text | None = key(None, "visa: resource name")
    port: Any = key(None, "serial port or TCP port")
    baud: Integer | None = key(None, "serial: bits per second", "baud", 1)
    url: Text | None = key(None, "http and zmq: address")
    host: Text | None = key(None, "address of the device")
    command: Command | None = key(None, "subprocess: program and arguments")


class Requirements(Section):
    """What the rig validation checks; a key that is absent is not checked."""

    model_config = ConfigDict(extra="forbid")

    free_gb: Number | None = key(None, "free space on the output disk", "GB", 0)
    write_mb_per_s: Number | None = key(None, "write speed of the output disk", "MB/s", 0)
    fsync_ms: Number | None = key(None, "longest sync of a small file", "ms", 0)
    mirror_latency_ms: Number | None = key(None, "longest small write on the mirror", "ms", 0)
    clock_skew_s: Number | None = key(None, "largest difference to the mirror's clock", "s", 0)
    clock_synchronised: Flag | None = key(None, "the clock must be synchronised")
    executables: Texts = key((), "programs that must be there: names or paths")
    repositories: Texts = key((), "folders that must be git repositories")
    serial_ports: Texts = key((), "serial ports that must be there")
    tcp_ports: List = key((), "TCP ports that must be free")
    no_processes: Texts = key((), "names of programs that must not be running")
    packages_lock: PathText | None = key(None, "file with the exact package versions, relative to the rig file")
    memory_gb: Number | None = key(None, "free memory", "GB", 0)
    python: Text | None = key(None, "PEP 440 specifier of the Python version")
    environment: Texts = key((), "environment variables that must be set")
    timeout_s: Seconds = seconds(20.0, "longest wait for an answer of the output disk, the mirror or GitHub", 0.1)


class Readiness(Section):
    """Which validation results a session needs."""

    model_config = ConfigDict(extra="forbid")

    require: Texts = key((), "checks, or groups of them, that must have passed")
    max_age: Seconds = seconds(86_400.0, "oldest result that counts: a number of seconds or 24h, 7d")
    on_stale: Annotated[Literal["refuse", "warn"], CHOICE] = key(
        "refuse", "what a stale or failed validation does to a session"
    )


class RigFile(Section):
    """The keys that belong to a rig file alone; it may hold parameters too, as defaults."""

    rig_id: Id | None = key(None, "name of the rig; the host's name when absent")
    state_directory: PathText | None = key(
        None, "what outlives sessions (lock, last answers, outbox); a folder of the user's state directory when absent"
    )
    devices: Values = key({}, "the rig's devices, by name")
    requirements: Values = key({}, "what the rig validation checks")
    readiness: Values = key({}, "which validation results a session needs")
    modules: References = key(
        {}, "the rig's own ready-made steps, by name: package.module:function, or the path of a Python file; they come first"
    )
    values: Values = key({}, "the lab's own values, never mistaken for misspelt keys")
    rig_model: Text | None = key(None, "the lab's pydantic model of 'values', module:Class; rig.values is then one of it")
    parameters: Values = key({}, "defaults for parameters, the same as at the top level of the rig file")

    @field_validator("rig_id")
    @classmethod
    def _not_empty(cls, value: str | None) -> str | None:
        if value == "":
            raise Wrong("is empty", "give a name, or remove the key: the host's name is used then")
        return value


class PipelineEntry(Section):
    """One entry of a pipeline, as a parameter file writes it."""

    # As pipelines.read_pipelines returns it, the name is there, unique within its phase (``disk_space_check[2]``), ``where``
    # is ``day1.json: pre_acquisition_pipeline[0]``, and what older spellings say stands under today's keys.
    phase: Phase = Field(Phase.PRE_ACQUISITION, exclude=True)
    where: str = Field("", exclude=True)

    module_type: Annotated[Literal["launcher_module", "script_module"], CHOICE] = key(
        "launcher_module", "launcher_module (ready-made) or script_module (a Python file of the repository)"
    )
    module_path: Text = key(None, "name of the ready-made module, or path of the file")
    module_parameters: Values = key({}, "merged over the parameters for this step alone")
    on_failure: Annotated[Policy, CHOICE] = key("continue", "what a failure of the step does to the steps after it")
    failure_policy: Annotated[Policy, CHOICE] | None = key(None, "older spelling of on_failure")
    fail_policy: Annotated[Policy, CHOICE] | None = key(None, "older spelling of on_failure")
    fail_action: Annotated[Policy, CHOICE] | None = key(None, "older spelling of on_failure")
    abort_on_fail: Flag | None = key(None, "true means on_failure: abort, whatever else is said")
    timeout_s: Seconds | None = seconds(None, "longest run of the step", 0.001)
    attempts: Integer = key(1, "how often the step is tried; the last attempt decides", minimum=1, maximum=100)
    retry_delay_s: Seconds = seconds(0.0, "between two attempts")
    function: Text | None = key(None, "function of a script module")
    function_args: Values | None = key(None, "keyword arguments of the function")
    type: Annotated[Literal["repo_module", "script_module", "launcher_module"], CHOICE] | None = key(
        None, "older files: repo_module"
    )
    repo_relative_path: PathText | None = key(None, "older files: path of the file in the repository")
    kwargs: Values | None = key(None, "older files: keyword arguments of the function")
    name: Text = key(None, "the step's name, when the module's own will not do")


PARAMETERS = keys_of(Settings)
#: Keys that each of several acquisitions may have for itself.
_OF_ONE = (
    r"launcher|command|name|background|process_start_timeout_sec|acquisition_(timeout_s|error_.+|echo)"
    r"|(script|python|bonsai|matlab|octave|stop)_.+"
)
ACQUISITION_KEYS = tuple(name for name in keys_of(AcquisitionEntry) if re.fullmatch(_OF_ONE, name))
RIG_KEYS = keys_of(RigFile)
#: ``github_issue_on_error`` stands for ``enabled``; the other flat keys are ``github_issue_<option>``.
FLAT_GITHUB = {
    "github_issue_on_error": "enabled",
    **{f"github_issue_{name}": name for name in keys_of(GithubIssueSettings)},
}
KNOWN_PARAMETERS = (*PARAMETERS, *FLAT_GITHUB)
KNOWN_IN_RIG = (*RIG_KEYS, *KNOWN_PARAMETERS)


def look_up(mapping: Mapping[str, Any], name: str) -> Any:
    """Return the value at a key, dotted or with dots of its own; numbers reach into lists.

    Raises:
        KeyError: there is none.
    """
    if name in mapping:
        return mapping[name]
    parts = name.split(".")
    for size in range(1, len(parts)):
        inner = mapping.get(".".join(parts[:size]))
        if isinstance(inner, list):
            inner = {str(index): item for index, item in enumerate(inner)}
        if isinstance(inner, Mapping):
            with suppress(KeyError):
                return look_up(inner, ".".join(parts[size:]))
    raise KeyError(name)


ValuesT = TypeVar("ValuesT", default=Any)


@dataclass(frozen=True, eq=False)
class Rig(Mapping[str, Any], Generic[ValuesT]):
    """The rig. As a mapping it holds the lab's own values: ``rig["COM_port"]``, ``rig["camera.exposure_time"]``.

    With ``rig_model`` in the rig file, ``rig.values`` is the lab's own model; annotate ``rig: Rig[MyModel]`` to have it typed.

    Attributes:
        rig_id: the rig's name.
        path: the rig file.
        output_root_folder: as the rig file has it; a session may override it.
        state_directory: what belongs to the rig and outlives sessions; nothing has created it yet.
        devices: name to options, as written, checked for misspelt keys.
        requirements, readiness: the blocks as written.
        modules: the rig's own ready-made steps: name to ``package.module:function``, or the path of a Python file.
        values_: the lab's own values, as written.
        model: the lab's own values as its model has them; None without ``rig_model``.
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
    modules: Mapping[str, str] = field(default_factory=dict)
    values_: Mapping[str, Any] = field(default_factory=dict)
    model: BaseModel | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> ValuesT:  # type: ignore[override]
        """The lab's own values as its model has them; without a model the method of every mapping."""
        return cast("ValuesT", self.model if self.model is not None else super().values)

    def __getitem__(self, name: str) -> Any:
        try:
            return look_up({**self.raw, "rig_id": self.rig_id, **self.values_}, name)
        except KeyError:
            raise KeyError(f"{name!r} is not in {self.path.name}; it has: {', '.join(self.values_) or 'no values'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Rig({self.rig_id!r}, {self.path.name!r}, values: {', '.join(self.values_) or 'none'})"
