"""``python -m pytest_openscope.sidecar --folder SESSION_FOLDER [--finish]``."""

from __future__ import annotations

import sys

from .loop import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
