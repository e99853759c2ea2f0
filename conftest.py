"""Loads pytester, and keeps every test away from the real GitHub."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "tests" / "windows"))
from windows_limits import skip_what_cannot_run

# How fast inputs are made says nothing about the project on a busy machine.
settings.register_profile("full", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# ``--hypothesis-profile=full`` makes as many examples as Hypothesis does by itself; ``.ci/run --all`` asks for them.
settings.register_profile("project", settings.get_profile("full"), max_examples=30)
settings.load_profile("project")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background ignores Ctrl-C for them, and so for everything that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests start hundreds of Python processes. Where the environment forbids them to keep compiled modules, each would compile
# pytest, its dependencies and this package anew, which takes longer than most tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

pytest_plugins = ["pytester", *(["windows_outcomes"] if sys.platform == "win32" else [])]

# Where tests share modules with tests of other folders.
sys.path.append(str(Path(__file__).with_name("tests")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on Windows, with the reason, what it cannot run."""
    skip_what_cannot_run(items)


_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(autouse=True)
def _no_real_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves the machine, here and (by a dead proxy) in processes that a test starts."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
            raise RuntimeError(f"a test tried to reach {address[0]}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost,::1")
    for name in [key for key in os.environ if key.startswith("OPENSCOPE_")]:
        monkeypatch.delenv(name)
    # A process more for each of the hundreds of sessions; the tests of the report turn it on.
    monkeypatch.setenv("OPENSCOPE_NO_SESSION_REPORT", "1")
