"""Running, watching and stopping the process that acquires the data."""
