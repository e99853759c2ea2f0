"""One GitHub issue per defect: fingerprint, issue text, outbox, GitHub client.

A session builds reports (:func:`.report.build_report`) and puts them whole into an outbox on disk (:func:`.outbox.enqueue`).
Another process sends them (:func:`.outbox.drain`), in worker processes that are killed at a deadline."""

from __future__ import annotations

from .access import (
    ERROR,
    check_access,
)
from .fingerprint import (
    fingerprint_of,
    fingerprint_of_name,
    normalised,
)
from .ledger import (
    Ledger,
)
from .outbox import (
    drain,
    drop,
    enqueue,
    is_known,
    list_reports,
    waiting,
)
from .report import (
    build_report,
)
from .results import (
    result,
    write_back,
)
from .settings import (
    missing_token,
)

__all__ = [
    "ERROR",
    "Ledger",
    "build_report",
    "check_access",
    "drain",
    "drop",
    "enqueue",
    "fingerprint_of",
    "fingerprint_of_name",
    "is_known",
    "list_reports",
    "missing_token",
    "normalised",
    "result",
    "waiting",
    "write_back",
]
