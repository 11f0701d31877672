"""Apple's GPUs, which are not used: what scripts ask before they choose a device."""

from __future__ import annotations

from typing import Any

__all__ = ["device_count", "empty_cache", "is_available", "manual_seed"]


def is_available() -> bool:
    """False."""
    return False


def device_count() -> int:
    """0."""
    return 0


def empty_cache() -> None:
    """Accepted: there is none."""


def manual_seed(seed: Any) -> None:
    """Accepted: there is no generator."""
