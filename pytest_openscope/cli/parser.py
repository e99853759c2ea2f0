"""The command line of ``python -m pytest_openscope COMMAND``: what is wrong is told as pytest tells it, with its exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

EXIT_USAGE = 4


class CommandParser(argparse.ArgumentParser):
    """A parser of one command's options that ends with exit code 4 where they are wrong (argparse's own is 2)."""

    def __init__(self, name: str, description: str, **more: Any) -> None:
        super().__init__(prog=f"python -m pytest_openscope {name}", description=description, **more)

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong and how the command is used; exit."""
        self.print_usage(sys.stderr)
        tell([f"{message} -> see {self.prog} --help"])
        sys.exit(EXIT_USAGE)


def tell(mistakes: Iterable[object]) -> None:
    """Print mistakes to stderr, a line each."""
    for mistake in mistakes:
        print(f"ERROR: {mistake}", file=sys.stderr)
