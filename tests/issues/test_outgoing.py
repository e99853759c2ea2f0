"""The search for what must not be sent finds it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from .fake_github import REPO, FakeGithub
from .kit import NAMES, PRIVATE
from .outgoing import TOKEN, Outgoing, Recorder

PLACES = ["path", "query", "header", "body"]


@pytest.fixture(params=["fake", "recorder"])
def server(request: pytest.FixtureRequest) -> Iterator[Outgoing]:
    github = FakeGithub()
    made = github if request.param == "fake" else Recorder(github.base_url)
    yield made
    for each in {made, github}:
        each.requests.clear()
        each.close()


def send(server: Outgoing, text: str, place: str) -> None:
    assert isinstance(server, (FakeGithub, Recorder))
    url, headers, body = (
        f"{server.base_url}/repos/{REPO}/issues",
        {"Authorization": f"token {TOKEN}"},
        json.dumps({"title": ""}),
    )
    if place == "path":
        url += f"/{quote(text, safe='')}"
    elif place == "query":
        url += f"?state={quote(text, safe='')}"
    elif place == "header":
        headers["X-Rig"] = text
    else:
        body = json.dumps({"title": text})
    requests.post(url, data=body, headers=headers, timeout=10)


@pytest.mark.parametrize("place", PLACES)
def test_whatever_is_private_is_found_wherever_it_was_sent(server: Outgoing, place: str) -> None:
    host = {} if socket.gethostname() == "localhost" else {"host": socket.gethostname()}
    for text in {**PRIVATE, **NAMES, **host, "home": str(Path.home() / "x")}.values():
        server.requests.clear()
        server.search()
        send(server, f"a {text.upper()} b", place)
        with pytest.raises(AssertionError, match="was sent"):
            server.search()


def test_the_token_in_its_own_place_is_not_found(server: Outgoing) -> None:
    send(server, "nothing", "body")
    assert server.requests[0].headers
    server.search()


def test_names_may_stand_in_the_log_where_that_is_allowed(server: Outgoing) -> None:
    log = "a title <details><summary>Session log (whole)</summary>"
    server.names_in_log = True
    send(server, f"{log} {NAMES['subject']}", "body")
    server.search()
    send(server, f"{NAMES['subject']} {log}", "body")
    with pytest.raises(AssertionError, match="subject"):
        server.search()


def test_a_server_searches_when_it_is_closed() -> None:
    server = FakeGithub()
    send(server, TOKEN, "body")
    with pytest.raises(AssertionError, match="token"):
        server.close()
