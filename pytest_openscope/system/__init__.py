"""The operating system: processes, locks, files, signals."""

from __future__ import annotations

from .console_close import (
    ConsoleClose,
    interrupt_main,
)
from .durations import (
    format_duration,
    parse_duration_s,
)
from .files import (
    json_bytes,
    make_private_folder,
    replace_file,
    write_atomic,
    write_json,
)
from .forks import (
    on_fork,
)
from .held_files import (
    count_lines,
    is_deleted,
    keep_apart,
    put_back,
)
from .latch import (
    Latch,
)
from .light import (
    light_command,
    spawn_detached,
    spawn_light,
)
from .locks import (
    FileLock,
    read_holder,
    try_lock_byte,
    unlock_byte,
    write_holder,
)
from .probe import (
    run_probe,
)
from .processes import (
    SAME_START_S,
    ProcessWatch,
    create_time,
    is_alive,
    is_stopped,
    memory_mb,
    step_back,
)
from .timestamps import (
    clock,
    now_iso,
    time_field,
)
from .tree import (
    MARK_FOLDER,
    MARK_NAME,
    MARK_SESSION,
    StopPolicy,
    StopReport,
    find_main,
    find_tree,
    name_of,
    stop_tree,
)
from .usage import (
    TreeUsage,
)
from .windows import (
    Job,
)

__all__ = [
    "MARK_FOLDER",
    "MARK_NAME",
    "MARK_SESSION",
    "SAME_START_S",
    "ConsoleClose",
    "FileLock",
    "Job",
    "Latch",
    "ProcessWatch",
    "StopPolicy",
    "StopReport",
    "TreeUsage",
    "clock",
    "count_lines",
    "create_time",
    "find_main",
    "find_tree",
    "format_duration",
    "interrupt_main",
    "is_alive",
    "is_deleted",
    "is_stopped",
    "json_bytes",
    "keep_apart",
    "light_command",
    "make_private_folder",
    "memory_mb",
    "name_of",
    "now_iso",
    "on_fork",
    "parse_duration_s",
    "put_back",
    "read_holder",
    "replace_file",
    "run_probe",
    "spawn_detached",
    "spawn_light",
    "step_back",
    "stop_tree",
    "time_field",
    "try_lock_byte",
    "unlock_byte",
    "write_atomic",
    "write_holder",
    "write_json",
]
