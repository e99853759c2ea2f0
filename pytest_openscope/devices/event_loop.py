"""One event loop in a thread, for the devices whose methods are coroutines (ophyd-async)."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any


class EventLoopThread:
    """Starts at the first use and stops with :meth:`close`; asyncio is imported only then."""

    def __init__(self) -> None:
        self._loop: Any = None
        self._lock = threading.Lock()

    def run(self, function: Callable[..., Any], *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
        """Call ``function`` on the loop's thread, await what it returns if that can be awaited, and give back the result.

        Raises:
            TimeoutError: after ``timeout_s``; the call is cancelled.
        """
        import asyncio
        import concurrent.futures

        async def call() -> Any:
            result = function(*args, **kwargs) if callable(function) else function
            return await result if inspect.isawaitable(result) else result

        future = asyncio.run_coroutine_threadsafe(call(), self._started())
        waited_s = 0.0
        while True:
            # Windows interrupts a wait only between two of them.
            slice_s = 0.2 if timeout_s is None else min(0.2, max(0.0, timeout_s - waited_s))
            try:
                return future.result(slice_s)
            except concurrent.futures.TimeoutError:
                if future.done():
                    return future.result()
                waited_s += slice_s
                if timeout_s is not None and waited_s >= timeout_s:
                    future.cancel()
                    raise TimeoutError(f"no result within {timeout_s:g} s") from None
            except BaseException:
                future.cancel()
                raise

    def _started(self) -> Any:
        import asyncio

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
        import asyncio

        async def cancel_all() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1.0)

        try:
            asyncio.run_coroutine_threadsafe(cancel_all(), loop).result(1.5)
        except Exception:
            pass
        loop.call_soon_threadsafe(loop.stop)
