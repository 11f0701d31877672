"""Padding in all modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.checks import need_tensor
from graphflow.errors import ShapeError
from graphflow.functions.padding import (
    check_extents,
    constant,
    reflected,
    replicated,
    sides_of,
    wrapped,
)
from graphflow.tensor import Tensor

__all__ = ["pad"]

_MODES = {"reflect": reflected, "replicate": replicated, "circular": wrapped}


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Tensor:
    """A border around ``input``.

    ``pad``: the amounts before and after the last dimension, then the one before it,
    and so on; negative amounts cut.  ``mode``: ``constant`` (with ``value``, 0 by
    default), or for the last one, two or three dimensions of a tensor that has one or two
    more: ``reflect``, ``replicate``, ``circular``.
    """
    sides = sides_of("pad", need_tensor("pad", input), pad)
    if mode == "constant":
        return constant(input, sides, 0 if value is None else value)
    if mode not in _MODES:
        raise NotImplementedError(
            f"pad: mode must be constant, reflect, replicate or circular, not {mode!r}"
        )
    if value is not None and value != 0:
        raise ValueError(f"pad: mode {mode!r} takes no value")
    padded = len(pad) // 2
    if not 1 <= padded <= 3 or input.ndim not in (padded + 1, padded + 2):
        raise NotImplementedError(
            f"pad: mode {mode!r} pads the last 1, 2 or 3 dimensions of a tensor that has one or "
            f"two more, not {padded} of {input.ndim}"
        )
    core = input.shape[input.ndim - padded - 1 :]
    padded_core = [extent + sum(side) for extent, side in zip(core[1:], sides[-padded:])]
    if mode != "circular" and (0 in core or not any(padded_core)):
        raise ShapeError(
            f"pad: mode {mode!r} needs elements in every dimension but the batch's; padding "
            f"{list(core)} by {list(pad)} gives {padded_core}"
        )
    check_extents(input, sides)
    return _MODES[mode](input, sides)
