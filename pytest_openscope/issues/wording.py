"""Faults of the network in words for the operator."""

from __future__ import annotations

REASON_CHARS = 200


def cause_in_words(problem: BaseException) -> str:
    """Say why there was no answer: by the innermost cause, since the exceptions around it quote addresses of objects."""
    import socket
    import ssl

    known: tuple[tuple[type[BaseException], str], ...] = (
        (socket.gaierror, "name not resolved"),
        (ConnectionRefusedError, "connection refused"),
        (TimeoutError, "timed out"),
        (ssl.SSLCertVerificationError, "its certificate is not accepted"),
        (ConnectionError, "connection closed"),
    )
    chain = [problem]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    for link in reversed(chain):
        words = next((words for kind, words in known if isinstance(link, kind)), "")
        if words:
            return words
    return shortened(f"{type(chain[-1]).__name__}: {chain[-1]}")


def shortened(text: str, limit: int = REASON_CHARS) -> str:
    """Return a text of at most ``limit`` characters and a "…" after its last whole word where something is left out."""
    if len(text) <= limit:
        return text
    start = text[:limit]
    return f"{start.rpartition(' ')[0] or start}…"
