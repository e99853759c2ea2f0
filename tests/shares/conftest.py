"""A rig, a Samba server, and the share of that server as this computer's programs see it."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(_TESTS / "plugin"), str(_TESTS / "shares")]

from samba_kit import KernelCifs, SambaServer, SecondReader, SmbNetFs  # noqa: E402
from undo import Undo  # noqa: E402

# What a test under pytester imports is forgotten after it; OpenSSL's old ciphers, which NTLM needs, load only once.
with contextlib.suppress(ImportError):
    import smbclient  # noqa: F401

CLIENTS = {"smbnetfs": SmbNetFs, "kernel": KernelCifs}


# Loaded once: it imports what sessions need, which pytester does not forget then.
_spec = importlib.util.spec_from_file_location("plugin_conftest", _TESTS / "plugin" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_plugin = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_plugin)
bench = _plugin.bench


@pytest.fixture
def undo() -> Iterator[Undo]:
    """Whatever the test sets up on the machine is undone, also when the test is killed."""
    made = Undo()
    yield made
    made.now()


@pytest.fixture
def server(undo: Undo) -> SambaServer:
    return SambaServer(undo).start()


@pytest.fixture(params=list(CLIENTS))
def client_kind(request: pytest.FixtureRequest) -> Any:
    """Which client the sessions use; those that this computer does not have are skipped."""
    return CLIENTS[request.param]


@pytest.fixture
def client(undo: Undo, server: SambaServer, client_kind: Any) -> Any:
    return client_kind(undo, server)


@pytest.fixture
def reader(server: SambaServer) -> Iterator[SecondReader]:
    made = SecondReader(server)
    yield made
    made.close()
