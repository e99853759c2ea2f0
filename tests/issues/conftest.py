"""A fake GitHub per test, and a search of every request that reached one for what must not leave a rig."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_openscope.issues.privacy import Machine

from .fake_github import FakeGithub
from .kit import MACHINE, Rig, SimClock, watch
from .outgoing import Outgoing


@pytest.fixture
def clock() -> SimClock:
    return SimClock()


@pytest.fixture
def github(clock: SimClock) -> Iterator[FakeGithub]:
    """A server in simulated time."""
    server = FakeGithub(clock.now)
    yield server
    server.close()


@pytest.fixture
def make_rig(github: FakeGithub, clock: SimClock, tmp_path: Path) -> Callable[..., Rig]:
    def make(name: str = "rig-a", **settings: object) -> Rig:
        return Rig(name, tmp_path / name, github, clock, settings)

    return make


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "here", lambda: MACHINE)


@pytest.fixture(autouse=True)
def nothing_private_is_sent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server of a test looks for it; ``@pytest.mark.names_allowed`` lets subject, user and session pass."""
    begin = Outgoing.__init__

    def watched(self: Outgoing) -> None:
        begin(self)
        watch(self, names=request.node.get_closest_marker("names_allowed") is None)

    monkeypatch.setattr(Outgoing, "__init__", watched)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "names_allowed: subject, user and session may be sent in this test")
