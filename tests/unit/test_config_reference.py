"""The reference page, the settings and the schema say the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pytest_openscope.config.coerce import coerce
from pytest_openscope.config.model import GithubIssueSettings, Settings
from pytest_openscope.config.reference import TABLES, fill
from pytest_openscope.config.schema import GITHUB_KEYS, PARAMETER_KEYS, Key

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"
_EVERY_KEY = [(name, key) for name, keys in TABLES.items() for key in keys]


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert fill(page) == page, "run: python -m pytest_openscope.config.reference docs/reference/configuration.md"


def test_every_key_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for _, key in _EVERY_KEY:
        assert f"| `{key.name}` |" in page


def test_settings_have_the_keys_and_defaults_of_the_schema() -> None:
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    schema = {key.setting: key.default for key in PARAMETER_KEYS if key.setting}
    assert set(fields) == {"rig_id", *schema}
    for name, field in fields.items():
        if name in ("rig_id", "output_root"):
            continue
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
        assert default == schema[name], name


def test_report_settings_have_the_keys_and_defaults_of_the_schema() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(GithubIssueSettings)}
    assert defaults == {key.name: key.default if key.name != "report_wait_s" else 5.0 for key in GITHUB_KEYS}


@pytest.mark.parametrize(("table", "key"), _EVERY_KEY, ids=lambda value: value.name if isinstance(value, Key) else value)
def test_every_key_is_sound(table: str, key: Key) -> None:
    assert key.doc
    assert not key.doc.endswith(".")
    assert coerce(key, None, key.name) == key.default
    if key.choices and isinstance(key.default, str):
        assert key.default in key.choices
    if isinstance(key.default, (int, float)) and not isinstance(key.default, bool):
        assert key.minimum is None or key.default >= key.minimum
        assert key.maximum is None or key.default <= key.maximum


@pytest.mark.parametrize("name", TABLES)
def test_keys_are_unique(name: str) -> None:
    names = [key.name for key in TABLES[name]]
    assert len(names) == len(set(names))


def test_device_keys_agree_with_the_devices_part() -> None:
    from pytest_openscope.config.schema import DEVICE_KEYS
    from pytest_openscope.devices.spec import KEYS

    assert set(KEYS) <= {key.name for key in DEVICE_KEYS}
