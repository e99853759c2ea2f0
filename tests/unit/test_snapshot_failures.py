from __future__ import annotations

import sys
from typing import Any

import pytest

from pytest_openscope.records.failures import MAX_CHAIN, MAX_FRAMES_EACH_END, failure_from_exception
from pytest_openscope.records.phases import Outcome, Phase
from pytest_openscope.records.record import from_json, to_json


def caught(function: Any, *args: Any) -> BaseException:
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def links(error: BaseException) -> list[tuple[str, str]]:
    return [(link.message, link.relation) for link in failure_from_exception(error).chain]


def chained(suppress: bool, cause: bool) -> None:
    try:
        raise ValueError("root")
    except ValueError as error:
        if suppress:
            raise KeyError("top") from None
        if cause:
            raise RuntimeError("top") from error
        raise RuntimeError("top")  # noqa: B904 - the implicit context is what is tested


def test_the_chain_runs_from_the_root_cause() -> None:
    assert links(caught(chained, False, True)) == [("root", "root"), ("top", "cause")]
    assert links(caught(chained, False, False)) == [("root", "root"), ("top", "context")]
    assert links(caught(chained, True, False)) == [("'top'", "root")]


def test_cycles_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert links(first) == [("second", "root"), ("first", "cause")]
    first.__cause__ = first
    assert links(first) == [("first", "cause")] or links(first) == [("first", "root")]


def test_a_long_chain_is_bounded_and_keeps_the_last() -> None:
    error: BaseException = ValueError("0")
    for number in range(1, 500):
        following = ValueError(str(number))
        following.__context__ = error
        error = following
    chain = failure_from_exception(error).chain
    assert len(chain) <= MAX_CHAIN
    assert chain[-1].message == "499"


class GroupError(Exception):
    def __init__(self, message: str, exceptions: list[BaseException]) -> None:
        super().__init__(message)
        self.exceptions = exceptions


def test_members_of_a_group_come_before_it() -> None:
    group = GroupError("both", [ValueError("a"), GroupError("inner", [KeyError("b")])])
    found = links(group)
    assert [message for message, _ in found] == ["a", "'b'", "inner", "both"]
    assert found[-1][1] == "group"
    group.exceptions.append(group)
    assert links(group)[-1][0] == "both"


def test_a_deep_recursion_is_bounded() -> None:
    def dive(depth: int) -> None:
        dive(depth + 1)

    failure = failure_from_exception(caught(dive, 0))
    frames = failure.chain[0].frames
    assert len(frames) == 2 * MAX_FRAMES_EACH_END
    assert frames[MAX_FRAMES_EACH_END]["omitted_before"] > 100
    assert len(failure.traceback) < 20_000


class BrokenError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class Secretive:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_broken_text_is_guarded() -> None:
    def fail() -> None:
        thing = Secretive()
        raise BrokenError(str(id(thing)))

    failure = failure_from_exception(caught(fail), show_locals=True)
    assert failure.message == "<BrokenError: str() raised ZeroDivisionError>"
    assert "no repr" in str(failure.locals) or "RuntimeError" in str(failure.locals) or "Secretive" in str(failure.locals)


def test_a_sentence_of_a_key_error_stands_without_quotes() -> None:
    assert failure_from_exception(KeyError("no device 'lamp'; did you mean 'lamps'?")).message == (
        "no device 'lamp'; did you mean 'lamps'?"
    )
    assert failure_from_exception(KeyError("lamp")).message == "'lamp'"
    assert failure_from_exception(KeyError("a b", 1)).message == "('a b', 1)"


def test_notes_give_the_fingerprint() -> None:
    error = ValueError("x")
    error.__notes__ = ["a hint", "Fingerprint: shutter-stuck"]  # type: ignore[attr-defined]
    assert failure_from_exception(error).fingerprint == "shutter-stuck"
    assert failure_from_exception(error).chain[0].notes == error.__notes__  # type: ignore[attr-defined]


def test_locals_only_if_asked_for_bounded_and_masked() -> None:
    def fail() -> None:
        api_token = "abcdef123456"
        settings = {"password": "hunter22", "gain": 3}
        frames = list(range(100_000))
        text = "x" * 1_000_000
        raise ValueError(len(frames) + len(api_token) + len(text) + len(settings))

    error = caught(fail)
    assert failure_from_exception(error).locals == []
    shown = failure_from_exception(error, show_locals=True).locals[-1]["variables"]
    assert shown["api_token"] == "***"
    assert "hunter22" not in shown["settings"]
    assert "3" in shown["settings"]
    assert all(len(value) < 1000 for value in shown.values())


def test_frames_name_modules_and_skip_the_test_runner() -> None:
    failure = failure_from_exception(
        caught(chained, False, True), phase=Phase.ACQUISITION, step="video", outcome=Outcome.ERROR, when="call"
    )
    frame = failure.chain[-1].frames[-1]
    assert frame["module"] == __name__
    assert frame["function"].endswith("chained")
    assert isinstance(frame["line"], int)
    assert (failure.exception_type, failure.message, failure.when) == ("RuntimeError", "top", "call")
    assert "root" in failure.traceback
    assert "direct cause" in failure.traceback
    assert from_json("failures", to_json(failure)) == failure


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_base_exceptions_are_described(error: BaseException) -> None:
    assert failure_from_exception(error).exception_type == type(error).__name__


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no exception groups")
def test_real_groups() -> None:
    group = ExceptionGroup("both", [ValueError("a"), KeyError("b")])  # noqa: F821
    assert [message for message, _ in links(group)] == ["a", "'b'", "both (2 sub-exceptions)"]
