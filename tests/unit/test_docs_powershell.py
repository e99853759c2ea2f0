"""Commands for Windows, in pages and in messages: PowerShell 5 and 7 must take them as they stand, `cmd` mostly too."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs_code_blocks import PAGES, Block, blocks

from pytest_openscope.system import command_line, command_lines
from pytest_openscope.system.command_lines import split_windows, typed_on_windows

tree_sitter = pytest.importorskip("tree_sitter", reason="the grammar of PowerShell is not installed: pip install -e .[dev]")
tree_sitter_powershell = pytest.importorskip("tree_sitter_powershell", reason="as above")

#: Programs of ours and Python's, which a reader on Windows types as they are shown.
_OURS = re.compile(r"(\S*[\\/])?(pytest|openscope|python|py|pip)\b")
_POWERSHELL = [block for page in PAGES for block in blocks(page) if block.language in ("powershell", "ps1", "pwsh")]
#: Shown to all readers; those of a POSIX shell alone name its folders (`.venv/bin`) or its programs.
_FOR_ALL = [
    Block(block.where, block.language, line)
    for page in PAGES
    for block in blocks(page)
    if block.language in ("sh", "bash", "console")
    for line in block.text.splitlines()
    if _OURS.match(line) and "bin/" not in line and "python3" not in line
]


def commands(text: str) -> list[list[str]]:
    """Parse PowerShell and return each command's words as they are typed; raises where the grammar finds a mistake."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    found: list[list[str]] = []

    def walk(node: object) -> None:
        assert not node.is_missing, f"something is missing in {text!r}"  # type: ignore[attr-defined]
        assert node.type != "ERROR", f"PowerShell does not understand {node.text.decode()!r} in {text!r}"  # type: ignore[attr-defined]
        if node.type == "command":  # type: ignore[attr-defined]
            found.append(node.text.decode("utf-8").split())  # type: ignore[attr-defined]
        for child in node.children:  # type: ignore[attr-defined]
            walk(child)

    walk(parser.parse(text.encode("utf-8")).root_node)
    return found


def mistakes_in_5(text: str) -> list[str]:
    """What parses, and yet goes wrong in PowerShell 5."""
    code = re.sub(r"(^|\s)#.*", "", text)
    found = []
    if re.search(r"&&|\|\|", code):
        found.append("&& and || are of PowerShell 7")
    if re.search(r"\\$", code, re.MULTILINE):
        found.append("a backslash ends a line; PowerShell wants a backtick")
    if re.search(r"'[^'\n]*\"[^'\n]*'", code):
        found.append("PowerShell 5 takes double quotes out of arguments")
    if re.search(r"(?<![\w`])\$(?!env:|true|false|null|\()[A-Za-z_]", code, re.IGNORECASE):
        found.append("a variable of a POSIX shell; PowerShell's environment is $env:NAME")
    if re.search(r"^\s*[\"']", code, re.MULTILINE):
        found.append("a quoted program wants & before it")
    return found


@pytest.mark.parametrize("block", _POWERSHELL, ids=lambda block: block.where)
def test_powershell_takes_the_blocks_for_it(block: Block) -> None:
    commands(block.text)
    assert mistakes_in_5(block.text) == []


def test_powershell_takes_the_commands_for_all() -> None:
    assert len(_POWERSHELL) > 5
    assert len(_FOR_ALL) > 30
    for block in _FOR_ALL:
        # Where the line itself says what PowerShell wants instead, it is told.
        text = block.text.partition("# PowerShell:")
        line = text[0].replace("$TOKEN", text[2].strip()) if text[1] else text[0]
        # PowerShell hands a bare `--` on as it is; its grammar here takes it for the beginning of an option.
        assert len(commands(line.replace(" -- ", " end-of-options "))) == 1, block
        assert mistakes_in_5(line) == [], block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_are_quoted_for_every_shell(page: Path) -> None:
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`((?:pip install|pytest --|openscope \w|python -m pytest)[^`]*)`", text):
        assert not re.search(r"'pytest-openscope\[", command), f"cmd hands single quotes on: {command}"
        assert not re.search(r"'[^']*\"[^']*'", command), f"PowerShell 5 takes double quotes out: {command}"


@pytest.mark.parametrize(
    "text",
    ["cd first && dir", "pytest \\\n --co", "pytest --param 'a={\"b\": 1}'", "pytest --param t=$TOKEN", '"C:\\x y.exe" -m a'],
)
def test_what_powershell_5_gets_wrong_is_found(text: str) -> None:
    assert mistakes_in_5(text)


@pytest.mark.parametrize("text", ['echo "open', "pytest a (b", "pytest --x a;b {c"])
def test_what_powershell_does_not_understand_is_found(text: str) -> None:
    with pytest.raises(AssertionError):
        commands(text)


PATHS = [
    r"C:\rigs\rig.yaml",
    r"C:\Users\Ada Lovelace\rig.yaml",
    r"C:\R&D\rig (new);1.yaml",
    r"C:\data\{a},b\@c #d.yaml",
    "\\\\server\\share\\my data\\",
    r"C:\50%\Müller's.yaml",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_survives_powershell_and_cmd(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(command_lines, "sys", type("Windows", (), {"platform": "win32"}))
    line = command_line(["pytest", "--rig-config", path, "--continue-session", "last"])
    [words] = commands(line)
    assert (words[:2], words[-2:]) == (["pytest", "--rig-config"], ["--continue-session", "last"])
    assert mistakes_in_5(line) == []
    typed = typed_on_windows(path)
    assert not typed.startswith("'"), "cmd knows no single quotes"
    # What is typed is what the C runtime gives the program; a backslash before the closing quote is doubled for it.
    assert split_windows(typed)[0].rstrip("\\") == path.rstrip("\\")


def test_a_dollar_is_kept_from_powershell() -> None:
    assert typed_on_windows(r"C:\$data\Ada's") == r"'C:\$data\Ada''s'"
    assert typed_on_windows("") == '""'


@pytest.mark.skipif(shutil.which("pwsh") is None, reason="PowerShell is not installed (no package registry here carries it)")
def test_powershell_itself_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = "[void][Management.Automation.Language.Parser]::ParseInput($env:TEXT, [ref]$null, [ref]$e)"
    for text in [*(block.text for block in _POWERSHELL), *map(typed_on_windows, PATHS)]:
        monkeypatch.setenv("TEXT", text)
        assert _pwsh(f"$e = $null; {parse}; $e.Count").strip() == "0", text
    show = "import json,sys;print(json.dumps(sys.argv[1:]))"
    for path in PATHS:
        command = f"& {typed_on_windows(sys.executable)} -c '{show}' {typed_on_windows(path)}"
        assert json.loads(_pwsh(command)) == [path], command


def _pwsh(command: str) -> str:
    line = ["pwsh", "-NoProfile", "-Command", command]
    return subprocess.run(line, capture_output=True, text=True, encoding="utf-8", check=False).stdout
