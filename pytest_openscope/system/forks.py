"""Copies that a step makes of the experiment process with ``os.fork`` (a pool's workers) hear signals as without a session.

With the session's handlers, the SIGTERM by which a pool ends its workers would be a request to end the session, and it would be
lost where it comes before the copy has begun: the pool then waits for ever. Windows has no forks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any


def on_fork(owner: Any, restore: Callable[[Any], None]) -> None:
    """Call ``restore(owner)`` in every fork from now on, as long as ``owner`` lives; no request to end a fork is lost by it.

    The signals are held back from just before the fork until its handlers are those of before.
    """
    if sys.platform == "win32":
        return
    living = weakref.ref(owner)
    masks: dict[int, set[int]] = {}
    requests = {signal.SIGTERM, signal.SIGHUP}

    def before() -> None:
        if living() is not None:
            masks[threading.get_ident()] = set(signal.pthread_sigmask(signal.SIG_BLOCK, requests))

    def after() -> None:
        mask = masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def after_in_child() -> None:
        mine = living()
        if mine is not None:
            restore(mine)
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after_in_child)
