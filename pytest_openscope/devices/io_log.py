"""Logs the traffic of libraries that drivers use inside, for ``log_io: true``."""

from __future__ import annotations

import logging
from typing import Any

from .proxy import shown

_TOLD = (
    "write",
    "write_raw",
    "write_ascii_values",
    "write_binary_values",
    "send",
    "sendall",
    "send_string",
    "send_json",
    "send_multipart",
)
_ANSWERED = ("read", "read_raw", "read_until", "readline", "recv", "recv_string", "recv_json", "recv_multipart")
_LIBRARIES = ("serial", "pyvisa", "socket", "zmq")


def tap(device: Any, log: logging.Logger) -> list[str]:
    """Log what passes through the serial ports, VISA resources and sockets that a driver keeps as attributes.

    Returns:
        The names of the attributes. Objects that take no new attributes (C types) are left alone.
    """
    tapped = []
    for name, transport in list(getattr(device, "__dict__", {}).items()):
        if type(transport).__module__.partition(".")[0] not in _LIBRARIES:
            continue
        for methods, word in ((_TOLD, "told"), (_ANSWERED, "answered")):
            for method in methods:
                original = getattr(transport, method, None)
                if callable(original) and _replace(transport, method, _logging(original, word, log)) and name not in tapped:
                    tapped.append(name)
    return tapped


def _replace(transport: Any, method: str, function: Any) -> bool:
    try:
        setattr(transport, method, function)
    except (AttributeError, TypeError):
        return False
    return True


def _logging(original: Any, word: str, log: logging.Logger) -> Any:
    depth = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        # Libraries call their own methods (read_until calls read): only the outermost is worth a record.
        nonlocal depth
        depth += 1
        try:
            result = original(*args, **kwargs)
        finally:
            depth -= 1
        if depth == 0:
            log.info("%s %s", word, shown(args[0] if word == "told" and args else result))
        return result

    return call
