"""``torch.accelerator``: the device to prefer over the CPU, if there is one."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from graphflow import cpu, cuda
from graphflow.device import Device, available
from graphflow.errors import GraphFlowError


def is_available() -> bool:
    """Whether there is an accelerator."""
    return cuda.is_available()


def device_count() -> int:
    """The number of accelerators."""
    return cuda.device_count()


def current_accelerator(check_available: bool = False) -> Device | None:
    """The accelerator's device, or None without one."""
    return available("cuda") if is_available() else None


def current_device_index() -> int:
    """The number of the accelerator that new tensors lie on."""
    return cuda.current_device()


def set_device_index(device: Any) -> None:
    """Make another accelerator the current one."""
    cuda.set_device(device)


def synchronize(device: Any = None) -> None:
    """Wait until all work on an accelerator is done."""
    cuda.synchronize(device)


def get_device_module(device: Any = None) -> ModuleType:
    """``gf.cpu`` or ``gf.cuda``: of the device, or the one to prefer."""
    if device is None:
        return cuda if is_available() else cpu
    kind = device.type if isinstance(device, Device) else str(device).partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise GraphFlowError(f"get_device_module: there is no module for {device!r}")
    return cuda if kind == "cuda" else cpu


__all__ = [
    "current_accelerator", "current_device_index", "device_count", "get_device_module",
    "is_available", "set_device_index", "synchronize",
]  # fmt: skip
