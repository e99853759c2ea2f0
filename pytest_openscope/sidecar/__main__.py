"""``python -m pytest_openscope.sidecar --folder SESSION_FOLDER [--finish]``: puts the sidecar together and runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .loop import Helpers, PatientStderr, Sidecar, detach


def main(args: Sequence[str]) -> int:
    """Run a sidecar; ``--finish`` takes a session whose experiment process is known to be gone."""
    rest = [argument for argument in args if argument != "--finish"]
    if len(rest) != 2 or rest[0] != "--folder":
        print("usage: python -m pytest_openscope.sidecar --folder SESSION_FOLDER [--finish]", file=sys.stderr)
        return 2
    folder = Path(rest[1]).absolute()
    sys.stderr = PatientStderr()
    detach()
    return Sidecar(folder, _make_helpers, finish="--finish" in args).run()


def _make_helpers(sidecar: Sidecar) -> Helpers:
    """Import what helps; called once the session has told where its packages lie."""
    from .helpers import SessionHelpers

    return SessionHelpers(sidecar)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
