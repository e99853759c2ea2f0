"""The kernel's own CIFS and NFS 4 clients, in a small guest: mirrors and whole sessions on shares with working locks."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from guest_kit import Guest, GuestMirror, GuestSession
from nfs_kit import NfsServer
from samba_kit import SambaServer, SecondReader, Server, free_port, wait_until
from scenes import RIGHTS, fill
from scenes import assert_whole as assert_sessions_whole
from share_kit import assert_mirrored, json_of, mirror_status
from undo import Undo

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(os.environ.get("OPENSCOPE_SHARES") == "few", reason="the long scenes on a real share are switched off"),
]


#: What an operator is told of a server that hangs.
AWAY = "cannot be written (the share does not answer)"


@dataclass
class Share:
    """A server on this computer, and how the guest mounts its share."""

    kind: str
    server: Server
    reader: SecondReader | None

    def mount(self, guest: Guest, number: int = 0) -> Path:
        """Mount it; numbers 0 and 1 are different clients to the server."""
        if self.kind == "nfs":
            return guest.mount_nfs(self.server, ("4.2", "4.1")[number])
        assert isinstance(self.server, SambaServer)
        return guest.mount_cifs(self.server)


@pytest.fixture(scope="module")
def machine() -> Iterator[Guest]:
    undo = Undo()
    try:
        yield Guest(undo)
    finally:
        undo.now()


@pytest.fixture
def guest(undo: Undo, machine: Guest) -> Iterator[Guest]:
    """The guest; its mounts go before the server does."""
    yield machine
    machine.unmount()


@pytest.fixture(params=["cifs", "nfs"])
def kind(request: pytest.FixtureRequest) -> Any:
    """Which of the kernel's clients."""
    return request.param


@pytest.fixture
def share(undo: Undo, kind: str) -> Iterator[Share]:
    yield from served(undo, kind)


@pytest.fixture
def small_share(undo: Undo, kind: str) -> Iterator[Share]:
    yield from served(undo, kind, small=True)


def served(undo: Undo, kind: str, small: bool = False) -> Iterator[Share]:
    if kind == "nfs":
        yield Share(kind, NfsServer(undo, small=small).start(), None)
        return
    # The guest reaches 127.0.0.1 and no other address of the host.
    server = SambaServer(undo, small=small, address="127.0.0.1", port=free_port()).start()
    reader = SecondReader(server)
    yield Share(kind, server, reader)
    reader.close()


def assert_whole(share: Share, *mirrors: GuestMirror) -> None:
    """Each copy and each line is there once, nobody has a file open or locked; a client of other make reads the same."""
    server = share.server
    wait_until(lambda: not server.open_files(), 120, f"files stay open: {server.open_files()}")
    assert_mirrored(server.central, *(session for mirror in mirrors for session in mirror.sessions))
    for path in filter(Path.is_file, server.central.rglob("*") if share.reader else ()):
        assert share.reader is not None
        assert share.reader.read(path.relative_to(server.folder).as_posix()) == path.read_bytes(), path
    assert not [path for path in server.central.rglob("*") if path.name.startswith(".")]


def start_hung(mirror: GuestMirror) -> None:
    """Start on a share that hangs: the worker is at it."""
    mirror.start()
    mirror.wait_for(lambda: mirror.status and mirror.workers())


def test_a_server_that_is_well_hangs_for_5_s_and_is_restarted(tmp_path: Path, guest: Guest, share: Share) -> None:
    """The hang falls into the middle of one log, and one begins in it."""
    server, central = share.server, share.mount(guest)
    mirrors = [GuestMirror(guest, tmp_path, server, central, rig) for rig in ("early", "late")]
    mirrors[0].start()
    mirrors[0].wait_copied()
    server.hang()
    start_hung(mirrors[1])
    time.sleep(5)
    server.go_on()
    for mirror in mirrors:
        mirror.wait_copied()
    server.kill()
    time.sleep(3)
    server.start()
    for mirror in mirrors:
        mirror.wait_copied()
        mirror.ask_to_stop()
    for mirror in mirrors:
        mirror.wait_verified()
    assert_whole(share, *mirrors)


def test_a_server_that_hangs_for_60_s(tmp_path: Path, guest: Guest, share: Share) -> None:
    """From the start of one log, from the middle of one to after its end: told, and nothing is called verified meanwhile."""
    server, central = share.server, share.mount(guest)
    to_the_end, from_the_start = mirrors = [GuestMirror(guest, tmp_path, server, central, rig) for rig in ("end", "start")]
    to_the_end.start()
    to_the_end.wait_copied()
    server.hang()
    until = time.monotonic() + 60
    to_the_end.wait_told_away()
    to_the_end.ask_to_stop()
    start_hung(from_the_start)
    from_the_start.wait_for(lambda: "cannot be written" in from_the_start.told)
    time.sleep(max(0.0, until - time.monotonic()))
    to_the_end.wait_for(lambda: to_the_end.status == "pending")
    server.go_on()
    from_the_start.wait_copied()
    assert "answers again" in from_the_start.told
    from_the_start.ask_to_stop()
    for mirror in mirrors:
        mirror.wait_verified()
        assert mirror.told_away() <= 1
    assert_whole(share, *mirrors)


@pytest.mark.parametrize("how", ["hangs", "is killed"])
def test_a_server_that_goes_for_good(tmp_path: Path, guest: Guest, share: Share, how: str) -> None:
    """From the middle of one log, from the start of one. They end all the same; what is missing is copied by the next call."""
    server, central = share.server, share.mount(guest)
    mirrors = [GuestMirror(guest, tmp_path, server, central, rig, patience_s=5) for rig in ("middle", "start")]
    mirrors[0].start()
    mirrors[0].wait_copied()
    if how == "hangs":
        server.hang()
    else:
        server.kill()
    start_hung(mirrors[1])
    mirrors[0].wait_told_away()
    mirrors[1].wait_for(lambda: "cannot be written" in mirrors[1].told)
    for mirror in mirrors:
        mirror.ask_to_stop()
    for mirror in mirrors:
        mirror.wait_end()
        assert mirror.status == "pending"
        print([state for state, _ in mirror.workers()], "are left as long as the share is away")
    if how == "hangs":
        server.go_on()
    else:
        server.start()
    for mirror in mirrors:
        mirror.wait_gone()
        mirror.patience_s = 400.0
        mirror.start()
    for mirror in mirrors:
        mirror.wait_verified()
    assert_whole(share, *mirrors)


def test_a_share_that_is_full(tmp_path: Path, guest: Guest, small_share: Share) -> None:
    """In the middle, and again until after the end."""
    server = small_share.server
    ballast = server.folder / "ballast"
    mirror = GuestMirror(guest, tmp_path, server, small_share.mount(guest)).start()
    mirror.wait_copied()
    fill(ballast)
    mirror.wait_told_away()
    ballast.unlink()
    mirror.wait_back()
    mirror.wait_copied()
    fill(ballast)
    time.sleep(5)
    mirror.ask_to_stop()
    time.sleep(20)
    mirror.wait_for(lambda: mirror.status == "pending")
    ballast.unlink()
    mirror.wait_verified()
    assert_whole(small_share, mirror)


@pytest.mark.parametrize("how", list(RIGHTS))
def test_no_right_to_write(tmp_path: Path, guest: Guest, share: Share, how: str) -> None:
    """From the start; taken again in the middle, until after the end, when open files may stay writable."""
    take, give = RIGHTS[how]
    server = share.server
    take(server)
    mirror = GuestMirror(guest, tmp_path, server, share.mount(guest)).start()
    mirror.wait_told_away()
    give(server)
    mirror.wait_back()
    mirror.wait_copied()
    take(server)
    time.sleep(10)
    mirror.ask_to_stop()
    time.sleep(20)
    mirror.wait_for(lambda: mirror.status)
    if mirror.status == "verified":
        mirror.fetch()
        assert_mirrored(server.central, *mirror.sessions)
    give(server)
    mirror.wait_verified()
    assert_whole(share, mirror)


def test_a_folder_that_is_deleted_and_made_again(tmp_path: Path, guest: Guest, share: Share) -> None:
    """Deleted in the middle of one log, and at the end of one, which is not called verified then."""
    server, central = share.server, share.mount(guest)
    mirrors = [GuestMirror(guest, tmp_path, server, central, rig) for rig in ("middle", "end")]
    for mirror in mirrors:
        mirror.start()
    for mirror in mirrors:
        mirror.wait_copied()
    shutil.rmtree(server.central)
    mirrors[1].ask_to_stop()
    for mirror in mirrors:
        mirror.wait_told_away()
    mirrors[1].wait_for(lambda: mirrors[1].status == "pending")
    # It is the share's owner who makes it again: nothing of ours does.
    assert not server.central.exists()
    server.make_central()
    mirrors[0].wait_back()
    mirrors[0].wait_copied()
    mirrors[0].ask_to_stop()
    for mirror in mirrors:
        mirror.wait_verified()
    assert_whole(share, *mirrors)


def test_ten_at_once(tmp_path: Path, guest: Guest, share: Share) -> None:
    """Ten rigs write into one day's log while the server hangs once and is restarted once."""
    server = share.server
    mirror = GuestMirror(guest, tmp_path, server, share.mount(guest), *(f"rig{number}" for number in range(10))).start()
    mirror.wait_copied()
    server.hang()
    time.sleep(5)
    server.go_on()
    time.sleep(3)
    server.kill()
    time.sleep(1)
    server.start()
    mirror.wait_copied()
    mirror.ask_to_stop()
    mirror.wait_verified()
    assert_whole(share, mirror)


def test_two_clients_whose_locks_meet_on_the_server(tmp_path: Path, guest: Guest, share: Share) -> None:
    """Two mounts with a connection each: both write one day's log, and the second sees what the first has written."""
    server = share.server
    centrals = [share.mount(guest, number) for number in range(2)]
    mirrors = [GuestMirror(guest, tmp_path, server, central, f"rig{number}") for number, central in enumerate(centrals)]
    for mirror in mirrors:
        mirror.start()
    for mirror in mirrors:
        mirror.wait_copied()
    below = mirrors[0].own().relative_to(server.central)
    looks = [(guest.run("cat", centrals[1] / below), mirrors[0].own().read_bytes()) for _ in range(20)]
    for mirror in mirrors:
        mirror.ask_to_stop()
    for mirror in mirrors:
        mirror.wait_verified()
    log = mirrors[0].logged()
    assert all(log.startswith(seen) for seen, _ in looks)
    assert len(looks[-1][0]) > len(looks[0][0])
    print(f"at most {max(len(there) - len(seen) for seen, there in looks)} bytes behind the server")
    assert not any("damaged" in mirror.told for mirror in mirrors)
    assert_whole(share, *mirrors)


def test_a_whole_session(bench: Any, guest: Guest, share: Share) -> None:
    """It begins on a share that is well, which hangs in its middle, is told of once, and is well again until the end."""
    server = share.server
    session = GuestSession(bench, guest, server, share.mount(guest))
    session.start()
    session.wait_copied()
    # An emulated processor may be slow enough at the worker's start for being told of.
    away, back = session.told(AWAY), session.told("answers again")
    server.hang()
    session.wait_for(lambda: session.told(AWAY) > away)
    server.go_on()
    session.wait_for(lambda: session.told("answers again") > back)
    session.stop()
    session.wait_verified()
    assert session.told(AWAY) == away + 1
    assert_sessions_whole(server, session, reader=share.reader)


def test_pytest_is_killed_while_the_share_hangs(bench: Any, guest: Guest, share: Share) -> None:
    server = share.server
    session = GuestSession(bench, guest, server, share.mount(guest))
    session.start()
    session.wait_copied()
    away = session.told(AWAY)
    server.hang()
    session.wait_for(lambda: session.told(AWAY) > away)
    session.kill()
    session.wait_for(lambda: json_of(session.folder, "end_state.json")["outcome"] == "crashed", 60)
    assert mirror_status(session.folder) == "pending"
    server.go_on()
    session.wait_verified()
    assert_sessions_whole(server, session, reader=share.reader)


def test_what_the_experiment_notices(bench: Any, guest: Guest, share: Share) -> None:
    """Sessions without and with a mirror in turn; the rows go into the docs' table."""
    central = share.mount(guest)
    rows: dict[str, list[tuple[float, list[float]]]] = {"without a mirror": [], f"{share.kind}, healthy": []}
    for number in range(2):
        for mirrored, taken in enumerate(rows.values()):
            session = GuestSession(bench.beside(f"side{mirrored}_{number}"), guest, share.server, central)
            session.log_for(20.0)
            if not mirrored:
                session.switch_off()
            began = time.monotonic()
            session.launch()
            session.end()
            taken.append((time.monotonic() - began, session.latencies()))
            if mirrored:
                session.wait_verified()
    for what, taken in rows.items():
        took = [one for _, many in taken for one in many]
        parts = statistics.quantiles(took, n=100)
        wall_s = statistics.median(wall_s for wall_s, _ in taken)
        print(f"| {what} | {wall_s:.2f} | {parts[49] * 1e6:.0f} | {parts[98] * 1e6:.0f} | {max(took) * 1e3:.2f} |")
