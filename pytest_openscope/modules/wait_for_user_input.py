"""Ready-made step: wait until the operator presses Enter.

Parameters: ``prompt``; ``fail_if_no_input`` (default true: the pause was asked for, so a session without an operator fails
here; false goes on with a warning).
"""

from __future__ import annotations

from typing import Any

from .context import ModuleContext, ModuleFailed, ReadyMade

DEFAULT_PROMPT = "Confirm that the rig is ready, then press Enter to continue."


def would(parameters: dict[str, Any]) -> str:
    """Say what a dry run leaves out."""
    return f"wait for the operator: {_prompt(parameters)}"


def run(context: ModuleContext) -> None:
    """Show the prompt and wait.

    Raises:
        ModuleFailed: nobody is there to answer.
    """
    try:
        answer = context.ask(_prompt(context.parameters))
    except EOFError as nobody:
        if context.parameters.get("fail_if_no_input", True):
            raise ModuleFailed(
                f"nobody is there to answer: {_prompt(context.parameters)} (set fail_if_no_input to false to go on without)"
            ) from nobody
        context.logger.warning("nobody is there to answer; going on without: %s", _prompt(context.parameters))
        return
    context.logger.info("the operator goes on%s", f": {answer}" if answer else "")


STEPS = {"wait_for_user_input": ReadyMade(run, would)}


def _prompt(parameters: dict[str, Any]) -> str:
    return str(parameters.get("prompt") or DEFAULT_PROMPT)
