"""Hooks that this plugin calls; a lab implements them in a ``conftest.py`` or in a plugin of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .records import Failure


@pytest.hookspec(firstresult=True)
def pytest_openscope_fingerprint(failure: Failure) -> str | None:
    """Return a name of your own for the defect behind a failure; the first answer that is not None counts.

    Failures of one name share one GitHub issue, whatever else differs. The name may be any text, or a fingerprint
    (``v1:`` and 12 hexadecimal digits) to add the failure to an issue that exists.

    Args:
        failure: a copy; ``failure.fingerprint`` holds what a note ``fingerprint: …`` of the exception says.
    """
