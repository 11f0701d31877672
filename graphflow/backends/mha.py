"""The switch of the shortcut that PyTorch's attention layers take in evaluation."""

from __future__ import annotations

_enabled = [True]


def get_fastpath_enabled() -> bool:
    """What was set last; nothing depends on it."""
    return _enabled[0]


def set_fastpath_enabled(value: bool) -> None:
    """Remember ``value``."""
    _enabled[0] = value
