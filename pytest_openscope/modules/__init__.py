"""The pipeline steps that come with the package, and the contract of the lab's own ones."""

from __future__ import annotations

from .context import ModuleContext, ModuleFailed
from .contract import check_entries, run_entry
from .scripts import ScriptImports

__all__ = ["ModuleContext", "ModuleFailed", "ScriptImports", "check_entries", "run_entry"]
