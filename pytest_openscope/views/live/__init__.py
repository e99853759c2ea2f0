"""The live page: a running session in the browser, served by a process beside the experiment."""

from .starting import LiveServer, missing_packages, parse_address
