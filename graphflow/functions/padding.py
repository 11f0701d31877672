"""Borders around tensors, and channels turned into pixels and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphflow.checks import need_int, need_tensor
from graphflow.dispatch import apply
from graphflow.dispatch import full as filled
from graphflow.errors import ShapeError
from graphflow.functions.shaping import cut, expand, permute, reshape
from graphflow.ir import types as T
from graphflow.promotion import as_operand

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = ["channel_shuffle", "constant_pad_nd", "pixel_shuffle", "pixel_unshuffle"]

Sides = Sequence[tuple[int, int]]
"""How many elements are added before and after each axis; negative ones are taken away."""


def sides_of(name: str, input: Tensor, pad: Any) -> list[tuple[int, int]]:
    """The pairs ``(before, after)`` of PyTorch's flat list, which begins at the last axis."""
    flat = [need_int(f"{name}: an amount of padding", n) for n in pad]
    if len(flat) % 2:
        raise ShapeError(f"{name}: the amounts come in pairs (before, after), not {len(flat)}")
    if len(flat) // 2 > input.ndim:
        raise ShapeError(
            f"{name}: {len(flat) // 2} dimensions are padded, the input has {input.ndim}"
        )
    pairs = list(zip(flat[::2], flat[1::2]))[::-1]
    return [(0, 0)] * (input.ndim - len(pairs)) + pairs


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: Any = 0) -> Tensor:
    """``value`` around the input: amounts before and after the last dimension, then the
    one before it, and so on.  Negative amounts cut."""
    return constant(input, sides_of("constant_pad_nd", need_tensor("pad", input), pad), value)


def constant(input: Tensor, sides: Sides, value: Any = 0) -> Tensor:
    """``input`` with ``value``, a number or 0-d tensor, around it."""
    check_extents(input, sides)
    check_extents(input, [(min(before, 0), min(after, 0)) for before, after in sides])
    inner = cropped(input, sides)
    low = tuple(max(before, 0) for before, _ in sides)
    high = tuple(max(after, 0) for _, after in sides)
    if hasattr(value, "_concrete"):  # not known before the program runs
        inside = filled(tuple(inner.shape), True, T.bool_)
        inside = apply("pad", inside, low=low, high=high, value=False)
        around = apply("pad", inner, low=low, high=high, value=0)
        return apply("where", inside, around, as_operand(value, input.dtype))
    kind = {"bool": bool, "int": int, "uint": int, "float": float}.get(input.dtype.kind)
    return apply("pad", inner, low=low, high=high, value=kind(value) if kind else value)


def check_extents(input: Tensor, sides: Sides) -> None:
    """Refuse amounts that would take away more elements than there are."""
    for axis, (extent, side) in enumerate(zip(input.shape, sides)):
        if extent + sum(side) < 0:
            raise ShapeError(
                f"pad: dimension {axis} of extent {extent} padded by {side} would have "
                f"{extent + sum(side)} elements"
            )


def cropped(input: Tensor, sides: Sides) -> Tensor:
    """Without the elements that negative amounts take away: a view."""
    out = input
    for axis, (before, after) in enumerate(sides):
        if before < 0 or after < 0:
            stop = out.shape[axis] - max(-after, 0)
            out = cut(out, axis, min(max(-before, 0), stop), stop, 1)
    return out


def reflected(input: Tensor, sides: Sides) -> Tensor:
    """Mirrored at the first and last element of each axis, which are not repeated."""
    for axis, side in enumerate(sides):
        if max(side) >= input.shape[axis] and max(side) > 0:
            raise ShapeError(
                f"pad: reflecting {side} elements needs a longer dimension {axis} than "
                f"{input.shape[axis]}"
            )

    def part(x: Tensor, axis: int, count: int, at_end: bool) -> Tensor:
        begin = x.shape[axis] - 1 - count if at_end else 1
        return apply("flip", cut(x, axis, begin, begin + count, 1), axes=(axis,))

    return cropped(_bordered(input, sides, part), sides)


def replicated(input: Tensor, sides: Sides) -> Tensor:
    """The first and last element of each axis repeated."""

    def part(x: Tensor, axis: int, count: int, at_end: bool) -> Tensor:
        begin = x.shape[axis] - 1 if at_end else 0
        edge = cut(x, axis, begin, begin + 1, 1)
        return expand(edge, (*x.shape[:axis], count, *x.shape[axis + 1 :]))

    return cropped(_bordered(input, sides, part), sides)


def wrapped(input: Tensor, sides: Sides) -> Tensor:
    """What leaves at one end of an axis comes in at the other."""
    for axis, (extent, side) in enumerate(zip(cropped(input, sides).shape, sides)):
        if max(side) > extent:
            raise ShapeError(
                f"pad: {side} elements wrap around dimension {axis} of {extent} elements more "
                "than once"
            )

    def part(x: Tensor, axis: int, count: int, at_end: bool) -> Tensor:
        begin = 0 if at_end else x.shape[axis] - count
        return cut(x, axis, begin, begin + count, 1)

    return _bordered(cropped(input, sides), sides, part)


def _bordered(input: Tensor, sides: Sides, part: Any) -> Tensor:
    """``part(x, axis, count, at_end)`` joined to both ends of each axis in turn."""
    out = input
    for axis, (before, after) in reversed(list(enumerate(sides))):
        parts = [out]
        if before > 0:
            parts.insert(0, part(out, axis, before, False))
        if after > 0:
            parts.append(part(out, axis, after, True))
        if len(parts) > 1:
            out = apply("concatenate", *parts, axis=axis)
    return out


# ---- channels and pixels -------------------------------------------------------------


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """``[*, C r², H, W]`` to ``[*, C, H r, W r]``: channels become pixels."""
    r = _factor("pixel_shuffle", input, upscale_factor)
    *batch, channels, height, width = input.shape
    if channels % (r * r):
        raise ShapeError(f"pixel_shuffle: {channels} channels do not divide by {r}² = {r * r}")
    channels //= r * r
    n = len(batch)
    x = reshape(input, (*batch, channels, r, r, height, width))
    x = permute(x, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return reshape(x, (*batch, channels, height * r, width * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """``[*, C, H r, W r]`` to ``[*, C r², H, W]``: pixels become channels."""
    r = _factor("pixel_unshuffle", input, downscale_factor)
    *batch, channels, height, width = input.shape
    if height % r or width % r:
        raise ShapeError(f"pixel_unshuffle: {height}×{width} pixels do not divide by {r}")
    n = len(batch)
    x = reshape(input, (*batch, channels, height // r, r, width // r, r))
    x = permute(x, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return reshape(x, (*batch, channels * r * r, height // r, width // r))


def _factor(name: str, input: Tensor, factor: int) -> int:
    if need_tensor(name, input).ndim < 3:
        raise ShapeError(f"{name}: needs at least 3 dimensions, not {input.ndim}")
    if factor <= 0:
        raise ShapeError(f"{name}: the factor must be positive, not {factor}")
    return factor


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """``[N, C, *]``: the channels of ``groups`` equal groups in turn."""
    if need_tensor("channel_shuffle", input).ndim < 3:
        raise ShapeError(f"channel_shuffle: needs at least 3 dimensions, not {input.ndim}")
    channels = input.shape[1]
    if groups <= 0 or channels % groups:
        raise ShapeError(f"channel_shuffle: {channels} channels do not divide into {groups} groups")
    rest = tuple(range(3, input.ndim + 1))
    x = reshape(input, (input.shape[0], groups, channels // groups, *input.shape[2:]))
    return reshape(permute(x, (0, 2, 1, *rest)), tuple(input.shape))
