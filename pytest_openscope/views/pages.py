"""What all pages share: templates that escape everything, and the hashes that a page's own scripts are let run by."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment, Undefined

#: Types of the files that browsers show as pictures.
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/svg+xml")


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
