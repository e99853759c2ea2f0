"""``session_report.html``: a session in one file that opens offline, from a share, in any browser of today."""

from .content import SessionFiles
from .page import advice, write_report
