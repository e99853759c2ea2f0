"""YAML by the core rules of YAML 1.2."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.config.files import read_mapping
from pytest_openscope.config.yaml_rules import Wrong, keeps_text, load_yaml, plain_scalar

#: The core schema of YAML 1.2.2, chapter 10.3.2, but for decimal numbers with leading zeros.
_CORE = [
    (re.compile(r"null|Null|NULL|~|"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?(0|[1-9][0-9]*)"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)"), lambda text: -math.inf if text[0] == "-" else math.inf),
    (re.compile(r"\.(nan|NaN|NAN)"), lambda text: math.nan),
]


def _by_the_book(text: str) -> Any:
    return next((make(text) for pattern, make in _CORE if pattern.fullmatch(text)), text)


_TEXTS = "no yes on off y n No NO 00:30:00 12:30 007 0o17 017 0x1F 1_000 1e3 12e4 .5 5. +1 -0 2024-01-01 ~ null 0b1 = 1.2.3"


@pytest.mark.parametrize("text", _TEXTS.split())
def test_scalars_that_differ_between_versions(text: str) -> None:
    assert plain_scalar(text) == _by_the_book(text)


@given(st.text("0123456789+-.eExofainuUTtrRlsLN_: ", max_size=8))
def test_scalars_by_the_book(text: str) -> None:
    found, wanted = plain_scalar(text), _by_the_book(text)
    assert type(found) is type(wanted)
    assert found == wanted or (found != found and wanted != wanted)


def test_a_whole_file() -> None:
    text = """\
# comment
subject_id: 007
plain: no
time: 00:30:00
quoted: "1"
folded: >
  two
  lines
list: [1, 2.5, ~, on]
base: &base {a: 1, b: 2}
more: {<<: *base, b: 3}
tagged: !!str 5
"""
    assert load_yaml(text) == {
        "subject_id": "007",
        "plain": "no",
        "time": "00:30:00",
        "quoted": "1",
        "folded": "two lines\n",
        "list": [1, 2.5, None, "on"],
        "base": {"a": 1, "b": 2},
        "more": {"a": 1, "b": 3},
        "tagged": "5",
    }


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]", "[" * 5000, "- " * 5000, "a: 1\na: 2", "!x a", "a: 1\n---\nb: 1", "a:\n\tb: 1", "a: *b", "a: \x00", "{a: 1"],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(Wrong):
        load_yaml(text)


def test_ids_keep_their_spelling() -> None:
    assert load_yaml("{subject_id: 12e4, n: 12e4}") == {"subject_id": "12e4", "n": 120000.0}
    assert load_yaml("subject_id: 0x1F") == {"subject_id": "0x1F"}


def test_an_alias_is_no_shared_value() -> None:
    value = load_yaml("a: &x [1]\nb: *x")
    value["a"].append(2)
    assert value["b"] == [1]


def test_an_anchor_may_be_defined_again() -> None:
    assert load_yaml("[&x 1, *x, &x {y: 2}, *x]") == [1, 1, {"y": 2}, {"y": 2}]


#: PyYAML does not know surrogate pairs of escapes.
_chars = st.characters(codec="utf-8", max_codepoint=0xFFFF)
#: YAML allows 1,024 characters for a key on one line with its value; an escape takes six. Ids of a YAML file become text.
_keys = st.text(_chars, max_size=160).filter(lambda key: not keeps_text(key, 0))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(_chars),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_json_is_yaml(value: Any) -> None:
    assert load_yaml(json.dumps(value)) == value


@given(st.dictionaries(st.text("abcdef_", min_size=1, max_size=100), json_values, max_size=4))
def test_files_of_both_languages_mean_the_same(value: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.json", "a.yaml"):
            path = Path(folder) / name
            path.write_text(json.dumps(value), encoding="utf-8")
            assert read_mapping(path, name, "parameter file", []) == value


@pytest.mark.parametrize(
    ("encoding", "mark"), [("utf-8", b""), ("utf-8-sig", b""), ("utf-16", b""), ("utf-16-be", b"\xfe\xff")]
)
@pytest.mark.parametrize("suffix", ["yaml", "json", "toml"])
def test_encodings(tmp_path: Path, encoding: str, mark: bytes, suffix: str) -> None:
    text = {"yaml": "a: Größe\r\n", "json": '{"a": "Größe"}\r\n', "toml": 'a = "Größe"\r\n'}[suffix]
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(mark + text.encode(encoding))
    assert read_mapping(path, "x", "rig configuration", []) == {"a": "Größe"}


def test_toml_dates_become_text(tmp_path: Path) -> None:
    path = tmp_path / "rig.toml"
    path.write_text("calibrated = 2024-05-01\nat = 10:30:00\n[camera]\nexposure_time = 0.033\n", encoding="utf-8")
    expected = {"calibrated": "2024-05-01", "at": "10:30:00", "camera": {"exposure_time": 0.033}}
    assert read_mapping(path, "x", "rig", []) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("no", "no"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ("C:/x", "C:/x"),
        ("'5'", "5"),
        ("-3", -3),
        ("a, b", "a, b"),
    ],
)
def test_values_on_the_command_line(text: str, value: Any) -> None:
    assert load_yaml(text) == value


@given(st.text(max_size=200) | st.text("[]{}:,-#&*!|>'\"%@` \n\tab1", max_size=60))
def test_no_text_does_worse_than_a_yaml_error(text: str) -> None:
    with suppress(Wrong):
        load_yaml(text)
