"""Did you mean …? Tuned so that slips of the keyboard are caught and a lab's own names are left alone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

#: Names that people write for a known key although they are far from it letter by letter.
_SYNONYMS = {
    "outputroot": "output_root_folder",
    "statedir": "state_directory",
    "centrallogdirectory": "centralized_log_directory",
    "centralizedlogdir": "centralized_log_directory",
    "preacquisition": "pre_acquisition_pipeline",
    "postacquisition": "post_acquisition_pipeline",
}


@lru_cache(maxsize=1024)
def _folded(name: str) -> tuple[str, str, int]:
    """Return a name without case and punctuation, the same without its last digits, and which characters it has, as bits."""
    plain = "".join(char for char in name.lower() if char.isalnum())
    bits = 0
    for char in plain:
        bits |= 1 << (ord(char) & 63)
    return plain, plain.rstrip("0123456789") or plain, bits


def _allowed(length: int) -> int:
    """Edits that still make a slip, by the length of the known name: short names have too many honest neighbours."""
    return 0 if length <= 4 else 1 if length <= 10 else 2


def distance(left: str, right: str, limit: int) -> int:
    """Return the number of single edits (insert, delete, replace, swap neighbours), or ``limit + 1`` when there are more."""
    if abs(len(left) - len(right)) > limit:
        return limit + 1
    before: list[int] = []
    previous = list(range(len(right) + 1))
    for i, char in enumerate(left, 1):
        current = [i]
        for j, other in enumerate(right, 1):
            cost = min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (char != other))
            if i > 1 and j > 1 and char == right[j - 2] and left[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
        if min(current) > limit:
            return limit + 1
        before, previous = previous, current
    return min(previous[-1], limit + 1)


def nearest(word: str, known: Iterable[str], slack: int = 0) -> str | None:
    """Return the known name that ``word`` is probably a slip of; None for a name of its own.

    ``slack`` allows that many edits in short names too, where a word can only be one of ``known`` anyway.

    Differences in case, hyphens and underscores are always slips; a number at the end (``command2``) never is.
    """
    names = list(known)
    folded, stem, bits = _folded(word)
    best: tuple[int, str] | None = None
    for name in names:
        target, target_stem, target_bits = _folded(name)
        limit = max(slack, _allowed(len(target)))
        if not target or name == word or name.startswith("$") or abs(len(target) - len(folded)) > limit:
            continue
        if (bits ^ target_bits).bit_count() > 2 * limit or (stem == target_stem and folded != target):
            continue
        if {*word.lower().split("_")} < {*name.split("_")}:
            continue
        edits = distance(folded, target, limit)
        if edits <= limit and (best is None or edits < best[0]):
            best = (edits, name)
    if best is not None:
        return best[1]
    synonym = _SYNONYMS.get(folded)
    return synonym if synonym in names else None
