"""Names that Python does not tell are found in the source, and only there where they are certain."""

from __future__ import annotations

import ast
import json
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_openscope.issues.fingerprint import Sources, fingerprint_of, own_functions
from pytest_openscope.records.phases import Outcome, Phase
from pytest_openscope.records.record import ChainedException, Failure

SOURCE = textwrap.dedent(
    """
    def plain(): return 1
    class Camera:
        def grab(self):
            return 2
        class Buffer:
            async def read(self, key=lambda: 3):
                def grab():
                    return 4
                return [grab(), (lambda x:
                    5)]
        @property
        @(lambda f:
            f)
        def gain(self):
            return (x for x in
                [6])
    def make():
        global made
        def made():
            return 7
        class Local:
            def run(self):
                return {y for y in (
                    z for z in [8])}
        return Local
    """
)

#: Nothing where only the bytecode of the standard library is installed.
LIBRARY = [
    Path(module.__file__).read_text("utf-8")
    for module in (ast, json.decoder)
    if module.__file__ and module.__file__.endswith(".py")
]


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            yield value
            yield from codes(value)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not tell qualified names")
@pytest.mark.parametrize("source", [SOURCE, *LIBRARY])
def test_names_are_those_that_python_tells(source: str, tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(source, encoding="utf-8")
    found = Sources("3.10.13")
    compared = 0
    for code in codes(compile(source, str(path), "exec")):
        first = set() if code.co_name.startswith("<") else {code.co_firstlineno}
        for line in {line for _, _, line in code.co_lines() if line} - first:
            frame = {"file": str(path), "line": line, "function": code.co_name, "module": "code"}
            assert found.traced(frame)["function"] == code.co_qualname
            compared += 1
    assert compared > 10


def test_without_source_or_with_another_one_the_name_stays(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    frame = {"file": str(path), "line": 5, "function": "grab", "module": "code"}
    for text in (None, "def grab(:", "def other():\n" + "    pass\n" * 9, "\0"):
        if text is not None:
            path.write_text(text, encoding="utf-8")
        assert Sources("3.10.1").traced(frame) == frame
    path.write_text(SOURCE, encoding="utf-8")
    assert Sources("3.10.1").traced(frame)["function"] == "Camera.grab"
    assert Sources("3.11.0").traced(frame) == frame, "a name without a class is whole there"


def failed(python: str, function: str, path: Path, line: int = 5) -> str:
    frames = [{"file": str(path), "line": line, "function": function, "module": "code"}]
    chain = [ChainedException("lab.Stuck", "x", frames=frames)]
    failure = Failure("exception", Outcome.FAILED, "x", phase=Phase.ACQUISITION, step="run", chain=chain)
    return fingerprint_of(failure, (), Sources(python))


def test_methods_have_one_fingerprint_on_every_python(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(SOURCE, encoding="utf-8")
    assert failed("3.10.13", "grab", path) == failed("3.13.0", "Camera.grab", path)
    inner = "Camera.Buffer.read.<locals>.grab"
    assert failed("3.10.13", "grab", path, 9) == failed("3.13.0", inner, path, 9) != failed("3.13.0", "Camera.grab", path)


def crashed(path: str, line: int) -> str:
    stack = f'Current thread 0x1 (most recent call first):\n  File "{path}", line {line} in grab\n'
    text = f"Fatal Python error: Segmentation fault\n\n{stack}"
    failure = Failure("crash", Outcome.CRASHED, "x", step="run", signal="SIGSEGV", faulthandler=text)
    return fingerprint_of(failure, (), Sources("3.13.0"))


def test_crashes_in_methods_of_one_name_are_told_apart(tmp_path: Path) -> None:
    names = ["code.py"] if sys.platform == "win32" else ["code.py", "J\u00f6rg \U0001f42d/code.py"]
    found = set()
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(SOURCE, encoding="utf-8")
        # How faulthandler writes a path that is not ASCII.
        written = str(path).encode("ascii", "backslashreplace").decode("ascii")
        assert crashed(written, 5) != crashed(written, 9)
        found.add(crashed(written, 5))
    assert len(found) == 1, "on every path the same"


def test_a_name_does_not_depend_on_comprehensions_around_it() -> None:
    def named(function: str) -> list[str]:
        return own_functions([{"file": "/rigs/code.py", "function": function, "module": "code"}])

    assert named("f.<locals>.<listcomp>.<lambda>") == named("f.<locals>.<lambda>") == ["code:f.<locals>.<lambda>"]


def test_a_test_files_module_does_not_hold_the_way_to_it(tmp_path: Path) -> None:
    """As with ``--import-mode=importlib`` and a root folder above."""
    for name in ("home.ann.rigs.test_day", "rigs.test_day", "rigs.shutter"):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        frame = {"file": str(path), "line": 1, "function": "f", "module": name}
        expected = name if name.endswith("shutter") else "test_day"
        assert Sources("3.13.0").traced(frame)["module"] == expected
    (tmp_path / "rigs" / "__init__.py").touch()
    frame = {"file": str(tmp_path / "rigs" / "test_day.py"), "line": 1, "function": "f", "module": "rigs.test_day"}
    assert Sources("3.13.0").traced(frame)["module"] == "rigs.test_day", "a package's name belongs to it"
    gone = {**frame, "file": str(tmp_path / "gone" / "test_day.py")}
    assert Sources("3.13.0").traced(gone) == gone
