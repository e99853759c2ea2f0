"""Ready over ZeroMQ, on loopback: our two steps, each against what the launcher's do, and nobody at the other end."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.config import PipelineEntry
from pytest_openscope.modules import ModuleContext, ModuleFailed, check_entries, run_entry
from pytest_openscope.modules.failures import StepTimedOut
from pytest_openscope.records.phases import Phase

zmq = pytest.importorskip("zmq")
MESSAGE = "pre_acquisition_ready"


def entry_of(name: str, **parameters: Any) -> Any:
    return PipelineEntry(
        name=name,
        phase=Phase.PRE_ACQUISITION,
        module_path=name,
        module_parameters=parameters,
        where="day1.json: pre_acquisition_pipeline[0]",
    )


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    return lambda name, **parameters: run_entry(entry_of(name, **parameters), ModuleContext(parameters, tmp_path)) and None


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def publish(run: Any, address: str, **parameters: Any) -> None:
    run("zmq_ready_publisher", zmq_ready_publisher_address=address, **parameters)


def wait(run: Any, address: str, **parameters: Any) -> None:
    run("zmq_ready_waiter", zmq_ready_waiter_address=address, **parameters)


@pytest.mark.parametrize("count", [1, 3])
def test_a_publisher_and_its_waiters_meet_whoever_comes_first(run: Any, address: str, count: int) -> None:
    with ThreadPoolExecutor(count + 1) as pool:
        waiting = [pool.submit(wait, run, address) for _ in range(count - 1)]
        publishing = pool.submit(publish, run, address, zmq_ready_publisher_subscribers=count, timeout_s=20)
        waiting.append(pool.submit(wait, run, address))
        for one in (publishing, *waiting):
            one.result(20)


def test_the_launchers_waiter_hears_ours(run: Any, address: str) -> None:
    """It connects first, subscribes and polls."""
    own = zmq.Context()
    subscriber = own.socket(zmq.SUB)
    subscriber.connect(address)
    subscriber.setsockopt_string(zmq.SUBSCRIBE, MESSAGE)
    try:
        publish(run, address, zmq_ready_publisher_wait=10)
        assert subscriber.poll(10_000)
        assert subscriber.recv_string() == MESSAGE
    finally:
        subscriber.close(linger=0)
        own.term()


def test_ours_hears_the_launchers_publisher(run: Any, address: str, caplog: pytest.LogCaptureFixture) -> None:
    """It binds, waits, and sends without knowing who listens."""
    stop = threading.Event()

    def launcher() -> None:
        own = zmq.Context()
        publisher = own.socket(zmq.PUB)
        publisher.bind(address)
        while not stop.wait(0.02):
            publisher.send_string(f"{MESSAGE}_not_yet")
            publisher.send_string(MESSAGE)
        publisher.close(linger=0)
        own.term()

    thread = threading.Thread(target=launcher)
    thread.start()
    try:
        wait(run, address, timeout_s=10)
    finally:
        stop.set()
        thread.join()
    assert all("not waited for" in message for message in caplog.messages)


def test_nobody_at_the_other_end(run: Any, address: str, caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    publish(run, address, zmq_ready_publisher_wait=0.2)
    assert "nobody listened" in caplog.text
    with pytest.raises(StepTimedOut, match=r"waiting for 2 subscribers on .* took longer than 0.3 s"):
        publish(run, address, zmq_ready_publisher_subscribers=2, timeout_s=0.3)
    for limit in ({"zmq_ready_waiter_timeout": 0.3}, {"timeout_s": 0.3}):
        with pytest.raises(StepTimedOut, match=rf"waiting for '{MESSAGE}' on {address} took longer than 0.3 s"):
            wait(run, address, **limit)
    assert time.monotonic() - began < 10


def test_a_subscriber_of_something_else_does_not_count(run: Any, address: str) -> None:
    own = zmq.Context()
    subscriber = own.socket(zmq.SUB)
    subscriber.setsockopt_string(zmq.SUBSCRIBE, "other")
    subscriber.connect(address)
    try:
        with pytest.raises(StepTimedOut):
            publish(run, address, zmq_ready_publisher_subscribers=1, timeout_s=0.5)
    finally:
        subscriber.close(linger=0)
        own.term()


@pytest.mark.parametrize("wrong", ["nonsense", "tcp://300.0.0.1.x:5", "tcp://127.0.0.1"])
def test_an_address_that_is_none_and_one_that_is_taken(run: Any, address: str, wrong: str) -> None:
    with pytest.raises(ModuleFailed, match="bind "):
        publish(run, wrong)
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))), pytest.raises(ModuleFailed, match="in use"):
        publish(run, address)


def test_a_missing_library_is_told_before_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "zmq" else real(name, *more))
    entries = [entry_of("zmq_ready_waiter"), entry_of("zmq_ready_publisher", zmq_ready_publisher_wiat=1)]
    texts = [str(one) for one in check_entries(entries)]
    assert 'pip install "pytest-openscope[zmq]"' in texts[0]
    assert "did you mean zmq_ready_publisher_wait?" in texts[1]
    unknown: list[Any] = []
    assert len(check_entries(entries, dry_run=True, unknown=unknown)) == 1
    assert len(unknown) == 2
    assert sys.modules["zmq"] is zmq
