"""One session from opening to end."""
