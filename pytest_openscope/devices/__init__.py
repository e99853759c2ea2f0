"""The hardware of a rig: drivers, their mocks, faults on demand. Nothing here is imported for a rig without ``devices:``."""
