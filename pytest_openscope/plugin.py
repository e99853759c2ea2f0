"""The pytest plugin: options, markers and hooks."""
