"""Memory of CUDA devices by PyTorch's names: how much is held, how much is kept for reuse."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from graphflow.codegen.cuda.toolchain import state, toolchain
from graphflow.cuda.devices import _index, _needed
from graphflow.runtime.cuda.current import current, on
from graphflow.tables import quantity, table

if TYPE_CHECKING:
    from graphflow.runtime.cuda.allocator import Allocator


def _memory(device: Any) -> Allocator:
    """The memory of a device, with everything counted that has been freed."""
    from graphflow.runtime.cuda.allocator import allocator

    found = allocator(current() if device is None else _index(device))
    found.collect()
    return found


def empty_cache() -> None:
    """Give memory that is kept for reuse back to the driver, on all devices."""
    for index in range(len(state().devices)):
        _memory(index).empty()


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors and programs hold on a device."""
    return _memory(device).allocated.now


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes held at one time since the start, or the last reset."""
    return _memory(device).allocated.most


def memory_reserved(device: Any = None) -> int:
    """Bytes that this process has of the driver: what is held, and what is kept for reuse."""
    return _memory(device).reserved.now


def max_memory_reserved(device: Any = None) -> int:
    """The most of them at one time since the start, or the last reset."""
    return _memory(device).reserved.most


def reset_peak_memory_stats(device: Any = None) -> None:
    """Begin anew with what :func:`max_memory_allocated` and :func:`max_memory_reserved` tell."""
    _memory(device).reset_peaks()


reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats


def reset_accumulated_memory_stats(device: Any = None) -> None:
    """Begin anew with what is only counted up: memory taken and freed, calls of the driver."""
    _memory(device).reset_totals()


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The numbers of :func:`memory_stats` as a table."""
    rows = [
        [name, quantity(number) if "bytes" in name else number]
        for name, number in memory_stats(device).items()
    ]
    return table(["memory", f"cuda:{_memory(device).device}"], rows)


def memory_stats(device: Any = None) -> dict[str, int]:
    """Those of PyTorch's numbers that mean something here, by its names.

    ``num_device_alloc`` counts calls of the driver, ``num_alloc_reused`` (ours) blocks that were
    kept and used again.
    """
    memory = _memory(device)
    found = {"num_alloc_retries": memory.retries, "num_ooms": memory.failures}
    for name, usage in (("allocated", memory.allocated), ("reserved", memory.reserved)):
        found[f"{name}_bytes.all.current"] = usage.now
        found[f"{name}_bytes.all.peak"] = usage.most
        found[f"{name}_bytes.all.allocated"] = usage.total
        found[f"{name}_bytes.all.freed"] = usage.total - usage.now
    found["allocation.all.current"] = memory.blocks
    found["num_device_alloc"], found["num_alloc_reused"] = memory.asked, memory.reused
    return found


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Bytes of a device that are free, as its driver says, and that it has.

    The simulator's memory has no end; its size is the largest there is.
    """
    _needed("mem_get_info")
    with on(_index(device)):
        free, total = toolchain().cuda.current_context().get_memory_info()
    return int(min(free, sys.maxsize)), int(min(total, sys.maxsize))


__all__ = [
    "empty_cache",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_accumulated_memory_stats",
    "reset_max_memory_allocated",
    "reset_max_memory_cached",
    "reset_peak_memory_stats",
]
