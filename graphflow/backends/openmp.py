"""OpenMP, which is not used: kernels are GraphFlow's, and so are their threads."""

from __future__ import annotations


def is_available() -> bool:
    """False."""
    return False
