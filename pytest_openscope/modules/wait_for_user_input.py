"""Ready-made step: wait until the operator presses Enter."""

from __future__ import annotations

from ..config import Text, key
from .context import ModuleContext
from .failures import ModuleFailed
from .parameters import FlagText, StepParameters


class WaitForUserInput(StepParameters):
    """Parameters of ``wait_for_user_input``."""

    prompt: Text = key("Confirm that the rig is ready, then press Enter to continue.", "what the operator reads")
    fail_if_no_input: FlagText = key(True, "fail where nobody can answer; false goes on with a warning")

    def would(self) -> str:
        return f"wait for the operator: {self.prompt}"


def wait_for_user_input(context: ModuleContext, parameters: WaitForUserInput) -> str:
    """Show the prompt and wait.

    Returns:
        What the operator typed; "" for Enter alone, and where nobody is there.

    Raises:
        ModuleFailed: nobody is there to answer.
    """
    prompt = parameters.prompt
    try:
        answer = context.ask(prompt)
    except EOFError as nobody:
        if parameters.fail_if_no_input:
            raise ModuleFailed(
                f"nobody is there to answer: {prompt} (set fail_if_no_input to false to go on without)"
            ) from nobody
        context.logger.warning("nobody is there to answer; going on without: %s", prompt)
        return ""
    context.logger.info("the operator goes on%s", f": {answer}" if answer else "")
    return answer
