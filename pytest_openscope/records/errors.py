"""What goes wrong before an experiment starts, in words for the operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One thing that a user must mend.

    Attributes:
        where: the file, option or environment variable that holds the mistake.
        key: dotted key inside it (``devices.laser.driver``); empty when the whole file is meant.
        problem: what is wrong, with the value received.
        remedy: what to do about it.
    """

    where: str
    problem: str
    remedy: str = ""
    key: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: {self.key}" if self.key else self.where
        return f"{place}: {self.problem}" + (f" -> {self.remedy}" if self.remedy else "")


class ConfigurationError(Exception):
    """Everything that is wrong with what the user gave, all of it at once."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))
