"""What happens to real shares, one scene each: servers that hang for long, full disks, rights or folders that go, many rigs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from typing import Any

import pytest
from samba_kit import SambaServer, SecondReader, SmbNetFs
from scenes import RIGHTS, WAIT_S, Session, assert_whole, fill
from share_kit import json_of, mirror_status, session_log
from undo import Undo

from pytest_openscope.mirror.audit import audit_day_log

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(os.environ.get("OPENSCOPE_SHARES") == "few", reason="the long scenes on a real share are switched off"),
]


@pytest.mark.parametrize("hung_s", [5, 60])
def test_a_server_that_hangs_from_the_start(
    bench: Any, server: SambaServer, client: Any, reader: SecondReader, hung_s: int
) -> None:
    session = Session(bench, server, client.central)
    server.hang()
    until = time.monotonic() + hung_s
    session.start()
    session.wait_told("cannot be written")
    time.sleep(max(0.0, until - time.monotonic()))
    server.go_on()
    session.stop()
    session.wait_verified()
    assert session.told("cannot be written") == 1
    assert_whole(server, session, reader=reader)


def test_a_server_that_hangs_for_a_minute(bench: Any, server: SambaServer, client: Any, reader: SecondReader) -> None:
    session = Session(bench, server, client.central).start()
    session.wait_copied()
    server.hang()
    time.sleep(60)
    server.go_on()
    session.stop()
    session.wait_verified()
    assert session.told("cannot be written") == 1
    assert_whole(server, session, reader=reader)


@pytest.mark.parametrize("when", ["from the start", "in the middle"])
@pytest.mark.parametrize("how", ["hangs", "is killed"])
def test_a_server_that_goes_for_good(
    bench: Any, server: SambaServer, client: Any, reader: SecondReader, when: str, how: str
) -> None:
    """The session ends on time, and so do all its processes; ``recover`` finishes the mirror the next day."""
    session = Session(bench, server, client.central, mirror_finish_s=5)
    go = server.hang if how == "hangs" else server.kill
    if when == "from the start":
        go()
        session.start()
    else:
        session.start()
        session.wait_copied()
        go()
    session.wait_told("cannot be written")
    began = time.monotonic()
    assert "mirror: pending" in session.stop()
    print(f"the end took {time.monotonic() - began:.1f} s of which the mirror may take {WAIT_S} s")
    session.wait_gone(stuck_too=how == "is killed")
    assert mirror_status(session.folder) == "pending"
    if how == "hangs":
        server.go_on()
    else:
        server.start()
    session.wait_gone()
    command = [sys.executable, "-m", "pytest_openscope", "recover", "--rig-config", "rig.yaml"]
    bench.wait_for(
        lambda: bench.pytester.run(*command, timeout=120).ret == 0 and mirror_status(session.folder) == "verified", 120
    )
    session.wait_verified()
    assert_whole(server, session, reader=reader)


def test_a_server_that_is_killed_again_and_again(bench: Any, server: SambaServer, client: Any, reader: SecondReader) -> None:
    session = Session(bench, server, client.central).start()
    session.wait_copied()
    for pause_s in (0.1, 0.4, 1.5, 0.0, 0.7):
        server.kill()
        time.sleep(pause_s)
        server.start()
        time.sleep(1.0)
    session.stop()
    session.wait_verified()
    assert_whole(server, session, reader=reader)


def test_a_share_that_is_full(bench: Any, undo: Undo, client_kind: Any) -> None:
    server = SambaServer(undo, small=True).start()
    client = client_kind(undo, server)
    ballast = server.folder / "ballast"
    session = Session(bench, server, client.central).start()
    session.wait_copied()
    fill(ballast)
    session.wait_told("cannot be written")
    time.sleep(3)
    ballast.unlink()
    session.wait_told("answers again")
    # Full to the end, and for a while after it.
    fill(ballast)
    time.sleep(3)
    session.stop()
    assert mirror_status(session.folder) == "pending"
    ballast.unlink()
    session.wait_verified()
    assert_whole(server, session)


@pytest.mark.parametrize("how", list(RIGHTS))
def test_no_right_to_write_from_the_start(bench: Any, server: SambaServer, client: Any, reader: SecondReader, how: str) -> None:
    take, give = RIGHTS[how]
    take(server)
    session = Session(bench, server, client.central).start()
    session.wait_told("cannot be written")
    give(server)
    session.wait_told("answers again")
    session.stop()
    session.wait_verified()
    assert_whole(server, session, reader=reader)


@pytest.mark.parametrize("how", list(RIGHTS))
def test_the_right_to_write_is_taken_in_the_middle(
    bench: Any, server: SambaServer, client: Any, reader: SecondReader, how: str
) -> None:
    """Open files may stay writable; nothing may be called verified that is not there."""
    take, give = RIGHTS[how]
    session = Session(bench, server, client.central).start()
    session.wait_copied()
    take(server)
    time.sleep(5)
    session.stop()
    if mirror_status(session.folder) == "verified":
        assert_whole(server, session)
    give(server)
    session.wait_verified()
    assert_whole(server, session, reader=reader)


def test_a_folder_that_is_deleted_and_made_again(bench: Any, server: SambaServer, client: Any, reader: SecondReader) -> None:
    session = Session(bench, server, client.central).start()
    session.wait_copied()
    shutil.rmtree(server.central)
    session.wait_told("cannot be written")
    # It is the share's owner who makes it again: nothing of ours does.
    time.sleep(3)
    assert not server.central.exists()
    server.make_central()
    session.wait_told("answers again", 120)
    session.stop()
    session.wait_verified()
    assert_whole(server, session, reader=reader)


def test_ten_sessions_at_once(bench: Any, server: SambaServer, client: Any, reader: SecondReader) -> None:
    """Ten rigs write into one day's log while the server hangs once and is restarted once."""
    sessions = [
        Session(bench.beside(f"rig{number}"), server, client.central, f"rig{number}", mirror_wait_s=5) for number in range(10)
    ]
    for session in sessions:
        session.start()
    for session in sessions:
        session.wait_copied()
    server.hang()
    time.sleep(5)
    server.go_on()
    time.sleep(3)
    server.kill()
    time.sleep(1)
    server.start()
    time.sleep(5)
    for session in sessions:
        (session.bench.path / "stop").touch()
    for session in sessions:
        session.stop()
    for session in sessions:
        session.wait_verified(180)
    assert_whole(server, *sessions, reader=reader)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_pytest_is_killed_while_the_share_hangs(bench: Any, server: SambaServer, client: Any, reader: SecondReader) -> None:
    session = Session(bench, server, client.central).start()
    session.wait_copied()
    server.hang()
    session.wait_told("cannot be written")
    os.kill(session.process.pid, signal.SIGKILL)
    session.process.wait(30)
    bench.wait_for(lambda: json_of(session.folder, "end_state.json")["outcome"] == "crashed", 60)
    assert mirror_status(session.folder) == "pending"
    server.go_on()
    session.wait_verified()
    assert_whole(server, session, reader=reader)


def test_what_a_second_client_sees(bench: Any, undo: Undo, server: SambaServer, client: Any, reader: SecondReader) -> None:
    """Every look at the copy, by a second mount and by a client of other make, sees a beginning of the log."""
    other = SmbNetFs(undo, server)
    session = Session(bench, server, client.central).start()
    session.wait_copied()
    below = (session.own / "launcher.log").relative_to(server.folder)
    seen: dict[str, list[bytes]] = {"second mount": [], "other make": []}
    behind: dict[str, list[int]] = {name: [] for name in seen}
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for name, look in (
            ("second mount", (other.path / below).read_bytes),
            ("other make", lambda: reader.read(below.as_posix())),
        ):
            held = session.copied()
            seen[name].append(look())
            behind[name].append(max(0, held - len(seen[name][-1])))
        time.sleep(0.2)
    session.stop()
    session.wait_verified()
    log = session_log(session.folder)
    for name, looks in seen.items():
        print(f"{name}: {len(looks)} looks, at most {max(behind[name])} bytes behind the server")
        assert all(map(log.startswith, looks)), name
        assert len(looks[-1]) > len(looks[0]), name
    bench.wait_for(lambda: (other.path / below).read_bytes() == log, 60)
    assert_whole(server, session, reader=reader)


def test_two_clients_that_do_not_see_each_others_locks(
    bench: Any, undo: Undo, server: SambaServer, reader: SecondReader
) -> None:
    """``smbnetfs`` keeps locks on its own computer: the sessions' own copies are whole, and the audit mends the day's log."""
    clients = [SmbNetFs(undo, server), SmbNetFs(undo, server)]
    sessions = [
        Session(bench.beside(f"rig{number}"), server, clients[number % 2].central, f"rig{number}", mirror_finish_s=60)
        for number in range(4)
    ]
    for session in sessions:
        session.start()
    time.sleep(15)
    for session in sessions:
        (session.bench.path / "stop").touch()
    for session in sessions:
        session.stop()
    for session in sessions:
        session.wait_gone(timeout_s=120)
        assert (session.own / "launcher.log").read_bytes() == session_log(session.folder)
    report = audit_day_log(sessions[0].day, lock_wait_s=10)
    print(report, [mirror_status(session.folder) for session in sessions])
    assert report.clean
    assert_whole(server, *sessions, reader=reader)
