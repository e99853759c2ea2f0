"""What GitHub says in answers that are no success."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .wording import shortened


def seconds(after: str, now: float) -> float:
    """Return what ``Retry-After`` asks for: seconds, or a date.

    Raises:
        ValueError: it is neither.
    """
    from email.utils import parsedate_to_datetime

    try:
        return float(after)
    except ValueError:
        try:
            return parsedate_to_datetime(after).timestamp() - now
        except TypeError as problem:
            # What Python 3.10's mail package raises.
            raise ValueError(after) from problem


def message_of(text: str) -> str:
    """Return the message of an answer that says no; "" where there is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    return shortened(str(value.get("message") or "")) if isinstance(value, dict) else ""


def details_of(text: str) -> str:
    """Return which part of the content was refused, to be added to the message."""
    try:
        errors = json.loads(text).get("errors")
    except (ValueError, AttributeError):
        return ""
    return f" {shortened(json.dumps(errors))}" if errors else ""


def is_limit(headers: Mapping[str, str], message: str) -> bool:
    """Tell whether a 403 asks for patience only."""
    said = message.lower()
    return "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0" or "rate limit" in said or "abuse" in said
