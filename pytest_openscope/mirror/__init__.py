"""The central mirror of the session log."""
