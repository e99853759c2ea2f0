"""Sessions on a real share: a Samba server that is well, stops answering, or is killed and comes back."""

from __future__ import annotations

import time
from typing import Any

from samba_kit import SambaServer, SecondReader
from scenes import STALL_S, Session, assert_whole


def test_a_healthy_share(bench: Any, server: SambaServer, client: Any, reader: SecondReader) -> None:
    session = Session(bench, server, client.central).start()
    session.wait_copied()
    # The second client sees a beginning of the log, whole up to where it ends.
    seen = reader.read((session.own / "launcher.log").relative_to(server.folder).as_posix())
    assert "mirror: verified" in session.stop()
    session.wait_verified()
    assert seen
    assert (session.own / "launcher.log").read_bytes().startswith(seen)
    assert not session.told("cannot be written")
    assert_whole(server, session, reader=reader)


def test_a_server_that_stops_answering_for_a_while(bench: Any, server: SambaServer, client: Any, reader: SecondReader) -> None:
    session = Session(bench, server, client.central).start()
    session.wait_copied()
    server.hang()
    hung_until = time.monotonic() + STALL_S + 0.5
    session.wait_told("cannot be written")
    time.sleep(max(0.0, hung_until - time.monotonic()))
    server.go_on()
    session.wait_told("answers again")
    session.stop()
    session.wait_verified()
    assert session.told("cannot be written") == 1
    assert_whole(server, session, reader=reader)


def test_a_server_that_is_killed_and_restarted(bench: Any, server: SambaServer, client: Any, reader: SecondReader) -> None:
    session = Session(bench, server, client.central).start()
    session.wait_copied()
    server.kill()
    session.wait_told("cannot be written")
    server.start()
    session.wait_told("answers again")
    session.stop()
    session.wait_verified()
    assert_whole(server, session, reader=reader)
