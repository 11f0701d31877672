"""``torch.accelerator``: the device to prefer over the CPU, if there is one."""

from __future__ import annotations

from graphflow import cuda
from graphflow.device import Device, available


def is_available() -> bool:
    """Whether there is an accelerator."""
    return cuda.is_available()


def device_count() -> int:
    """The number of accelerators."""
    return cuda.device_count()


def current_accelerator(check_available: bool = False) -> Device | None:
    """The accelerator's device, or None without one."""
    return available("cuda") if is_available() else None


__all__ = ["current_accelerator", "device_count", "is_available"]
