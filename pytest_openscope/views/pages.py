"""What pages and terminal share: templates that escape everything, hashes of scripts, pictures, texts that are UTF-8, sizes."""

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


def whole_text(text: str) -> str:
    """Return text without the lone surrogates that stand for odd bytes, which neither UTF-8 nor a database holds."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def size(count: float) -> str:
    """Return a number of bytes in the unit in which it reads best."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count:.0f} bytes"
