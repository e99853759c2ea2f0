"""The kernel's own CIFS client, in a small guest: the mirror on a share whose locks reach the server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_kit import Guest, GuestMirror
from samba_kit import SambaServer, SecondReader, Server, free_port, wait_until
from share_kit import assert_mirrored
from undo import Undo

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(os.environ.get("OPENSCOPE_SHARES") == "few", reason="the long scenes on a real share are switched off"),
]


@pytest.fixture(scope="module")
def machine() -> Iterator[Guest]:
    undo = Undo()
    try:
        yield Guest(undo)
    finally:
        undo.now()


@pytest.fixture
def server(undo: Undo) -> SambaServer:
    # The guest reaches 127.0.0.1 and no other address of the host.
    return SambaServer(undo, address="127.0.0.1", port=free_port()).start()


@pytest.fixture
def guest(undo: Undo, machine: Guest) -> Iterator[Guest]:
    """The guest; its mounts go before the server does."""
    yield machine
    machine.unmount()


def assert_mirrored_all(server: Server, *mirrors: GuestMirror) -> None:
    assert_mirrored(server.central, *((mirror.rig_id, mirror.folder) for mirror in mirrors))


def assert_whole(server: SambaServer, reader: SecondReader, *mirrors: GuestMirror) -> None:
    wait_until(lambda: not server.open_files(), 120, f"files stay open: {server.open_files()}")
    assert_mirrored_all(server, *mirrors)
    for path in filter(Path.is_file, server.central.rglob("*")):
        assert reader.read(path.relative_to(server.folder).as_posix()) == path.read_bytes(), path


def test_a_server_that_is_well_hangs_and_is_restarted(
    tmp_path: Path, server: SambaServer, guest: Guest, reader: SecondReader
) -> None:
    mirror = GuestMirror(guest, tmp_path, server, guest.mount_cifs(server))
    well_hangs_and_is_restarted(mirror, server)
    assert_whole(server, reader, mirror)


def well_hangs_and_is_restarted(mirror: GuestMirror, server: SambaServer) -> None:
    mirror.start()
    mirror.wait_copied()
    server.hang()
    mirror.wait_for(lambda: "cannot be written" in mirror.told())
    server.go_on()
    mirror.wait_for(lambda: "answers again" in mirror.told())
    mirror.wait_copied()
    server.kill()
    time.sleep(3)
    server.start()
    mirror.ask_to_stop()
    mirror.wait_verified()


def test_a_server_that_hangs_at_the_end(tmp_path: Path, server: SambaServer, guest: Guest, reader: SecondReader) -> None:
    """The worker that is stuck in the kernel's client is killed and not waited for; nothing is called verified meanwhile."""
    mirror = GuestMirror(guest, tmp_path, server, guest.mount_cifs(server)).start()
    mirror.wait_copied()
    server.hang()
    mirror.ask_to_stop()
    mirror.wait_for(lambda: "cannot be written" in mirror.told())
    time.sleep(40)
    mirror.wait_for(lambda: mirror.status() == "pending")
    server.go_on()
    mirror.wait_verified()
    assert_whole(server, reader, mirror)


def test_two_clients_whose_locks_meet_on_the_server(
    tmp_path: Path, server: SambaServer, guest: Guest, reader: SecondReader
) -> None:
    """Two mounts with a connection each: both write one day's log, and the second sees what the first has written."""
    centrals = [guest.mount_cifs(server), guest.mount_cifs(server)]
    mirrors = [GuestMirror(guest, tmp_path, server, central, f"rig{number}") for number, central in enumerate(centrals)]
    for mirror in mirrors:
        mirror.start()
    for mirror in mirrors:
        mirror.wait_copied()
    below = mirrors[0].own.relative_to(server.central)
    looks = [guest.run("cat", centrals[1] / below) for _ in range(10)]
    for mirror in mirrors:
        mirror.ask_to_stop()
    for mirror in mirrors:
        mirror.wait_verified()
    log = (mirrors[0].folder / "launcher_metadata" / "launcher.log").read_bytes()
    assert all(map(log.startswith, looks))
    assert len(looks[-1]) > len(looks[0]) or looks[0] == log
    assert not any("damaged" in mirror.told() for mirror in mirrors)
    assert_whole(server, reader, *mirrors)
