"""Which of several values counts, seen in what the session wrote down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Rig


def test_ini_below_environment_below_param_below_option(bench: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("subject_id", "user_id", "trials", "frames")
    bench.write("pytest.ini", "[pytest]\nopenscope_param =\n" + "".join(f"    {key}=ini\n" for key in keys))
    bench.steps("def test_run(): pass")
    monkeypatch.setenv("OPENSCOPE_SUBJECT_ID", "env")
    monkeypatch.setenv("OPENSCOPE_USER_ID", "env")
    arguments = ("--param", "frames=param", "--param", "user_id=param", "--user-id", "option", "--no-input")
    result = bench.run("--rig-config", "rig.yaml", *arguments, rig=False)
    assert result.ret == 0
    assert {key: bench.metadata("processed_parameters.json")[key] for key in keys} == {
        "subject_id": "env",
        "user_id": "option",
        "trials": "ini",
        "frames": "param",
    }
    sources = bench.metadata("command_line_arguments.json")["value_sources"]
    assert sources["trials"].startswith("openscope_param in ")
    assert sources["frames"] == "--param"
