"""What CUDA devices are, and what scripts ask of them beside, by PyTorch's names."""

from __future__ import annotations

from typing import Any

from graphflow import rng
from graphflow.codegen.cuda.toolchain import is_simulated, toolchain
from graphflow.cuda.devices import _index, _needed, device_count, is_available
from graphflow.cuda.memory import max_memory_reserved, mem_get_info, memory_reserved
from graphflow.errors import OutOfMemoryError
from graphflow.records import NamedTuple
from graphflow.runtime.cuda.current import on

__all__ = [
    "OutOfMemoryError", "can_device_access_peer", "get_arch_list", "get_device_capability",
    "get_device_properties", "init", "initial_seed", "ipc_collect", "is_current_stream_capturing",
    "is_initialized", "max_memory_cached", "memory_cached", "seed", "seed_all",
]  # fmt: skip


class DeviceProperties(NamedTuple):
    """What a device is: its name, memory in bytes, generation and size."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    max_threads_per_block: int


def get_device_properties(device: Any = None) -> DeviceProperties:
    """The name of a device, the bytes of its memory, its generation and its size."""
    found = _needed("get_device_properties")
    index = _index(device)
    with on(index):
        context = toolchain().cuda.current_context()
        driver = context if is_simulated() else context.device
        major, minor = driver.compute_capability
        return DeviceProperties(
            found.devices[index], int(major), int(minor), mem_get_info(index)[1],
            *(
                int(getattr(driver, name, other))  # the simulator's device has no size
                for name, other in (
                    ("MULTIPROCESSOR_COUNT", 1), ("WARP_SIZE", 32), ("MAX_THREADS_PER_BLOCK", 1024)
                )
            ),
        )  # fmt: skip


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The generation of a device, such as ``(8, 0)``."""
    found = get_device_properties(device)
    return found.major, found.minor


def get_arch_list() -> list[str]:
    """The generations that kernels are made for: those of the devices here."""
    found = {get_device_capability(i) for i in range(device_count())}
    return [f"sm_{major}{minor}" for major, minor in sorted(found)]


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """False: a copy from one device to another goes by way of the CPU."""
    _needed("can_device_access_peer")
    return False


def init() -> None:
    """Accepted where there is a device: it is started when it is first used."""
    _needed("init")


def is_initialized() -> bool:
    """Whether a device can be used."""
    return is_available()


def is_current_stream_capturing() -> bool:
    """False: there are no CUDA graphs of one's own."""
    return False


def ipc_collect() -> None:
    """Accepted: no memory on a device is shared between processes."""


def seed() -> None:
    """Accepted: random numbers are the same on every device, see ``gf.seed``."""


seed_all = seed


def initial_seed() -> int:
    """That of ``gf.initial_seed()``."""
    return rng.initial_seed()


memory_cached, max_memory_cached = memory_reserved, max_memory_reserved
