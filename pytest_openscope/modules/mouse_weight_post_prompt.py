"""Ready-made step: ask for the animal's weight after the experiment (parameters: see ``mouse_weight``)."""

from __future__ import annotations

from typing import Any

from .context import ModuleContext
from .mouse_weight import ask_and_record, question


def would(_: dict[str, Any]) -> str:
    """Say what a dry run leaves out."""
    return f"ask the operator: {question('post')}"


def run_post_acquisition(context: ModuleContext) -> None:
    """Ask and record.

    Raises:
        ModuleFailed: nobody is there to answer, or no answer was plausible.
    """
    ask_and_record(context, "post")


run = run_post_acquisition
