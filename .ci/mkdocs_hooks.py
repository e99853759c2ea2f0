"""The site's links to files beside docs/: README and the example rigs become pages, other files are named only."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def _pages() -> dict[str, str]:
    """Return the pages made of files beside docs/: path in the repository to path in the site."""
    pages = {"README.md": "readme.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
    for readme in sorted(ROOT.glob("example_rigs/*/README.md")):
        pages[readme.relative_to(ROOT).as_posix()] = f"examples/{readme.parent.name}.md"
    return pages


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    for source, page in _pages().items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite links and pictures that leave docs/, and those of the pages that came from outside of it."""
    here = page.file.src_uri
    source = next((path for path, made in _pages().items() if made == here), f"docs/{here}")

    def rewritten(match: re.Match[str]) -> str:
        mark, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in _pages():
            wanted = _pages()[path]
        elif path.startswith("docs/"):
            wanted = path.removeprefix("docs/")
        else:
            return text if text.startswith("`") else f"{text} (`{path}`)" if (ROOT / path).exists() else match[0]
        return f"{mark}[{text}]({posixpath.relpath(wanted, posixpath.dirname(here) or '.')}{anchor})"

    return _LINK.sub(rewritten, markdown)
