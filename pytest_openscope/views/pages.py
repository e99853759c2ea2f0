"""What pages share: templates that escape everything, texts that are UTF-8, the hashes that a page's own scripts run by."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment, Undefined


def template_environment(folder: Path, undefined: type[Undefined]) -> Environment:
    """Return the templates of a folder; every value is escaped.

    Raises:
        ImportError: Jinja2 is not installed.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(folder)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=undefined)


def source_hash(text: str) -> str:
    """Return what a Content-Security-Policy calls an inline script or style: only these run or count."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def whole_text(text: str) -> str:
    """Return text without the lone surrogates that stand for odd bytes, which neither UTF-8 nor a database holds."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
