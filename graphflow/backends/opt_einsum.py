"""The order of products in ``einsum``, which is found without the package ``opt_einsum``."""

from __future__ import annotations

enabled: bool = False
strategy: str | None = None


def is_available() -> bool:
    """False."""
    return False
