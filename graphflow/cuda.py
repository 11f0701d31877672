"""What scripts ask of ``torch.cuda`` before they decide where to run: there is no CUDA device."""

from __future__ import annotations

from typing import Any, NoReturn

from graphflow.errors import GraphFlowError


def is_available() -> bool:
    """False: this version runs on the CPU."""
    return False


def device_count() -> int:
    """The number of CUDA devices that can be used: 0."""
    return 0


def is_bf16_supported() -> bool:
    """False, there being no device."""
    return False


def manual_seed(seed: int) -> None:
    """Seed the current device's generator; nothing to do without one."""


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all devices; nothing to do without one."""


def empty_cache() -> None:
    """Give unused device memory back; nothing to do without a device."""


def synchronize(device: Any = None) -> None:
    """Wait for the work on a device; raises, there being none."""
    _refuse("synchronize")


def current_device() -> int:
    """The index of the device in use; raises, there being none."""
    _refuse("current_device")


def get_device_name(device: Any = None) -> str:
    """The name of a device; raises, there being none."""
    _refuse("get_device_name")


def set_device(device: Any) -> None:
    """Choose a device; raises, there being none."""
    _refuse("set_device")


def _refuse(name: str) -> NoReturn:
    raise GraphFlowError(f"cuda.{name}(): no CUDA device is available; this version runs on 'cpu'")


__all__ = [
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_name",
    "is_available",
    "is_bf16_supported",
    "manual_seed",
    "manual_seed_all",
    "set_device",
    "synchronize",
]
