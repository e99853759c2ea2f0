"""The history of rigs: what many sessions left, in one database on this computer, as tables that people and programs read."""

from .answers import answer_history, history_database
from .database import HistoryError
from .finding import Source as HistorySource
from .page import write_history_page
from .tables import history_tables
