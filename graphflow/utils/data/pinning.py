"""Batches in page-locked memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphflow.tensor import Tensor


def pin_batches(batches: Iterator[Any]) -> Iterator[Any]:
    """Each batch with its tensors in page-locked memory."""
    return map(pinned_batch, batches)


def pinned_batch(batch: Any) -> Any:
    """A batch whose tensors are copies in page-locked memory, of the same containers.

    An object with a method ``pin_memory`` answers for itself; others stay as they are.
    """
    if isinstance(batch, Tensor) or hasattr(batch, "pin_memory"):
        return batch.pin_memory()
    if isinstance(batch, (str, bytes)):
        return batch
    if isinstance(batch, Mapping):
        pinned = {key: pinned_batch(value) for key, value in batch.items()}
        return pinned if type(batch) is dict else type(batch)(pinned)  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(pinned_batch, batch))
    if isinstance(batch, Sequence):
        items = [pinned_batch(item) for item in batch]
        return items if type(batch) is list else tuple(items)
    return batch
