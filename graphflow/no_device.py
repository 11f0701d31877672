"""What scripts ask of kinds of devices that are not used here, before they choose one."""

from __future__ import annotations

from typing import Any


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


def manual_seed_all(seed: Any) -> None:
    """Accepted: there are no generators."""
