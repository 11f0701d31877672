"""Intel's GPUs, which are not used."""

from graphflow.no_device import (
    device_count,
    empty_cache,
    is_available,
    manual_seed,
    manual_seed_all,
)

__all__ = ["device_count", "empty_cache", "is_available", "manual_seed", "manual_seed_all"]
