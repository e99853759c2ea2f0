"""The process that sends one alert to one address through apprise; only a process is lost when a server hangs.

``main([])`` reads one JSON object from stdin: ``url``, ``title``, ``body``, ``kind``. It prints a line: :data:`SENT`, or the
problem. Nothing printed holds the address or what apprise says, which may repeat it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence

SENT = "sent"


def main(args: Sequence[str]) -> int:
    """Send what stands on stdin."""
    order = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)
    try:
        import apprise

        sender = apprise.Apprise()
        if not sender.add(order["url"]):
            problem = "apprise does not know this kind of address"
        elif sender.notify(title=order["title"], body=order["body"], notify_type=order["kind"], body_format="text"):
            problem = SENT
        else:
            problem = "not reached, or refused"
    except Exception as error:
        # Its text may repeat the address.
        problem = f"failed with {type(error).__name__}"
    print(problem)
    return 0
