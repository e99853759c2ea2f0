"""Layers, their sources, and --param."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.config.layers import apply_override, overlay, parse_override, source_of
from pytest_openscope.config.models import look_up
from pytest_openscope.config.suggest import nearest
from pytest_openscope.config.yaml_rules import Wrong

keys = st.text("abc", min_size=1, max_size=2)
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(keys, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)
layers = st.dictionaries(keys, values, max_size=4)


def _merged(*given_layers: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    target: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for number, layer in enumerate(given_layers):
        overlay(target, layer, f"layer {number}", sources)
    return target, sources


def _leaves(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict) and (value or not path):
        return [leaf for key, item in value.items() for leaf in _leaves(item, f"{path}.{key}" if path else key)]
    return [path]


@given(layers, layers)
def test_the_upper_layer_wins_and_nothing_is_lost(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    merged, _ = _merged(lower, upper)
    for key, value in upper.items():
        if isinstance(value, dict):
            assert isinstance(merged[key], dict)
            assert value.keys() <= merged[key].keys()
        else:
            assert merged[key] == value
    for key, value in lower.items():
        if key not in upper:
            assert merged[key] == value


@given(layers, layers, layers)
def test_merging_is_associative(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    left, _ = _merged(_merged(one, two)[0], three)
    right, _ = _merged(one, two, three)
    assert left == right


@given(layers)
def test_merging_nothing_or_the_same_changes_nothing(layer: dict[str, Any]) -> None:
    assert _merged(layer)[0] == layer
    assert _merged(layer, layer)[0] == layer
    assert _merged(layer, {})[0] == layer


@given(layers, layers)
def test_layers_are_not_changed_by_later_work(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    before = copy.deepcopy((lower, upper))
    merged, _ = _merged(lower, upper)
    for value in merged.values():
        if isinstance(value, dict):
            value["new"] = 1
        elif isinstance(value, list):
            value.append(1)
    assert (lower, upper) == before


@given(layers, layers)
def test_every_leaf_has_one_source(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    merged, sources = _merged(lower, upper)
    assert set(sources) == set(_leaves(merged))


def test_source_of_parts_and_wholes() -> None:
    _, sources = _merged({"a": {"b": 1, "c": [1]}}, {"a": {"b": 2}})
    assert source_of(sources, "a.b") == "layer 1"
    assert source_of(sources, "a.c.0") == "layer 0"
    assert source_of(sources, "a") in ("layer 0", "layer 1")
    assert source_of(sources, "zz", "nobody") == "nobody"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a=1", "a", 1),
        ("a.b.0=x", "a.b.0", "x"),
        ("a=", "a", ""),
        ("a=null", "a", None),
        ("a==b", "a", "=b"),
        ("a=x=y", "a", "x=y"),
        ("a=no", "a", "no"),
        ("a=[1, 2]", "a", [1, 2]),
        ("a={b: {c: 1}}", "a", {"b": {"c": 1}}),
        (" a = 5 ", "a", 5),
        ("subject_id=007", "subject_id", "007"),
        ("subject_id=12e4", "subject_id", "12e4"),
        ("a=C:\\data\\x", "a", "C:\\data\\x"),
        ("a={subject_id}_x", "a", None),
    ],
)
def test_grammar(text: str, key: str, value: Any) -> None:
    if "{subject_id}" in text:
        with pytest.raises(Wrong, match=r"no (valid )?YAML"):
            parse_override(text)
        return
    assert parse_override(text) == (key, value)


@given(
    st.text("abc_", min_size=1, max_size=5),
    st.none() | st.booleans() | st.integers() | st.lists(st.integers()) | st.text("xyz ", min_size=1),
)
def test_any_json_value_can_be_given(key: str, value: Any) -> None:
    assert parse_override(f"{key}={json.dumps(value)}") == (key, value)


@given(st.text(max_size=60))
def test_any_text_is_an_override_or_a_mistake(text: str) -> None:
    try:
        key, _ = parse_override(text)
    except Wrong:
        return
    assert key


@given(layers, st.lists(keys, min_size=1, max_size=3), values)
def test_what_is_set_can_be_read(target: dict[str, Any], parts: list[str], value: Any) -> None:
    key = ".".join(parts)
    try:
        apply_override(target, key, value, "--param", {})
    except Wrong:
        return
    found = look_up(target, key)
    assert found == value or (isinstance(value, dict) and value.keys() <= found.keys())


def test_into_lists_entries_and_dotted_names() -> None:
    target = {
        "pre_acquisition_pipeline": ["disk_space_check", {"module_path": "b", "module_parameters": {"x": 1}}],
        "script_parameters": {"Node.Gain": 1},
    }
    sources: dict[str, str] = {"pre_acquisition_pipeline": "day1.json"}
    for key, value in (
        ("pre_acquisition_pipeline.0.module_parameters.required_free_gb", 1),
        ("pre_acquisition_pipeline.1.module_parameters.x", 2),
        ("script_parameters.Node.Gain", 5),
        ("log_levels.my_lab.camera", "DEBUG"),
    ):
        apply_override(target, key, value, "--param", sources)
    assert target == {
        "pre_acquisition_pipeline": [
            {
                "module_type": "launcher_module",
                "module_path": "disk_space_check",
                "module_parameters": {"required_free_gb": 1},
            },
            {"module_path": "b", "module_parameters": {"x": 2}},
        ],
        "script_parameters": {"Node.Gain": 5},
        "log_levels": {"my_lab.camera": "DEBUG"},
    }
    assert sources["pre_acquisition_pipeline"] == "day1.json"
    assert sources["pre_acquisition_pipeline.1.module_parameters.x"] == "--param"


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("supject_id", "subject_id"),
        ("SubjectId", "subject_id"),
        ("subject-id", "subject_id"),
        ("devcies", "devices"),
        ("pre_aquisition_pipeline", "pre_acquisition_pipeline"),
        ("output_root", "output_root_folder"),
        ("centralised_log_directory", "centralized_log_directory"),
    ],
)
def test_slips_are_caught(word: str, near: str) -> None:
    from pytest_openscope.config.models import KNOWN_IN_RIG, PIPELINES

    assert nearest(word, (*KNOWN_IN_RIG, *PIPELINES)) == near


_LAB = """COM_port DisplayDeviceIndex WindowStateIndex camera cameras laser laser_power_mw exposure_time port ports host url
display screen monitor subject user mouse mouse_id animal_id rig rig_name site computer_name data_root data_folder output
backup_dir network_dir session_dir video sync sync_port nidaq daq stage serial serial_port baud stimulus stimulus_path
stim script scripts
experiment project project_name protocol protocols notes log logs log_dir level levels timeout data mirror python matlab bonsai
bonsai_path repository repo git commit branch workflow pipeline modules device_name frame_rate FrameRate gain lick_spout
reward_ul valve_ms wheel version command2 camera2 launcher_path description comment owner contact required_free_gb
rig_description_path instrument_json_source_root experiment_notes_editor_command active platform mode enabled session"""


@pytest.mark.parametrize("word", _LAB.split())
def test_a_labs_own_keys_are_left_alone(word: str) -> None:
    from pytest_openscope.config.models import KNOWN_IN_RIG, PIPELINES

    assert nearest(word, (*KNOWN_IN_RIG, *PIPELINES)) is None
