"""One GitHub issue per defect: fingerprint, issue text, outbox, GitHub client.

The sidecar builds the reports of a failed session (:func:`.report.build_report`) and puts them whole into an outbox on disk
(:func:`.outbox.enqueue`); :func:`.sending.drain` sends them, each by a worker process that is killed at a deadline.
"""

from __future__ import annotations

from .fingerprint import Sources, fingerprint_of, fingerprint_of_name, normalised
from .outbox import Ledger, drop, due, enqueue, is_known, list_reports, result, waiting, write_back
from .privacy import Machine, Privacy
from .report import build_report, missing_token
from .sending import drain
from .worker import ERROR, check_access
