"""``openscope COMMAND`` and ``python -m pytest_openscope COMMAND``: what can be done for a rig beside running experiments."""

from .app import main
