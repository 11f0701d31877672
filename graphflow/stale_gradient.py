"""What is left of a gradient that nobody kept."""

from __future__ import annotations


class StaleGradient:
    """Stands in ``.grad`` for a gradient that a compiled step did not keep.

    What is added to it is not known either, and need not be computed.
    """

    def __init__(self, program: str) -> None:
        self.program = program
