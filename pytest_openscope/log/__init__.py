"""The session log: taking, writing, reading and masking records."""
