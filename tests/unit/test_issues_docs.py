"""The examples of the documentation are true."""

from __future__ import annotations

import doctest
from pathlib import Path


def test_examples_of_the_fingerprint_page() -> None:
    page = Path(__file__).parents[2] / "docs" / "explanation" / "fingerprints.md"
    done = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert done.attempted > 10
    assert done.failed == 0
