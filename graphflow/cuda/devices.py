"""CUDA devices: whether there are any, and the memory that tensors take there."""

from __future__ import annotations

from typing import Any

from graphflow.codegen.cuda.toolchain import State, state, toolchain
from graphflow.device import Device, available
from graphflow.errors import GraphFlowError


def is_available() -> bool:
    """Whether tensors can be put on a CUDA device here (the simulator counts as one)."""
    return state().usable


def device_count() -> int:
    """The number of CUDA devices that can be used."""
    return min(len(state().devices), 1)


def is_bf16_supported() -> bool:
    """Whether there is a device: kernels hold bfloat16 in float32 on any."""
    return is_available()


def manual_seed(seed: int) -> None:
    """Accepted: random numbers are the same on every device, see ``gf.manual_seed``."""


def manual_seed_all(seed: int) -> None:
    """Accepted: random numbers are the same on every device, see ``gf.manual_seed``."""


def empty_cache() -> None:
    """Nothing to do: memory that no tensor refers to is given back at once."""


def synchronize(device: Any = None) -> None:
    """Wait for all work on the device."""
    _needed("synchronize")
    toolchain().cuda.synchronize()


def current_device() -> int:
    """The index of the device in use."""
    _needed("current_device")
    return 0


def get_device_name(device: Any = None) -> str:
    """The name of a device."""
    return _needed("get_device_name").devices[_index(device)]


def set_device(device: Any) -> None:
    """Choose a device; there is one that can be chosen."""
    _needed("set_device")
    _index(device)


class device:
    """A context in which a device is the one in use; it must be one that there is."""

    def __init__(self, device: Any) -> None:
        self.idx = _index(device)

    def __enter__(self) -> None:
        """Nothing to change: there is one device."""

    def __exit__(self, *exc: object) -> None:
        """Nothing to undo."""


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors and programs hold on the device."""
    from graphflow.runtime.cuda.memory import usage

    return usage.now


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes held at one time since the start, or the last reset."""
    from graphflow.runtime.cuda.memory import usage

    return usage.most


def reset_peak_memory_stats(device: Any = None) -> None:
    """Begin anew with what :func:`max_memory_allocated` tells."""
    from graphflow.runtime.cuda.memory import usage

    usage.most = usage.now


def _index(device: Any) -> int:
    if device is None:
        return 0
    return available(device if isinstance(device, int) else Device(device)).index or 0


def _needed(name: str) -> State:
    found = state()
    if not found.usable:
        raise GraphFlowError(f"cuda.{name}(): no CUDA device is available ({found})")
    return found


__all__ = [
    "current_device",
    "device",
    "device_count",
    "empty_cache",
    "get_device_name",
    "is_available",
    "is_bf16_supported",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "memory_allocated",
    "reset_peak_memory_stats",
    "set_device",
    "synchronize",
]
