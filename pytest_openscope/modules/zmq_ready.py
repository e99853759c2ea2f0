"""Ready-made steps: tell another program over ZeroMQ that this PC is ready, and wait until another one is (extra ``zmq``).

The publisher binds, the waiter connects, as the launcher's do, which can be on either side. A subscriber that has not joined
yet misses what is published; so the publisher waits for it, and knows when it is there.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..config import Text, key, seconds
from .context import ModuleContext
from .failures import ModuleFailed, StepTimedOut
from .parameters import Deadline, IntegerText, SecondsText, StepParameters

MESSAGE = "pre_acquisition_ready"
#: A wait of ZeroMQ's own cannot be interrupted on Windows.
_SLICE_MS = 100
_LINGER_MS = 2000


class ZmqReady(StepParameters):
    """Parameters of both steps."""

    #: The library is the rig's matter: a dry run does without.
    of_the_rig = ("zmq",)

    zmq_ready_message: Text = key(MESSAGE, "what is sent and waited for")

    def missing(self) -> Iterator[tuple[str, str]]:
        if importlib.util.find_spec("zmq") is None:
            yield "zmq", 'install it: pip install "pytest-openscope[zmq]"'


class ReadyPublisher(ZmqReady):
    """Parameters of ``zmq_ready_publisher``."""

    zmq_ready_publisher_address: Text = key("tcp://*:5555", "address to bind")
    zmq_ready_publisher_wait: SecondsText = seconds(0.5, "longest wait for a subscriber; then the message is sent all the same")
    zmq_ready_publisher_subscribers: IntegerText | None = key(
        None, "fail unless so many subscribers come within timeout_s; zmq_ready_publisher_wait does not count then", "", 1
    )
    timeout_s: SecondsText | None = seconds(60.0, "longest wait for zmq_ready_publisher_subscribers", 0.001)

    def would(self) -> str:
        return f"publish {self.zmq_ready_message!r} on {self.zmq_ready_publisher_address}"


class ReadyWaiter(ZmqReady):
    """Parameters of ``zmq_ready_waiter``."""

    zmq_ready_waiter_address: Text = key("tcp://localhost:5555", "address to connect to; it need not be there yet")
    zmq_ready_waiter_timeout: SecondsText = seconds(10.0, "longest wait for the message", 0.001)
    timeout_s: SecondsText | None = seconds(None, "the same; it counts where both are given", 0.001)

    @property
    def wait_s(self) -> float:
        return self.zmq_ready_waiter_timeout if self.timeout_s is None else self.timeout_s

    def would(self) -> str:
        return f"wait for {self.zmq_ready_message!r} on {self.zmq_ready_waiter_address}"


def zmq_ready_publisher(context: ModuleContext, parameters: ReadyPublisher) -> int:
    """Publish the message once subscribers are there.

    Returns:
        How many there were.

    Raises:
        ModuleFailed: the address cannot be bound.
        StepTimedOut: ``zmq_ready_publisher_subscribers`` did not come in time.
    """
    import zmq

    address, wanted = parameters.zmq_ready_publisher_address, parameters.zmq_ready_publisher_subscribers
    # An XPUB is a PUB that hears of its subscribers.
    with _socket(zmq.XPUB, address, "bind") as socket:
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        if wanted is None:
            deadline = Deadline(parameters.zmq_ready_publisher_wait or 1e-6, "waiting for a subscriber")
        else:
            deadline = Deadline(parameters.timeout_s, f"waiting for {wanted} subscribers on {address}")
        subscribers = 0
        while subscribers < (wanted or 1) and not (wanted is None and deadline.passed):
            if socket.poll(_slice_ms(deadline, raises=wanted is not None)):
                subscribers += _change(socket.recv(), parameters.zmq_ready_message)
        socket.send_string(parameters.zmq_ready_message)
    if subscribers:
        context.logger.info("published %r on %s for %d subscribers", parameters.zmq_ready_message, address, subscribers)
    else:
        context.logger.warning("published %r on %s, and nobody listened", parameters.zmq_ready_message, address)
    return subscribers


def zmq_ready_waiter(context: ModuleContext, parameters: ReadyWaiter) -> float:
    """Wait for the message.

    Returns:
        How long that took, in s.

    Raises:
        ModuleFailed: the address is none.
        StepTimedOut: it did not come in time.
    """
    import zmq

    address, message = parameters.zmq_ready_waiter_address, parameters.zmq_ready_message
    began = time.monotonic()
    deadline = Deadline(parameters.wait_s, f"waiting for {message!r} on {address}")
    with _socket(zmq.SUB, address, "connect", linger_ms=0) as socket:
        socket.setsockopt_string(zmq.SUBSCRIBE, message)
        context.logger.info("waiting for %r on %s, %g s at most", message, address, parameters.wait_s)
        while True:
            if not socket.poll(_slice_ms(deadline, raises=True)):
                continue
            said = socket.recv().decode("utf-8", "replace")
            if said == message:
                context.logger.info("%s says %r", address, said)
                return time.monotonic() - began
            context.logger.warning("%s says %r, which is not waited for", address, said)


def _slice_ms(deadline: Deadline, *, raises: bool) -> int:
    try:
        return max(1, int(deadline.left_s(_SLICE_MS / 1000) * 1000))
    except StepTimedOut:
        if raises:
            raise
        return 1


def _change(event: bytes, message: str) -> int:
    """Return how many subscribers an event of an XPUB adds: one that wants the message came, or left."""
    if not message.encode().startswith(event[1:]):
        return 0
    return {0: -1, 1: 1}.get(event[0] if event else -1, 0)


@contextmanager
def _socket(kind: int, address: str, how: str, linger_ms: int = _LINGER_MS) -> Iterator[Any]:
    """Yield a socket that is bound or connected; what it still has to send is sent within ``linger_ms`` at the end."""
    import zmq

    own = zmq.Context()
    try:
        socket = own.socket(kind)
        try:
            getattr(socket, how)(address)
            yield socket
        except zmq.ZMQError as error:
            raise ModuleFailed(f"{how} {address}: {error}") from error
        finally:
            socket.close(linger=linger_ms)
    finally:
        own.term()
