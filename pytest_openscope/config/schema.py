"""Every key that means something, in one table: it drives validation, defaults, "did you mean" and the reference page.

Times are in seconds and sizes in GB unless the unit says otherwise. A key whose name has no unit carries the name that
existing parameter files use.
"""

from __future__ import annotations

from typing import Any

from .frozen import record

PHASE_NAMES = ("exception", "pre_acquisition", "post_acquisition")
PIPELINES = ("pre_acquisition_pipeline", "post_acquisition_pipeline")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
ON_FAILURE = ("continue", "abort", "prompt")


@record(frozen=True)
class Key:
    """One key.

    Attributes:
        name: as it stands in the file.
        kind: how :mod:`.coerce` reads it: id, text, path, integer, number, duration, flag, choice, mapping, list, texts,
            level, levels, command, any.
        doc: one sentence for the reference page.
        default: value when nobody gives one.
        unit: unit of numbers.
        choices: allowed texts.
        minimum, maximum: inclusive limits of numbers.
        field: name in Settings, where it differs from ``name``; "" when it is not there.
    """

    name: str
    kind: str
    doc: str
    default: Any = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    field: str | None = None

    @property
    def setting(self) -> str:
        """Name of the field in Settings, "" for none."""
        return self.name if self.field is None else self.field


def _seconds(name: str, default: float | None, doc: str, minimum: float = 0.0, **more: Any) -> Key:
    return Key(name, "duration", doc, default, "s", minimum=minimum, **more)


def _info(name: str, doc: str, kind: str = "any") -> Key:
    return Key(name, kind, doc, field="")


RIG_KEYS: tuple[Key, ...] = (
    Key("rig_id", "id", "name of the rig; the host's name when absent"),
    Key(
        "state_directory",
        "path",
        "what outlives sessions (lock, last answers, outbox); a folder of the user's state directory when absent",
        field="",
    ),
    Key("devices", "mapping", "the rig's devices, by name", field=""),
    Key("requirements", "mapping", "what the rig validation checks", field=""),
    Key("readiness", "mapping", "which validation results a session needs", field=""),
    Key("values", "mapping", "the lab's own values, never mistaken for misspelt keys", field=""),
    Key("parameters", "mapping", "defaults for parameters, the same as at the top level of the rig file", field=""),
)

PARAMETER_KEYS: tuple[Key, ...] = (
    _info("$schema", "informational; never fetched"),
    _info("module_schema", "informational; never fetched"),
    Key("launcher_version", "text", "PEP 440 specifier of the launcher whose format the file follows; checked against 0.2.57"),
    Key("launcher", "choice", "what runs the acquisition", "base", choices=("base", "python", "command", "bonsai", "matlab")),
    Key("subject_id", "id", "the subject; asked for when absent"),
    Key("user_id", "id", "who runs the session; asked for when absent"),
    Key(
        "output_root_folder",
        "path",
        "folder of the session folders; made where it is missing, with a notice where its parent is missing too",
        field="output_root",
    ),
    Key("session_uuid", "id", "the session's name, when it is given from outside"),
    Key("script_path", "path", "acquisition script or workflow; a relative one lies in the repository"),
    Key("script_parameters", "mapping", "name/value pairs for the acquisition", {}),
    Key("script_arguments", "texts", "further command-line arguments", ()),
    Key("command", "command", "program and arguments of the command launcher"),
    Key("python_exe_path", "path", "interpreter of the python launcher"),
    Key("python_venv_path", "path", "virtual environment of the python launcher"),
    Key("python_arguments", "texts", "arguments between script and script_arguments", ()),
    Key("bonsai_exe_path", "path", "Bonsai; a relative one lies in the repository"),
    Key("bonsai_setup_script", "path", "run once when Bonsai is not there yet; a relative one lies in the repository"),
    Key("bonsai_config_path", "path", "Bonsai's package list; a relative one lies in the repository"),
    Key("matlab_engine_name", "text", "name of the shared MATLAB engine"),
    Key("matlab_entrypoint", "text", "MATLAB function to call"),
    Key("matlab_function", "text", "older spelling of matlab_entrypoint"),
    Key("matlab_entrypoint_args", "list", "positional arguments", ()),
    Key("matlab_entrypoint_kwargs", "mapping", "name/value arguments", {}),
    Key("matlab_entrypoint_nargout", "integer", "number of outputs to ask for", 0, minimum=0),
    _seconds("matlab_engine_connect_timeout_sec", 120.0, "wait for the engine"),
    _seconds("matlab_engine_connect_poll_interval_sec", 1.0, "between two looks for the engine"),
    _seconds("matlab_cancel_timeout_sec", 30.0, "wait for MATLAB to stop"),
    Key("matlab_keep_engine_alive", "flag", "leave the engine running afterwards", True),
    Key("repository_url", "text", "git repository of the experiment's code"),
    Key("repository_commit_hash", "id", "commit, tag or branch to check out", "main"),
    Key("local_repository_path", "path", "folder that holds the repository's folder"),
    Key("pre_acquisition_pipeline", "list", "steps before the acquisition", (), field=""),
    Key("post_acquisition_pipeline", "list", "steps after the acquisition", (), field=""),
    _seconds("resource_log_interval", 5.0, "between two resource samples", 0.1),
    Key("centralized_log_directory", "path", r"central mirror of all session logs: a full path, \\server\logs or /mnt/logs"),
    Key("log_level", "level", "level of the session log", "INFO", choices=LEVELS),
    Key("log_levels", "levels", "levels of single loggers, by name", {}),
    Key("session_log", "path", "the session log, relative to the session folder", "launcher_metadata/launcher.log"),
    Key("acquisition_error_terminate", "flag", "stop the acquisition after output on stderr", False),
    _seconds("acquisition_error_grace_period_sec", 5.0, "from the first output on stderr to the stop"),
    _seconds("process_start_timeout_sec", None, "stop the acquisition when it prints nothing for this long after its start"),
    Key("acquisition_echo", "flag", "show the acquisition's output on the terminal too", False),
    _seconds("acquisition_timeout_s", None, "longest acquisition", 0.001),
    _seconds("session_timeout", None, "longest session", 0.001),
    Key("ask_notes", "flag", "ask the operator for notes at the end", True),
    Key("on_crash", "choice", "what happens to the acquisition when the session dies", "stop", choices=("stop", "leave")),
    _seconds("mirror_wait_s", 5.0, "longest wait for the mirror at the end of a session"),
    _seconds("mirror_finish_s", 600.0, "how long the helper process goes on mirroring after the session"),
    _seconds("report_wait_s", 5.0, "longest wait for a failure report at the end of a session"),
    Key("low_disk_gb", "number", "warn when the session's disk has less free", 5.0, "GB", minimum=0),
    Key("low_memory_percent", "number", "warn when more of the memory is in use", 95.0, "%", minimum=1, maximum=100),
    Key("show_locals", "flag", "keep local variables of failed functions in debug_state.json", False),
    _seconds("stop_graceful_s", 10.0, "from asking the acquisition to stop to terminating it"),
    _seconds("stop_terminate_s", 5.0, "from terminating to killing"),
    _seconds("stop_kill_s", 5.0, "wait for a killed process to vanish"),
    _seconds("grace_s", 10.0, "from a step's timeout to the kill of a session that does not come back"),
    Key("session_sync_role", "choice", "part in a session over several PCs", choices=("master", "slave")),
    Key("session_sync_mode", "choice", "older spelling of session_sync_role", choices=("master", "slave"), field=""),
    Key("session_sync_port", "integer", "TCP port of the master", minimum=1, maximum=65535),
    Key("session_sync_bind_host", "text", "address on which the master listens", "0.0.0.0"),
    Key("session_sync_expected_slaves", "integer", "number of slaves the master waits for", 1, minimum=0),
    Key("session_sync_master_host", "text", "the master's address"),
    _seconds("session_sync_retry_delay_sec", 1.0, "between two attempts to connect"),
    Key("session_sync_key_param", "text", "parameter whose value all PCs must share", "subject_id"),
    Key("session_sync_session_key", "id", "value that all PCs must share, instead of a parameter's"),
    Key("session_sync_session_name", "id", "session name that the master announces"),
    Key("session_sync_name_param", "text", "parameter that holds the session name", "session_uuid"),
    Key("session_sync_node_name", "id", "this PC's name; the host's when absent"),
    _seconds("session_sync_timeout_sec", 300.0, "longest wait for the other PCs"),
    _seconds("session_sync_ack_timeout_sec", 300.0, "longest wait for one message"),
    Key("session_sync_allow_bypass", "flag", "let the operator go on without the other PCs", True),
    Key("session_sync_bypass_prompt", "text", "the question asked then"),
    Key("github_issue", "mapping", "failure reports on GitHub"),
    _info("collect_mouse_runtime_data", "recorded"),
    _info("protocol_id", "recorded; a value or a list"),
    _info("mouse_platform_name", "recorded"),
    _info("active_mouse_platform", "recorded"),
)

GITHUB_KEYS: tuple[Key, ...] = (
    Key("enabled", "flag", "report failures", False),
    Key("repo", "text", "owner/name of the repository that gets the issues"),
    Key("token_env", "text", "environment variable that holds the access token", "GITHUB_ISSUE_TOKEN"),
    Key("labels", "texts", "labels of new issues; the first one finds them again", ("auto-report",)),
    Key("report_on", "texts", "which failures are reported", PHASE_NAMES, choices=PHASE_NAMES),
    Key("max_output_lines", "integer", "lines of log (mode tail) and of the acquisition's output", 80, minimum=0),
    Key("include_launcher_log", "flag", "put the session log into the issue", True),
    Key("launcher_log_mode", "choice", "all of the log or its end", "full", choices=("full", "tail")),
    Key("sanitize_launcher_log", "flag", "mask subject and user in the log too", False),
    Key("include_subject_user", "flag", "name subject and user", False),
    Key("include_rig_config", "flag", "add the rig configuration (secrets masked)", False),
    Key("api_base_url", "text", "address of the GitHub API", "https://api.github.com"),
    Key("max_body_chars", "integer", "longest issue text", 60_000, "characters", minimum=1000, maximum=65_536),
    Key("report_dry_runs", "flag", "report failures of dry runs too", False),
    Key("max_new_issues_per_day", "integer", "new issues of one rig in a day; the rest is summed up in one", 10, minimum=1),
    Key("max_comments_per_issue", "integer", "comments of one rig on one issue", 30, minimum=0),
    _seconds("timeout_s", 20.0, "longest attempt to send one report", 1.0),
    _seconds("report_wait_s", None, "the same as report_wait_s outside of the block, above it"),
)

DEVICE_KEYS: tuple[Key, ...] = (
    Key("driver", "text", "import path module:Class, or a ready-made driver: serial, visa, zmq, http, subprocess"),
    Key("params", "mapping", "arguments of the driver", {}),
    Key("mock", "any", "what takes the driver's place in a dry run: module:Class, a file or a mapping"),
    Key(
        "open", "choice", "when it is opened: before pre-acquisition or when first asked for", "lazy", choices=("lazy", "eager")
    ),
    Key("open_method", "text", "the driver's method that connects, where it is not the usual one; none for nothing to call"),
    Key("close_method", "text", "the driver's method that disconnects; none for nothing to call"),
    Key("open_in_main_thread", "flag", "open unwatched, for libraries that are bound to a thread", False),
    _seconds("open_timeout_s", 30.0, "longest opening", 0.001),
    _seconds("close_timeout_s", 10.0, "longest closing", 0.001),
    _seconds("check_timeout_s", 10.0, "longest check", 0.001),
    _seconds("safe_state_timeout_s", 10.0, "longest safe_state", 0.001),
    _seconds("call_timeout_s", None, "longest call of another method; none: the step's own time counts", 0.001),
    Key("safe_state", "any", "call that makes the device safe: {call: output, args: [false]}"),
    Key("safe_state_command", "command", "command line that makes the device safe when the session has died"),
    Key("log_io", "flag", "log what the device was told and answered", False),
    Key("returns", "mapping", "answers in a dry run, by method", {}),
    Key("description", "text", "for people"),
    Key("resource", "text", "visa: resource name"),
    Key("port", "any", "serial port or TCP port"),
    Key("baud", "integer", "serial: bits per second", unit="baud", minimum=1),
    Key("url", "text", "http and zmq: address"),
    Key("host", "text", "address of the device"),
    Key("command", "command", "subprocess: program and arguments"),
)

REQUIREMENTS_KEYS: tuple[Key, ...] = (
    Key("free_gb", "number", "free space on the output disk", None, "GB", minimum=0),
    Key("write_mb_per_s", "number", "write speed of the output disk", None, "MB/s", minimum=0),
    Key("fsync_ms", "number", "longest sync of a small file", None, "ms", minimum=0),
    Key("mirror_latency_ms", "number", "longest small write on the mirror", None, "ms", minimum=0),
    Key("clock_skew_s", "number", "largest difference to the mirror's clock", None, "s", minimum=0),
    Key("clock_synchronised", "flag", "the clock must be synchronised", None),
    Key("executables", "texts", "programs that must be there: names or paths", ()),
    Key("repositories", "texts", "folders that must be git repositories", ()),
    Key("serial_ports", "texts", "serial ports that must be there", ()),
    Key("tcp_ports", "list", "TCP ports that must be free", ()),
    Key("no_processes", "texts", "names of programs that must not be running", ()),
    Key("packages_lock", "path", "file with the exact package versions, relative to the rig file"),
    Key("memory_gb", "number", "free memory", None, "GB", minimum=0),
    Key("python", "text", "PEP 440 specifier of the Python version"),
    Key("environment", "texts", "environment variables that must be set", ()),
    _seconds("timeout_s", 20.0, "longest wait for an answer of the output disk, the mirror or GitHub", 0.1),
)

READINESS_KEYS: tuple[Key, ...] = (
    Key("require", "texts", "checks, or groups of them, that must have passed", ()),
    _seconds("max_age", 86_400.0, "oldest result that counts: a number of seconds or 24h, 7d"),
    Key("on_stale", "choice", "what a stale or failed validation does to a session", "refuse", choices=("refuse", "warn")),
)

ENTRY_KEYS: tuple[Key, ...] = (
    Key(
        "module_type",
        "choice",
        "launcher_module (ready-made) or script_module (a Python file of the repository)",
        "launcher_module",
        choices=("launcher_module", "script_module"),
    ),
    Key("module_path", "text", "name of the ready-made module, or path of the file"),
    Key("module_parameters", "mapping", "merged over the parameters for this step alone", {}),
    Key("on_failure", "choice", "what a failure of the step does to the steps after it", "continue", choices=ON_FAILURE),
    Key("failure_policy", "choice", "older spelling of on_failure", choices=ON_FAILURE),
    Key("fail_policy", "choice", "older spelling of on_failure", choices=ON_FAILURE),
    Key("fail_action", "choice", "older spelling of on_failure", choices=ON_FAILURE),
    Key("abort_on_fail", "flag", "true means on_failure: abort, whatever else is said"),
    _seconds("timeout_s", None, "longest run of the step", 0.001),
    Key("attempts", "integer", "how often the step is tried; the last attempt decides", 1, minimum=1, maximum=100),
    _seconds("retry_delay_s", 0.0, "between two attempts"),
    Key("function", "text", "function of a script module"),
    Key("function_args", "mapping", "keyword arguments of the function"),
    Key("type", "choice", "older files: repo_module", choices=("repo_module", "script_module", "launcher_module")),
    Key("repo_relative_path", "path", "older files: path of the file in the repository"),
    Key("kwargs", "mapping", "older files: keyword arguments of the function"),
    Key("name", "text", "the step's name, when the module's own will not do"),
)

TOP = {key.name: key for key in (*RIG_KEYS, *PARAMETER_KEYS)}
PARAMETERS = {key.name: key for key in PARAMETER_KEYS}
#: ``github_issue_on_error`` stands for ``enabled``; the other flat keys are ``github_issue_<option>``.
FLAT_GITHUB = {"github_issue_on_error": "enabled", **{f"github_issue_{key.name}": key.name for key in GITHUB_KEYS}}
KNOWN_PARAMETERS = (*PARAMETERS, *FLAT_GITHUB)
KNOWN_IN_RIG = (*TOP, *FLAT_GITHUB)
