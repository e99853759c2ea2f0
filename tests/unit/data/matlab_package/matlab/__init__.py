"""A stand-in of MathWorks' package ``matlab``, written after its public documentation; see ``engine``."""


class double(list):  # noqa: N801 - the real one's name
    """A MATLAB array of doubles."""
