"""CUDA devices: whether there are any, and the memory that tensors take there."""

from typing import TYPE_CHECKING

from graphflow.cuda.devices import (
    current_device,
    device_count,
    empty_cache,
    get_device_name,
    is_available,
    is_bf16_supported,
    manual_seed,
    manual_seed_all,
    max_memory_allocated,
    memory_allocated,
    reset_peak_memory_stats,
    set_device,
    synchronize,
)
from graphflow.later import importer

if TYPE_CHECKING:
    from graphflow.cuda import amp
else:
    __getattr__ = importer(globals(), {"amp": "graphflow.cuda.amp"})

__all__ = [
    "amp",
    "current_device",
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
