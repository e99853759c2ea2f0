"""The operating system: processes, locks, files, signals."""

from __future__ import annotations

from .calls import BoundedCall, Watch, watched
from .clocks import ClockChange, ClockWatch, awake_s, boot_id, elapsed_s
from .command_lines import command_line, split_command
from .desktop import Desktop, go_last
from .files import (
    count_lines,
    is_deleted,
    json_bytes,
    keep_apart,
    make_private_folder,
    native_path,
    patiently,
    put_back,
    read_json,
    remove_file,
    remove_tree,
    replace_file,
    update_json,
    write_atomic,
    write_json,
)
from .git import GIT_TIMEOUT_S, Git, GitFailed
from .locks import FileLock, try_lock_byte, unlock_byte
from .probe import run_probe
from .process_tree import MARK_FOLDER, MARK_NAME, MARK_SESSION, ProcessTree, StopPolicy, StopReport, find_main, name_of
from .processes import (
    ProcessWatch,
    age_s,
    cpu_s,
    create_time,
    is_alive,
    is_stopped,
    isolated_python,
    lent_watch,
    light_command,
    lines_of,
    running_processes,
    same_process,
    spawn_detached,
    start_of,
    start_of_now,
    step_back,
)
from .signals import ConsoleClose, Latch, Waker, interrupt_main, on_fork
from .surroundings import missing_drive, remarks
from .terminal import RELEASE_TERMINAL, is_terminal, obeys_control_sequences, switch_off_selection
from .times import clock, format_duration, now_iso, parse_duration_s, time_field
from .usage import TreeUsage
from .windows import Job, in_a_job, send_break, window_titles
from .workers import Reporter, Retry, UnansweredError, WorkerProcess, answer_with, ask
