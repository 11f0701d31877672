"""Dropout, elementwise and of whole channels."""

from __future__ import annotations

import warnings
from typing import Any

from graphflow.checks import need_floating, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import assign
from graphflow.errors import ShapeError
from graphflow.functions.elementwise import add, lt, mul, rsqrt, where
from graphflow.functions.shaping import squeeze, unsqueeze
from graphflow.ir import types as T
from graphflow.rng import Draw, default_generator
from graphflow.tensor import Tensor

__all__ = [
    "alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout",
]  # fmt: skip

SATURATION = -1.7580993408473766
"""What SELU tends to for very negative numbers: minus its scale times its alpha."""


def idle(name: str, input: Tensor, p: Any, training: bool) -> bool:
    """Checks, and whether there is nothing to drop."""
    need_floating(name, need_tensor(name, input))
    if not isinstance(p, Tensor) and not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    return not training or (not isinstance(p, Tensor) and p == 0)


def _kept(shape: tuple[int, ...], p: Any, draw: Draw | None = None) -> Tensor:
    """True at probability 1 - p."""
    return lt((draw or default_generator.draw()).uniform(shape, T.float32), 1.0 - p)


@beside_operands
def dropped(input: Tensor, p: Any, draw: Draw) -> Tensor:
    """:func:`dropout` while training, by the bits of ``draw``."""
    return _masked(input, _kept(tuple(input.shape), p, draw), p, False)


def _masked(input: Tensor, keep: Tensor, p: Any, inplace: bool) -> Tensor:
    if not isinstance(p, Tensor):
        scale: Any = 0.0 if p == 1 else 1.0 / (1.0 - p)
    else:
        scale = where(p < 1.0, 1.0 / (1.0 - p), 0.0)
    out = where(keep, mul(input, scale), 0.0)
    return assign(input, out) if inplace else out


def _channels(input: Tensor) -> tuple[int, ...]:
    """One number a channel of every sample."""
    if input.ndim < 2:
        raise ShapeError(
            f"channel dropout needs at least 2 dimensions, got shape {list(input.shape)}"
        )
    return (*input.shape[:2], *[1] * (input.ndim - 2))


@beside_operands
def dropout(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element at probability ``p`` and scale the rest by 1 / (1 - p)."""
    if idle("dropout", input, p, training):
        return input
    return _masked(input, _kept(tuple(input.shape), p), p, inplace)


@beside_operands
def channels_dropped(
    name: str, input: Tensor, p: Any, training: bool, inplace: bool, batched: bool
) -> Tensor:
    """Zero channels at probability ``p``; without ``batched`` the first axis numbers them."""
    if idle(name, input, p, training):
        return input
    if batched:
        return _masked(input, _kept(_channels(input), p), p, inplace)
    single = unsqueeze(input, 0)
    return squeeze(_masked(single, _kept(_channels(single), p), p, inplace), 0)


def _need_rank(name: str, input: Tensor, ranks: tuple[int, ...]) -> None:
    if need_tensor(name, input).ndim not in ranks:
        allowed = " or ".join(map(str, ranks))
        raise ShapeError(
            f"{name}: expected {allowed} dimensions, got an input of shape {list(input.shape)}"
        )


def dropout1d(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of [N, C, L] or [C, L] at probability ``p``."""
    _need_rank("dropout1d", input, (2, 3))
    return channels_dropped("dropout1d", input, p, training, inplace, input.ndim == 3)


def dropout2d(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of [N, C, H, W] at probability ``p``."""
    if need_tensor("dropout2d", input).ndim not in (3, 4):
        warnings.warn(
            f"dropout2d: expected 4 dimensions, got shape {list(input.shape)}; the second is "
            "taken as the channels",
            stacklevel=2,
        )
    return channels_dropped("dropout2d", input, p, training, inplace, True)


def dropout3d(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero whole channels of [N, C, D, H, W] or [C, D, H, W] at probability ``p``."""
    if need_tensor("dropout3d", input).ndim not in (4, 5):
        warnings.warn(
            f"dropout3d: expected 4 or 5 dimensions, got shape {list(input.shape)}", stacklevel=2
        )
    return channels_dropped("dropout3d", input, p, training, inplace, input.ndim == 5)


def _saturated(input: Tensor, shape: tuple[int, ...], p: Any, inplace: bool) -> Tensor:
    """Klambauer et al. (2017): drop to SELU's lowest value, keeping mean and variance."""
    keep = _kept(shape, p)
    if not isinstance(p, Tensor) and p == 1:
        out = mul(input, 0.0)
    else:
        spread = (1.0 - p) * (1.0 + p * SATURATION**2)
        scale = rsqrt(spread) if isinstance(spread, Tensor) else spread**-0.5
        out = add(mul(where(keep, input, SATURATION), scale), -scale * SATURATION * p)
    return assign(input, out) if inplace else out


@beside_operands
def alpha_dropout(
    input: Tensor, p: Any = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout that keeps the mean and variance of self-normalising networks."""
    if idle("alpha_dropout", input, p, training):
        return input
    return _saturated(input, tuple(input.shape), p, inplace)


@beside_operands
def feature_alpha_dropout(
    input: Tensor, p: Any = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """:func:`alpha_dropout` of whole channels."""
    if idle("feature_alpha_dropout", input, p, training):
        return input
    return _saturated(input, _channels(input), p, inplace)
