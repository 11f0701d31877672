"""Pooling over windows whose steps vary at random (Graham 2014, "Fractional max-pooling")."""

from __future__ import annotations

from typing import Any

from graphflow.checks import need_floating, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply
from graphflow.errors import ShapeError
from graphflow.functions.creation import arange
from graphflow.functions.elementwise import add, mul, sub
from graphflow.functions.shaping import cat, reshape, select, unsqueeze
from graphflow.ir import types as T
from graphflow.nn.functional.pool_windows import LEADING, batched, read_at, unbatched
from graphflow.nn.sizes import per_dimension
from graphflow.promotion import cast
from graphflow.rng import rand
from graphflow.tensor import Tensor

__all__ = [
    "fractional_max_pool2d", "fractional_max_pool2d_with_indices", "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
]  # fmt: skip


def _starts(extent: int, count: int, size: int, unit: Tensor) -> Tensor:
    """[..., count]: where windows begin, for numbers ``unit`` [...] in [0, 1).

    Window i begins at ``floor((i + u) a) - floor(u a)`` with ``a = (extent - size) /
    (count - 1)``; the last one ends where the input does.
    """
    end = add(unsqueeze(cast(mul(unit, 0), T.int64), -1), extent - size)
    if count == 1:
        return end
    step = (extent - size) / (count - 1)
    places = cast(arange(count - 1), unit.dtype)
    first = cast(mul(unsqueeze(unit, -1), step), T.int64)
    begun = cast(mul(add(places, unsqueeze(unit, -1)), step), T.int64)
    return cat([sub(begun, first), end], -1)


@beside_operands
def _fractional(
    name: str, dims: int, input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any,
    samples: Tensor | None, order: tuple[int, ...],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Values and flat places; ``order``: which sample is each dimension's."""
    need_floating(name, need_tensor(name, input))
    if input.ndim not in (dims + 1, dims + 2) or 0 in input.shape[-dims - 1 :]:
        raise ShapeError(
            f"{name} takes an input of {dims + 1} or {dims + 2} dimensions that is not empty, "
            f"not one of shape {list(input.shape)}"
        )
    x = batched(input, dims)
    extents = tuple(x.shape[LEADING:])
    sizes = per_dimension(name, "kernel_size", kernel_size, dims, 1)
    counts = _counts(name, extents, output_size, output_ratio, dims)
    for extent, size, count in zip(extents, sizes, counts):
        if count < 1 or count + size - 1 > extent:
            raise ShapeError(f"{name}: {count} windows of {size} do not fit {extent} elements")
    lines = tuple(x.shape[:LEADING])
    if samples is None:
        samples = rand((*lines, dims), dtype=x.dtype if x.dtype.itemsize > 2 else T.float32)
    elif tuple(samples.shape) != (*lines, dims):
        raise ShapeError(
            f"{name}: _random_samples must have shape {[*lines, dims]}, not {list(samples.shape)}"
        )
    flat: Any = 0
    for k in range(dims):
        begin = _starts(extents[k], counts[k], sizes[k], select(samples, -1, order[k]))
        within = add(unsqueeze(begin, -1), arange(sizes[k]))
        shape = [*lines, *(1,) * (2 * dims)]
        shape[LEADING + k], shape[LEADING + dims + k] = counts[k], sizes[k]
        flat = add(mul(flat, extents[k]), reshape(within, shape))
    taps = reshape(flat, (*lines, *counts, -1))
    shown = apply(
        "gather", reshape(x.detach(), (*lines, -1)), reshape(taps, (*lines, -1)), axis=LEADING
    )
    shown = reshape(shown, tuple(taps.shape))
    best = unsqueeze(apply("argmax", shown, axis=LEADING + dims), -1)
    found, index = (
        select(apply("gather", what, best, axis=LEADING + dims), -1, 0) for what in (shown, taps)
    )
    return unbatched(read_at(x, found, index), input, dims), unbatched(index, input, dims)


def _counts(
    name: str, extents: tuple[int, ...], output_size: Any, output_ratio: Any, dims: int
) -> tuple[int, ...]:
    if (output_size is None) == (output_ratio is None):
        raise ValueError(f"{name} needs either output_size or output_ratio")
    if output_size is not None:
        return per_dimension(name, "output_size", output_size, dims, 1)
    ratios = (output_ratio,) * dims if isinstance(output_ratio, float | int) else output_ratio
    if len(ratios) != dims or not all(0 < ratio < 1 for ratio in ratios):
        raise ValueError(f"{name}: output_ratio must be between 0 and 1, not {output_ratio}")
    return tuple(int(extent * ratio) for extent, ratio in zip(extents, ratios))


def fractional_max_pool2d_with_indices(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`fractional_max_pool2d` with the place of each value in its [H, W] plane."""
    given = (input, kernel_size, output_size, output_ratio, _random_samples)
    return _fractional("fractional_max_pool2d", 2, *given, order=(1, 0))


def fractional_max_pool3d_with_indices(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`fractional_max_pool3d` with the place of each value in its [D, H, W] volume."""
    given = (input, kernel_size, output_size, output_ratio, _random_samples)
    return _fractional("fractional_max_pool3d", 3, *given, order=(0, 1, 2))


def fractional_max_pool2d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """The largest element of windows of [N, C, H, W] (or [C, H, W]) whose steps vary at random.

    ``output_size`` or ``output_ratio``, of the input's size, says how many there are.
    ``_random_samples`` [N, C, 2] are the numbers in [0, 1) that the steps come from.
    """
    given = (kernel_size, output_size, output_ratio, return_indices, _random_samples)
    found = fractional_max_pool2d_with_indices(input, *given)
    return found if return_indices else found[0]


def fractional_max_pool3d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """Like :func:`fractional_max_pool2d`, over [N, C, D, H, W] (or [C, D, H, W])."""
    given = (kernel_size, output_size, output_ratio, return_indices, _random_samples)
    found = fractional_max_pool3d_with_indices(input, *given)
    return found if return_indices else found[0]
