"""The operating system: processes, locks, files, signals."""

from __future__ import annotations

from .command_lines import command_line, split_command
from .files import (
    count_lines,
    is_deleted,
    json_bytes,
    keep_apart,
    make_private_folder,
    native_path,
    put_back,
    read_json,
    replace_file,
    update_json,
    write_atomic,
    write_json,
)
from .git import GIT_TIMEOUT_S, Git, GitFailed
from .locks import FileLock, try_lock_byte, unlock_byte, write_holder
from .probe import run_probe
from .process_tree import MARK_FOLDER, MARK_NAME, MARK_SESSION, ProcessTree, StopPolicy, StopReport, find_main, name_of
from .processes import (
    SAME_START_S,
    ProcessWatch,
    cpu_s,
    create_time,
    is_alive,
    is_stopped,
    isolated_python,
    lent_watch,
    light_command,
    lines_of,
    memory_mb,
    same_process,
    spawn_detached,
    step_back,
    window_titles,
)
from .signals import ConsoleClose, Latch, interrupt_main, on_fork
from .terminal import RELEASE_TERMINAL, obeys_control_sequences
from .times import clock, format_duration, now_iso, parse_duration_s, time_field
from .usage import TreeUsage
from .windows import Job, send_break

__all__ = [
    "GIT_TIMEOUT_S",
    "MARK_FOLDER",
    "MARK_NAME",
    "MARK_SESSION",
    "RELEASE_TERMINAL",
    "SAME_START_S",
    "ConsoleClose",
    "FileLock",
    "Git",
    "GitFailed",
    "Job",
    "Latch",
    "ProcessTree",
    "ProcessWatch",
    "StopPolicy",
    "StopReport",
    "TreeUsage",
    "clock",
    "command_line",
    "count_lines",
    "cpu_s",
    "create_time",
    "find_main",
    "format_duration",
    "interrupt_main",
    "is_alive",
    "is_deleted",
    "is_stopped",
    "isolated_python",
    "json_bytes",
    "keep_apart",
    "lent_watch",
    "light_command",
    "lines_of",
    "make_private_folder",
    "memory_mb",
    "name_of",
    "native_path",
    "now_iso",
    "obeys_control_sequences",
    "on_fork",
    "parse_duration_s",
    "put_back",
    "read_json",
    "replace_file",
    "run_probe",
    "same_process",
    "send_break",
    "spawn_detached",
    "split_command",
    "step_back",
    "time_field",
    "try_lock_byte",
    "unlock_byte",
    "update_json",
    "window_titles",
    "write_atomic",
    "write_holder",
    "write_json",
]
