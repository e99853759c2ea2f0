"""The operating system: processes, locks, files, signals."""
