"""CUDA devices: whether there are any, and the memory that tensors take there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphflow import rng
from graphflow.codegen.cuda.toolchain import State, state, toolchain
from graphflow.device import Device, available
from graphflow.errors import GraphFlowError
from graphflow.runtime.cuda.current import choose, current, on
from graphflow.tensor import Tensor


def is_available() -> bool:
    """Whether tensors can be put on a CUDA device here (the simulator counts as one)."""
    return state().usable


def device_count() -> int:
    """The number of CUDA devices that can be used."""
    return len(state().devices)


def is_bf16_supported() -> bool:
    """Whether there is a device: kernels hold bfloat16 in float32 on any."""
    return is_available()


def manual_seed(seed: int) -> None:
    """Accepted: random numbers are the same on every device, see ``gf.manual_seed``."""


def manual_seed_all(seed: int) -> None:
    """Accepted: random numbers are the same on every device, see ``gf.manual_seed``."""


def get_rng_state(device: Any = None) -> Tensor:
    """That of ``gf.get_rng_state()``: random numbers are the same on every device."""
    return rng.get_rng_state()


def get_rng_state_all() -> list[Tensor]:
    """One state for each device that can be used."""
    return [rng.get_rng_state() for _ in range(device_count())]


def set_rng_state(new_state: Tensor, device: Any = None) -> None:
    """That of ``gf.set_rng_state()``."""
    rng.set_rng_state(new_state)


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """The last of the states, which are one where :func:`get_rng_state_all` gave them."""
    for state_of_one in new_states:
        rng.set_rng_state(state_of_one)


def synchronize(device: Any = None) -> None:
    """Wait for all work on a device."""
    _needed("synchronize")
    with on(_index(device)):
        toolchain().cuda.synchronize()


def current_device() -> int:
    """The index of the device in use: this thread's last choice, 0 at first."""
    _needed("current_device")
    return current()


def get_device_name(device: Any = None) -> str:
    """The name of a device."""
    return _needed("get_device_name").devices[_index(device)]


def set_device(device: Any) -> None:
    """Let ``"cuda"`` without a number be this device, in this thread."""
    _needed("set_device")
    choose(_index(device))


class device:
    """A context in which a device is the one in use; it must be one that there is."""

    def __init__(self, device: Any) -> None:
        self.idx = _index(device)

    def __enter__(self) -> None:
        self._before = choose(self.idx)

    def __exit__(self, *exc: object) -> None:
        choose(self._before)


def _index(device: Any) -> int:
    if device is None:
        return current()
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
    "get_device_name",
    "get_rng_state",
    "get_rng_state_all",
    "is_available",
    "is_bf16_supported",
    "manual_seed",
    "manual_seed_all",
    "set_device",
    "set_rng_state",
    "set_rng_state_all",
    "synchronize",
]
