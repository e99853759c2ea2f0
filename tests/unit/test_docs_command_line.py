"""The page on the command line names every option, ini key, environment variable, marker and command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_openscope import plugin
from pytest_openscope.cli.app import app
from pytest_openscope.session import options

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")


class Parser:
    """Stands for pytest's parser and notes what is added."""

    def __init__(self) -> None:
        self.options: list[str] = []
        self.inis: list[str] = []

    def getgroup(self, *names: str) -> Parser:
        return self

    def addoption(self, *names: str, **settings: object) -> None:
        self.options += names

    def addini(self, name: str, *rest: object, **settings: object) -> None:
        self.inis.append(name)


@pytest.fixture
def added() -> Parser:
    parser = Parser()
    options.add_options(parser)  # type: ignore[arg-type]
    return parser


def table(heading: str) -> list[list[str]]:
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_option_and_ini_key_is_there(added: Parser) -> None:
    rows = table("Options")
    assert [row[0].strip("`").split(" ")[0] for row in rows] == added.options
    assert {re.findall(r"`(\w+)`", row[1])[0] for row in rows if row[1]} == set(added.inis)


def test_the_environment_variables_are_those_of_the_code(added: Parser) -> None:
    named = [*options.VALUES, *options.FLAGS, "--rig-config", "--params", "--wait-for-rig", "--live"]
    written = {name for row in table("Options") for name in re.findall(r"OPENSCOPE_\w+", row[2])}
    assert written == set(map(options.variable_of, named))


def test_markers_and_commands_are_there() -> None:
    assert [row[0].strip("`") for row in table("Markers")] == [
        marker.partition(":")[0].replace("'", '"') for marker in plugin._MARKERS
    ]
    assert [row[0].strip("`").split(" ")[-1] for row in table("Other commands")] == [
        command.name for command in app.registered_commands
    ]
