"""Tables of a model's keys, for the pages of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .fields import choices_of, keys_of, kind_of_key, limits_of


def fill_tables(page: str, tables: Mapping[str, type[BaseModel]]) -> str:
    """Return the page with every table between ``<!-- table NAME -->`` and ``<!-- end -->`` made anew."""
    for name, model in tables.items():
        begin, end = f"<!-- table {name} -->\n", "\n<!-- end -->"
        head, found, rest = page.partition(begin)
        if not found or end not in rest:
            raise ValueError(f"the page has no place for the table {name}")
        page = head + begin + table(model) + end + rest.partition(end)[2]
    return page


def table(model: type[BaseModel]) -> str:
    """Return a Markdown table of a model's keys."""
    rows = ["| key | type | default | unit | meaning |", "|---|---|---|---|---|"]
    for name, field in keys_of(model).items():
        extra = field.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, dict) else ""
        rows.append(f"| `{name}` | {_kind(field)} | {_default(field.default)} | {unit} | {field.description} |")
    return "\n".join(rows)


def _kind(field: FieldInfo) -> str:
    kind = kind_of_key(field)
    words = kind.words or kind.name or ("mapping" if "Settings" in str(field.annotation) else "anything")
    choices = ", ".join(f"`{choice}`" for choice in choices_of(field.annotation))
    if choices and not kind.words:
        words = f"list of {choices}" if isinstance(field.default, tuple) else choices
    limits = limits_of(field)
    if "ge" in limits and "le" in limits:
        return f"{words}, {limits['ge']:g} to {limits['le']:g}"
    return f"{words}, at least {limits['ge']:g}" if limits.get("ge") else words


def _default(value: Any) -> str:
    if value is None or value == () or value == {}:
        return ""
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
