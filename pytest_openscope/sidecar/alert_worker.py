"""The process that sends one alert through apprise; only a process is lost when a server hangs.

``main([])`` reads one JSON object from stdin: ``urls`` (number: address), ``title``, ``body``, ``kind``. For each address it
prints ``[number, problem]``, the problem empty when the message is sent. Nothing printed holds an address or what apprise
says, which may repeat one.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Sequence


def main(args: Sequence[str]) -> int:
    """Send to all addresses at once: one that hangs keeps no other waiting."""
    order = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)
    threads = [
        threading.Thread(target=_send, args=(int(number), url, order), daemon=True) for number, url in order["urls"].items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def _send(number: int, url: str, order: dict[str, str]) -> None:
    try:
        import apprise

        sender = apprise.Apprise()
        if not sender.add(url):
            problem = "apprise does not know this kind of address"
        elif sender.notify(title=order["title"], body=order["body"], notify_type=order["kind"], body_format="text"):
            problem = ""
        else:
            problem = "not reached, or refused"
    except Exception as error:
        # Its text may repeat the address.
        problem = f"failed with {type(error).__name__}"
    os.write(1, json.dumps([number, problem]).encode("ascii") + b"\n")
