"""The benchmarks' own arithmetic: a verdict must be what was measured."""

from __future__ import annotations

import importlib

import pytest

from benchmarks.harness import Result, in_turn
from benchmarks.run import main, names


def test_both_sides_take_turns_after_one_warm_up_each() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    base_s, ours_s = in_turn(lambda: side("base", 2.0), lambda: side("ours", 1.0), rounds=3)
    assert "".join(name[0] for name in order) == "bo" + "bo" + "ob" + "bo"
    assert (base_s, ours_s) == ([2.0] * 3, [1.0] * 3)


def test_the_median_of_the_rounds_decides() -> None:
    result = Result("x", 1.5, base_s=[1.0, 1.0, 2.0], ours_s=[1.4, 9.0, 2.0])
    assert result.ratio == 1.4
    assert result.good
    assert str(result).startswith("ok   1.400 (target 1.5; min 1.000, max 9.000, 3 rounds)")
    assert not Result("x", 1.3, result.base_s, result.ours_s).good


def test_a_broken_promise_is_a_miss_whatever_the_ratio() -> None:
    result = Result("x", 2.0, [1.0], [1.0], broken=["lines were lost"])
    assert str(result).startswith("MISS")
    assert "NOT KEPT: lines were lost" in str(result)


def test_whatever_is_named_can_be_run() -> None:
    for name in names():
        assert callable(importlib.import_module(f"benchmarks.{name}").run), name


def test_an_unknown_name_is_refused_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"log_records", "sessions", "child_output"} <= set(names())
    with pytest.raises(SystemExit):
        main(["no-such-benchmark"])
    assert "no-such-benchmark" in capsys.readouterr().err
