"""Placeholders: what is replaced, what stays, and which way the slashes lean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.config.placeholders import Expander, Problem

SCALARS = {"subject_id": "m1", "n": 5, "x": 1.5, "root": "/data", "notes": "{output_session_folder}\\notes", "flag": True}
SCALARS |= {"greeting": "hello {subject_id}", "a": "{b}", "b": "{a}", "empty": "", "none": None, "list": [1]}
RIG = {"COM_port": "COM3", "share": "\\\\server\\data", "camera": {"gain": 2}, "home": "{subject_id}-home"}


def _expander(windows: bool = False, **session: str) -> Expander:
    folder = "D:\\out\\s 1" if windows else "/out/s 1"
    names = {"output_session_folder": folder, "session_folder": folder, "session_uuid": "s 1", **session}

    def look(key: str) -> Any:
        from pytest_openscope.config.models import look_up

        return look_up(RIG, key)

    return Expander(SCALARS, look, {"HOME": "/home/bob", "TRAP": "{subject_id}", "DRIVE": "D:"}, names, windows)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("{subject_id}_{n}_{x}", "m1_5_1.5"),
        ("{greeting}!", "hello m1!"),
        ("{rig_param:COM_port}", "COM3"),
        ("{rig_param: COM_port }", "COM3"),
        ("{rig_param:camera.gain}", "2"),
        ("{rig_param:home}", "m1-home"),
        ("{output_session_folder}\\notes\\x.txt", "/out/s 1/notes/x.txt"),
        ("{session_folder}/a\\b", "/out/s 1/a/b"),
        ("{notes}\\x.txt", "/out/s 1/notes/x.txt"),
        ("{root}\\{subject_id}", "/data/m1"),
        ("$HOME\\x", "/home/bob/x"),
        ("${HOME}/x", "/home/bob/x"),
        ("--out={output_session_folder}\\d\\x.bin C:\\k", "--out=/out/s 1/d/x.bin C:\\k"),
        ("\\\\server\\share\\{subject_id}\\{session_uuid}", "\\\\server\\share\\m1\\s 1"),
        ("{rig_param:share}\\{n}", "\\\\server\\data\\5"),
        ("C:\\data\\{subject_id}", "C:\\data\\m1"),
        ("{unknown} {subject_id} { {x} } {", "{unknown} m1 { 1.5 } {"),
        ("}{subject_id}{", "}m1{"),
        ("{{subject_id}}", "{m1}"),
        ("$NOPE ${NOPE} %HOME% $5 100%", "$NOPE ${NOPE} %HOME% $5 100%"),
        ("$TRAP", "{subject_id}"),
        ("{none} {list} {empty}|", "{none} {list} |"),
        ("\\\\server\\c$\\x", "\\\\server\\c$\\x"),
        ("{subject_id:>5}", "{subject_id:>5}"),
        ("", ""),
    ],
)
def test_on_posix(text: str, expanded: str) -> None:
    assert _expander()(text) == expanded


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("{output_session_folder}/notes/x.txt", "D:\\out\\s 1\\notes\\x.txt"),
        ("{output_session_folder}\\notes/x.txt", "D:\\out\\s 1\\notes\\x.txt"),
        ("%DRIVE%\\x %HOME% %NOPE%", "D:\\x /home/bob %NOPE%"),
        ("%drive%/x", "D:/x"),
        ("https://host/{subject_id}", "https://host/m1"),
        ("{root}/x", "/data/x"),
        ("\\\\server\\share\\{subject_id}", "\\\\server\\share\\m1"),
    ],
)
def test_on_windows(text: str, expanded: str) -> None:
    assert _expander(windows=True)(text) == expanded


def test_at_any_depth() -> None:
    value = {"a": [{"b": "{subject_id}"}, 5, None, True], "{subject_id}": "key stays"}
    assert _expander()(value) == {"a": [{"b": "m1"}, 5, None, True], "{subject_id}": "key stays"}


def test_before_the_session_has_a_name() -> None:
    expander = Expander(SCALARS, RIG.__getitem__, {})
    assert expander("{output_session_folder}\\x {session_uuid}") == "{output_session_folder}\\x {session_uuid}"


def test_problems() -> None:
    expander = _expander()
    assert expander("{rig_param:nothing} {rig_param:camera} {a}") == "{rig_param:nothing} {rig_param:camera} {a}"
    assert expander.problems == [Problem("unknown", "nothing"), Problem("mapping", "camera"), Problem("cycle", "a -> b -> a")]


texts = st.lists(
    st.sampled_from(
        ["{subject_id}", "{unknown}", "{", "}", "$HOME", "${", "\\", "/", "%", "{n}", "{rig_param:COM_port}", "{greeting}"]
    )
    | st.text(max_size=5),
    max_size=8,
).map("".join)


@given(texts)
def test_no_text_breaks_it_and_the_rest_is_still_expanded(text: str) -> None:
    expanded = _expander()(text + " {subject_id}")
    assert expanded.endswith("m1")


@given(st.text(st.characters(exclude_characters="{}$%", codec="utf-8")))
def test_text_without_references_stays(text: str) -> None:
    assert _expander()(text) == text
    assert _expander(windows=True)(text) == text


@given(texts)
def test_each_reference_is_replaced_on_its_own(text: str) -> None:
    """With no paths in play, expansion is a substitution from left to right."""
    plain = text.replace("$HOME", "").replace("\\", "")
    expander = _expander()
    halves = plain.partition(" ")
    assert expander(plain) == "".join(map(expander, halves)) or "{" in plain


@given(
    st.dictionaries(
        st.sampled_from("abcdef"), st.lists(st.sampled_from(["{a}", "{b}", "{c}", "{d}", "-"]), max_size=3).map("".join)
    )
)
def test_circles_always_end_and_are_always_told(scalars: dict[str, str]) -> None:
    expander = Expander(scalars, {}.__getitem__, {})
    expanded = expander.all(scalars)
    edges = {key: {part for part in scalars if f"{{{part}}}" in value} for key, value in scalars.items()}

    def reaches(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [*edges[start]]
        while todo:
            key = todo.pop()
            if key not in seen:
                seen.add(key)
                todo.extend(edges[key])
        return seen

    circular = any(key in reaches(key) for key in scalars)
    assert any(problem.kind == "cycle" for problem in expander.problems) == circular
    if not circular:
        assert all(f"{{{key}}}" not in text for text in expanded.values() for key in scalars)
