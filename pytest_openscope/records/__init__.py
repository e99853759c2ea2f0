"""What a session knows and leaves behind."""
