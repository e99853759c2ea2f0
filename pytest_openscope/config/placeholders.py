r"""Placeholders in any text of the configuration: ``{subject_id}``, ``{rig_param:COM_port}``, ``$HOME``, ``${X}``, ``%X%``.

Values on disk use both slashes on every platform. Where a text goes on from a path that a placeholder gave
(``{output_session_folder}\notes\x.txt``), its separators become those of this platform; everything else, UNC paths among it,
stays as it is written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SESSION_FOLDER = ("output_session_folder", "session_folder")
RIG_PARAM = "rig_param:"

_REFERENCE = re.compile(r"\$\{(?P<braced>\w+)\}|\$(?P<bare>[A-Za-z_]\w*)|%(?P<percent>\w+)%|\{(?P<name>[^{}]+)\}")
#: Marks the end of a path that a placeholder gave; what goes on from there ends with the word.
_GOES_ON = "\0"
_CONTINUATION = rf"""{_GOES_ON}([^\s"'|;,<>{_GOES_ON}]*)"""


class Problem(NamedTuple):
    """A reference that cannot be followed: ``kind`` is unknown, mapping or cycle; ``name`` the key or the circle of keys."""

    kind: str
    name: str


@dataclass
class Expander:
    """Replaces placeholders; unknown ones and stray braces stay.

    Attributes:
        scalars: top-level values that ``{key}`` may name.
        rig_lookup: value of a ``{rig_param:KEY}``; raises KeyError for an unknown one.
        environ: environment variables; their content is not expanded again.
        session: values of the session's own placeholders, as far as they are known.
        windows: follow Windows' rules (``%X%``, backslashes).
        problems: what could not be followed, in the texts given to :meth:`__call__`.
    """

    scalars: Mapping[str, Any]
    rig_lookup: Callable[[str], Any]
    environ: Mapping[str, str]
    session: Mapping[str, str] = field(default_factory=dict)
    windows: bool = sys.platform == "win32"
    problems: list[Problem] = field(default_factory=list)

    def __call__(self, value: Any, name: str = "") -> Any:
        """Return ``value`` with all texts in it expanded, at any depth; ``name`` is the top-level key it stands under."""
        if isinstance(value, str):
            return self._text(value, (name,) if name else (), True)[0]
        if isinstance(value, Mapping):
            return {key: self(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self(item) for item in value]
        return value

    def number(self, text: str) -> int | float | bool | None:
        """Return the number or flag that a text stands for, if it is one placeholder and nothing else; None otherwise."""
        match = _REFERENCE.fullmatch(text.strip())
        name = (match["name"] or "").strip() if match else ""
        if name.startswith(RIG_PARAM):
            try:
                found = self.rig_lookup(name[len(RIG_PARAM) :].strip())
            except KeyError:
                return None
        else:
            found = self.scalars.get(name)
        return found if isinstance(found, (int, float)) else None

    def all(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return top-level parameters expanded; a key that refers to itself is found here."""
        return {key: self(value, key) for key, value in parameters.items()}

    def _text(self, text: str, chain: tuple[str, ...], own: bool) -> tuple[str, bool]:
        """Return the expanded text and whether it begins with a path to whose separators a continuation must keep."""
        paths: list[int] = []

        def replace(match: re.Match[str]) -> str:
            found = self._resolve(match, chain, own)
            if found is None:
                return match[0]
            content, is_path = found
            if is_path:
                paths.append(match.start())
                content += _GOES_ON
            return content

        expanded = _REFERENCE.sub(replace, text)
        if not paths:
            return expanded, False
        if paths[0] == 0:
            return self._separators(expanded.replace(_GOES_ON, "")), True
        return re.sub(_CONTINUATION, lambda match: self._separators(match[1]), expanded), False

    def _separators(self, text: str) -> str:
        return text.replace("/", "\\") if self.windows else text.replace("\\", "/")

    def _resolve(self, match: re.Match[str], chain: tuple[str, ...], own: bool) -> tuple[str, bool] | None:
        name = match["name"]
        if name is None:
            return self._environment(match)
        name = name.strip()
        if name in self.session:
            return self.session[name], name in SESSION_FOLDER
        if name in SESSION_FOLDER:
            return None
        if name.startswith(RIG_PARAM):
            return self._rig_param(name[len(RIG_PARAM) :].strip(), chain, own)
        return self._scalar(self.scalars.get(name), name, chain, own)

    def _environment(self, match: re.Match[str]) -> tuple[str, bool] | None:
        if match["percent"] and not self.windows:
            return None
        name = match["braced"] or match["bare"] or match["percent"]
        content = self.environ.get(name)
        if content is None and self.windows:
            content = self.environ.get(name.upper())
        return None if content is None else (content, self._is_path(content))

    def _is_path(self, content: str) -> bool:
        return not self.windows and content.startswith("/")

    def _rig_param(self, key: str, chain: tuple[str, ...], own: bool) -> tuple[str, bool] | None:
        try:
            value = self.rig_lookup(key)
        except KeyError:
            self._report("unknown", key, own)
            return None
        if isinstance(value, (Mapping, list)):
            self._report("mapping", key, own)
            return None
        if value is None:
            return "", False
        return self._scalar(value, key, chain, own)

    def _scalar(self, value: Any, name: str, chain: tuple[str, ...], own: bool) -> tuple[str, bool] | None:
        if not isinstance(value, (str, int, float)):
            return None
        if not isinstance(value, str):
            return str(value), False
        if name in chain:
            circle = (*chain[chain.index(name) :], name)
            self._report("cycle", " -> ".join(circle), True)
            return None
        text, led = self._text(value, (*chain, name), False)
        return text, led or self._is_path(text)

    def _report(self, kind: str, name: str, own: bool) -> None:
        problem = Problem(kind, name)
        if own and problem not in self.problems:
            self.problems.append(problem)
