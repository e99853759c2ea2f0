"""One event loop in a thread, for the devices whose methods are coroutines (ophyd-async)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

#: Windows interrupts a wait only between two of them.
_SLICE_S = 0.2


class EventLoopThread:
    """Starts at the first use and stops with :meth:`close`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a driver's method: coroutines run on the loop, plain methods in the calling thread."""
        if inspect.iscoroutinefunction(function) or getattr(function, "__module__", "").startswith("ophyd_async"):
            return self.run(function, *args, **kwargs)
        result = function(*args, **kwargs)
        return self.run(lambda: result) if inspect.isawaitable(result) else result

    def run(self, function: Callable[..., Any], *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
        """Call ``function`` on the loop's thread, await what it returns if that can be awaited, and give back the result.

        Raises:
            TimeoutError: after ``timeout_s``; the call is cancelled.
        """

        async def call() -> Any:
            result = function(*args, **kwargs) if callable(function) else function
            return await result if inspect.isawaitable(result) else result

        future = asyncio.run_coroutine_threadsafe(call(), self._started())
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while not future.done():
                left_s = _SLICE_S if deadline is None else deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"no result within {timeout_s:g} s")
                concurrent.futures.wait([future], min(_SLICE_S, left_s))
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="devices-event-loop", daemon=True).start()
            return self._loop

    def close(self) -> None:
        """Stop the loop; tasks that devices left are cancelled."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is None:
            return

        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1.0) if tasks else None

        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(cancel_all(), loop).result(1.5)
        loop.call_soon_threadsafe(loop.stop)
