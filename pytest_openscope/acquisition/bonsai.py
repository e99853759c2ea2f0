"""The adapter ``bonsai``: a workflow, run by Bonsai without its editor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..system import native_path
from .adapter import Adapter, Finding
from .commands import check_script, with_command
from .paths import is_absolute
from .spec import AcquisitionSpec


class BonsaiAdapter(Adapter):
    """``launcher: bonsai``; the command is that of the launcher, whose parameter files stay valid."""

    kind = "bonsai"

    def spec(self) -> AcquisitionSpec:
        """Return the command."""
        self.need(bonsai_exe_path="the program", script_path="a workflow")
        properties: list[str] = []
        for name, value in (self.parameters.get("script_parameters") or {}).items():
            properties += ["-p", f"{name}={self._property(str(name), value)}"]
        command = (
            str(self.path("bonsai_exe_path")),
            str(self.path("script_path")),
            "--start",
            "--no-editor",
            *properties,
            *self.arguments("script_arguments"),
            "-p",
            f"RootFolder={self.task.folder}",
        )
        defaults = self.task.defaults
        # Bonsai reports a broken workflow on stderr only; the launcher fails it unless told otherwise.
        unless_told = self.parameters.get("acquisition_error_terminate") is None
        return with_command(defaults, command, stderr_fails=defaults.stderr_fails or unless_told)

    def check(self, dry_run: bool) -> Iterator[Finding]:
        """Look for the workflow."""
        yield from check_script(self.parameters, self.spec().command[1], dry_run)

    def _property(self, name: str, value: Any) -> str:
        if isinstance(value, str) and value and name.lower().endswith(("_path", "_file")) and not is_absolute(value):
            return str(self.task.folder / native_path(value))
        return str(value).lower() if isinstance(value, bool) else str(value)
