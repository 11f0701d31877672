"""Helpers that distributions of one's own call, by the names that scripts import."""

from __future__ import annotations

from functools import cached_property as lazy_property
from typing import Any

from graphflow.distributions.distribution import as_parameters, inside
from graphflow.functions.elementwise import log1p, sigmoid
from graphflow.nn.functional import softmax
from graphflow.rng import randn
from graphflow.tensor import Tensor

__all__ = [
    "_standard_normal", "broadcast_all", "clamp_probs", "lazy_property", "logits_to_probs",
    "probs_to_logits",
]  # fmt: skip

clamp_probs = inside


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape."""
    return tuple(as_parameters(*values))


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Logarithms of probabilities; of one event (``is_binary``) those of its odds."""
    safe = inside(probs)
    return safe.log() - log1p(-safe) if is_binary else safe.log()


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """What :func:`probs_to_logits` came from; several sum to 1 over the last axis."""
    return sigmoid(logits) if is_binary else softmax(logits, -1)


def _standard_normal(shape: Any, dtype: Any, device: Any) -> Tensor:
    return randn(tuple(shape), dtype=dtype, device=device)
