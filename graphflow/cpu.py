"""The CPU by the names of ``torch.cpu``, for scripts that ask any device the same things."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from graphflow.amp import cpu as amp

__all__ = [
    "amp", "current_device", "device_count", "is_available", "is_initialized", "set_device",
    "stream", "synchronize",
]  # fmt: skip


def is_available() -> bool:
    """True."""
    return True


def is_initialized() -> bool:
    """True: there is nothing to set up."""
    return True


def device_count() -> int:
    """1, however many cores there are."""
    return 1


def current_device() -> str:
    """``"cpu"``."""
    return "cpu"


def set_device(device: Any) -> None:
    """Accepted: there is one."""


def synchronize(device: Any = None) -> None:
    """Nothing to wait for: work is done when a call returns."""


def stream(stream: Any) -> nullcontext[None]:
    """A block in which work is done in order, as everywhere."""
    return nullcontext()
