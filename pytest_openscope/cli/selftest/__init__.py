"""``openscope selftest``: what a computer must show before it runs experiments, done on it without a person."""

from __future__ import annotations

from .command import selftest
