"""``torch.accelerator``: the device to prefer over the CPU, of which there is none yet."""

from __future__ import annotations

from graphflow.device import Device


def is_available() -> bool:
    """False: this version runs on the CPU."""
    return False


def device_count() -> int:
    """The number of accelerators: 0."""
    return 0


def current_accelerator(check_available: bool = False) -> Device | None:
    """The accelerator's device, or None without one."""
    return None


__all__ = ["current_accelerator", "device_count", "is_available"]
