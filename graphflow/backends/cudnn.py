"""cuDNN's switches; there is no cuDNN here, and results are deterministic."""

from __future__ import annotations

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False


def is_available() -> bool:
    """False."""
    return False


def version() -> int | None:
    """None, there being no cuDNN."""
    return None
