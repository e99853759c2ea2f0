"""Ready-made steps: ask for the animal's weight before and after the experiment.

Parameters: ``mouse_weight_g`` (answers for the operator), ``mouse_weight_minimum_g`` and ``mouse_weight_maximum_g`` (what is
plausible).
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from .context import ModuleContext, ModuleFailed, ReadyMade

FILE_NAME = "mouse_weight.csv"
_HEAD = "timestamp,stage,weight_g\n"
_ATTEMPTS = 5
_PLAUSIBLE_G = (5.0, 100.0)
_QUESTION = {stage: f"Enter animal weight {when} the experiment [g]" for stage, when in (("pre", "before"), ("post", "after"))}


def ask_before(context: ModuleContext) -> None:
    """Ask and record.

    Raises:
        ModuleFailed: nobody is there to answer, or none of five answers was plausible.
    """
    _ask_and_record(context, "pre")


def ask_after(context: ModuleContext) -> None:
    """Ask and record.

    Raises:
        ModuleFailed: nobody is there to answer, or none of five answers was plausible.
    """
    _ask_and_record(context, "post")


STEPS = {
    "mouse_weight_pre_prompt": ReadyMade(ask_before, lambda _: f"ask the operator: {_QUESTION['pre']}"),
    "mouse_weight_post_prompt": ReadyMade(ask_after, lambda _: f"ask the operator: {_QUESTION['post']}"),
}


def _ask_and_record(context: ModuleContext, stage: str) -> None:
    """Ask until the answer is plausible, record it as ``mouse_weight_<stage>`` and append it to ``mouse_weight.csv``."""
    weight_g = _weight_g(context, _QUESTION[stage])
    path = context.session_folder / FILE_NAME
    with open(path, "a", encoding="utf-8", newline="") as stream:
        stream.write(("" if path.stat().st_size else _HEAD) + f"{datetime.now().isoformat()},{stage},{weight_g:g}\n")
    context.record(f"mouse_weight_{stage}", weight_g, "g")
    context.logger.info("the animal weighs %g g (%s)", weight_g, stage)


def _weight_g(context: ModuleContext, question: str) -> float:
    low_g = _limit(context.parameters, "mouse_weight_minimum_g", _PLAUSIBLE_G[0])
    high_g = _limit(context.parameters, "mouse_weight_maximum_g", _PLAUSIBLE_G[1])
    given = context.parameters.get("mouse_weight_g")
    if given is not None:
        weight_g, problem = parse(str(given), low_g, high_g)
        if problem:
            raise ModuleFailed(f"mouse_weight_g: {problem}")
        return weight_g
    problem = ""
    for _ in range(_ATTEMPTS):
        try:
            answer = context.ask(f"{problem}. {question}" if problem else question)
        except EOFError as nobody:
            raise ModuleFailed(f"nobody is there to answer: {question} (give it as mouse_weight_g)") from nobody
        weight_g, problem = parse(answer, low_g, high_g)
        if not problem:
            return weight_g
        context.logger.warning("%s", problem)
    raise ModuleFailed(f"no plausible weight in {_ATTEMPTS} answers; the last: {problem}")


def parse(answer: str, low_g: float, high_g: float) -> tuple[float, str]:
    """Return the weight in gram and what is wrong with it ("" when nothing is); ``24,5`` and ``24.5 g`` are understood."""
    text = answer.strip().lower().removesuffix("grams").removesuffix("gram").removesuffix("g").strip().replace(",", ".", 1)
    try:
        weight_g = float(text)
    except ValueError:
        return math.nan, f"{answer!r} is no number"
    if not low_g <= weight_g <= high_g:
        return weight_g, f"{weight_g:g} g is not between {low_g:g} and {high_g:g} g"
    return weight_g, ""


def _limit(parameters: dict[str, Any], name: str, default: float) -> float:
    try:
        return float(parameters.get(name, default))
    except (TypeError, ValueError) as error:
        raise ModuleFailed(f"{name} must be a number of grams, not {parameters[name]!r}") from error
