"""Did you mean ...? Tuned so that slips of the keyboard are caught and a lab's own names are left alone."""

from __future__ import annotations

from collections.abc import Iterable
from string import digits

#: Names that people write for a known key although they are far from it letter by letter.
_SYNONYMS = {
    "outputroot": "output_root_folder",
    "statedir": "state_directory",
    "centrallogdirectory": "centralized_log_directory",
    "centralizedlogdir": "centralized_log_directory",
    "preacquisition": "pre_acquisition_pipeline",
    "postacquisition": "post_acquisition_pipeline",
}


def _folded(name: str) -> str:
    """Return a name without case and punctuation."""
    return "".join(char for char in name.lower() if char.isalnum())


def nearest(word: str, known: Iterable[str], slack: int = 0) -> str | None:
    """Return the known name that ``word`` is probably a slip of; None for a name of its own.

    Edits are insertions, deletions, replacements and swaps of neighbours (optimal string alignment). ``slack`` allows that
    many in short names too, where a word can only be one of ``known`` anyway. Differences in case, hyphens and underscores are
    always slips; a number at the end (``command2``) never is.
    """
    from rapidfuzz.distance import OSA  # only a mistake needs it

    names = list(known)
    folded = _folded(word)
    best: tuple[int, str] | None = None
    for name in names:
        target = _folded(name)
        numbered = folded != target and folded.rstrip(digits) == target.rstrip(digits)
        part = {*word.lower().split("_")} < {*name.split("_")}
        if not target or name == word or name.startswith("$") or numbered or part:
            continue
        # Short names have too many honest neighbours.
        limit = max(slack, 0 if len(target) <= 4 else 1 if len(target) <= 10 else 2)
        edits = OSA.distance(folded, target)
        if edits <= limit and (best is None or edits < best[0]):
            best = (edits, name)
    if best is not None:
        return best[1]
    synonym = _SYNONYMS.get(folded)
    return synonym if synonym in names else None
