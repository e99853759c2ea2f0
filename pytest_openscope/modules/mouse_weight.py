"""Ready-made steps: ask for the animal's weight before and after the experiment."""

from __future__ import annotations

import math
from datetime import datetime

from ..config import Id, key
from .context import ModuleContext
from .failures import ModuleFailed
from .parameters import NumberText, StepParameters

FILE_NAME = "mouse_weight.csv"
_HEAD = "timestamp,stage,weight_g\n"
_ATTEMPTS = 5


class MouseWeight(StepParameters):
    """Parameters of ``mouse_weight_pre_prompt`` and ``mouse_weight_post_prompt``."""

    mouse_weight_g: Id | None = key(None, "answers for the operator, in grams: 24.5, `24,5`, `24.5 g`")
    mouse_weight_minimum_g: NumberText = key(5.0, "lightest plausible animal", "g")
    mouse_weight_maximum_g: NumberText = key(100.0, "heaviest plausible animal", "g")

    def would(self) -> str:
        return "ask the operator for the animal's weight"


def mouse_weight_pre_prompt(context: ModuleContext, parameters: MouseWeight) -> float:
    """Ask for the weight before the experiment, in g; record it as ``mouse_weight_pre`` and in ``mouse_weight.csv``.

    Raises:
        ModuleFailed: nobody is there to answer, or none of five answers was plausible.
    """
    return _ask_and_record(context, parameters, "pre", "before")


def mouse_weight_post_prompt(context: ModuleContext, parameters: MouseWeight) -> float:
    """Ask for the weight after the experiment, in g; record it as ``mouse_weight_post`` and in ``mouse_weight.csv``.

    Raises:
        ModuleFailed: nobody is there to answer, or none of five answers was plausible.
    """
    return _ask_and_record(context, parameters, "post", "after")


def _ask_and_record(context: ModuleContext, parameters: MouseWeight, stage: str, when: str) -> float:
    """Ask until the answer is plausible, and write it down."""
    weight_g = _weight_g(context, parameters, f"Enter animal weight {when} the experiment [g]")
    path = context.session_folder / FILE_NAME
    with open(path, "a", encoding="utf-8", newline="") as stream:
        stream.write(("" if path.stat().st_size else _HEAD) + f"{datetime.now().isoformat()},{stage},{weight_g:g}\n")
    context.record(f"mouse_weight_{stage}", weight_g, "g")
    context.logger.info("the animal weighs %g g (%s)", weight_g, stage)
    return weight_g


def _weight_g(context: ModuleContext, parameters: MouseWeight, question: str) -> float:
    low_g, high_g = parameters.mouse_weight_minimum_g, parameters.mouse_weight_maximum_g
    if parameters.mouse_weight_g is not None:
        weight_g, problem = parse(parameters.mouse_weight_g, low_g, high_g)
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
