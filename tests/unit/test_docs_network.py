"""``docs/explanation/architecture.md`` names every file that may touch the network."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_openscope"
#: Importing one of these is for talking to somebody.
LIBRARIES = {"apprise", "asyncssh", "fsspec", "github", "paramiko", "pyvisa", "requests", "serial", "urllib3", "zmq"}
MODULES = {"ftplib", "http.client", "http.server", "smtplib", "socketserver", "urllib.request"}
#: Of the module ``socket``, which also tells the computer's name.
OPENING = {"socket", "create_connection", "create_server"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def may_touch_the_network(path: Path) -> bool:
    tree = ast.parse(path.read_bytes())
    for name in imported(tree):
        if name.startswith("serial.tools"):  # lists ports
            continue
        if name.partition(".")[0] in LIBRARIES or any(name == one or name.startswith(f"{one}.") for one in MODULES):
            return True
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in OPENING
        and isinstance(node.value, ast.Name)
        and node.value.id == "socket"
        for node in calls(tree)
    )


def calls(tree: ast.AST) -> Iterator[ast.expr]:
    return (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_every_file_that_may_touch_the_network_is_named() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## What touches the network")[2].partition("\n## ")[0]
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if may_touch_the_network(path)}
    assert {"issues/client.py", "modules/zmq_ready.py", "devices/peer.py"} <= found
    # A folder is named once, its files after it: `devices/drivers/`: `http_service.py`, `zmq_socket.py`.
    missing = []
    for name in sorted(found):
        folder, _, file = name.rpartition("/")
        if f"`{name}`" not in section and not re.search(rf"`{re.escape(folder)}/`:.*`{re.escape(file)}`", section):
            missing.append(name)
    assert not missing


def test_what_is_named_there_exists() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*/(?:[a-z_]+\.py)?)`", text))
    assert len(named) > 20
    assert {name for name in named if not (PACKAGE / name).exists() and not (ROOT / name).exists()} == set()
