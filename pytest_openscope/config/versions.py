"""Does a version fit a PEP 440 specifier? The everyday forms without importing ``packaging``, which costs some 10 ms."""

from __future__ import annotations

import operator

_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def fits_version(specifier: str, version: str) -> bool:
    """Tell whether ``version`` is in the specifier.

    Raises:
        ValueError: the text is no specifier.
    """
    verdicts = []
    for part in specifier.split(","):
        clause = part.strip()
        sign = clause[:2] if clause[:2] in _COMPARE else clause[:1]
        numbers = _release(clause[len(sign) :].strip())
        own = _release(version)
        if sign not in _COMPARE or numbers is None or own is None:
            return _fits_by_packaging(specifier, version)
        size = max(len(numbers), len(own))
        verdicts.append(_COMPARE[sign](own + [0] * (size - len(own)), numbers + [0] * (size - len(numbers))))
    return all(verdicts)


def _release(text: str) -> list[int] | None:
    parts = text.split(".")
    return [int(part) for part in parts] if all(part.isascii() and part.isdigit() for part in parts) else None


def _fits_by_packaging(specifier: str, version: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidSpecifier as error:
        raise ValueError(str(error)) from None
