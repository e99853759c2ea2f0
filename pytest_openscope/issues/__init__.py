"""Failure reports: fingerprint, text, outbox and GitHub."""
