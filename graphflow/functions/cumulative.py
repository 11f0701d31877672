"""Along a dimension: running sums and their kin, differences, integrals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphflow.autocasting import in_float32
from graphflow.checks import need_dtype, need_floating, need_int, need_tensor
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.elementwise import add, div, logical_xor, mul, sub
from graphflow.functions.reductions import ValuesAndIndices, chosen, normal_dim, sum
from graphflow.functions.shaping import cat, narrow
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.keywords import numpy_names
from graphflow.promotion import cast

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "cummax", "cummin", "cumprod", "cumsum", "cumulative_trapezoid", "diff", "gradient",
    "logcumsumexp", "trapezoid", "trapz",
]  # fmt: skip
METHODS = ["cummax", "cummin", "cumprod", "cumsum", "diff", "logcumsumexp"]
IN_PLACE = ["cumprod", "cumsum"]

# ---- running folds -------------------------------------------------------------------


@numpy_names
@in_float32
def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Sums of the elements up to each one; integers and bools add up in int64."""
    return _running("cumsum", input, dim, dtype)


@numpy_names
@in_float32
def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Products of the elements up to each one; integers and bools multiply in int64."""
    return _running("cumprod", input, dim, dtype)


def _running(op: str, input: Tensor, dim: int, dtype: DType | None) -> Tensor:
    need_tensor(op, input)
    whole = input.dtype.kind in ("bool", "int", "uint")
    source = cast(input, need_dtype(dtype) or (T.int64 if whole else input.dtype))
    if source.dtype is T.bool_:
        raise DTypeError(f"{op} is not defined for bool results; choose another dtype=")
    axis = normal_dim(dim, source.ndim)
    if source.ndim == 0:
        return apply("copy", source)
    return apply(op, source, axis=axis, reverse=False)


@numpy_names
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(cumsum(exp(input))), without the overflow."""
    need_tensor("logcumsumexp", input)
    need_floating("logcumsumexp", input)
    axis = normal_dim(dim, input.ndim)
    if input.ndim == 0:
        return apply("copy", input)
    return apply("logcumsumexp", input, axis=axis, reverse=False)


@numpy_names
def cummax(input: Tensor, dim: int) -> ValuesAndIndices:
    """The largest element up to each one, and its index (the last of equals)."""
    return _running_extreme("cummax", "cumargmax", input, dim)


@numpy_names
def cummin(input: Tensor, dim: int) -> ValuesAndIndices:
    """The smallest element up to each one, and its index (the last of equals)."""
    return _running_extreme("cummin", "cumargmin", input, dim)


def _running_extreme(name: str, op: str, input: Tensor, dim: int) -> ValuesAndIndices:
    from graphflow.functions.creation import zeros

    need_tensor(name, input)
    if input.dtype.is_complex:
        raise DTypeError(f"{name}: complex numbers have no order")
    axis = normal_dim(dim, input.ndim)
    if input.ndim == 0:
        return ValuesAndIndices(apply("copy", input), zeros((), dtype=T.int64))
    return chosen(input, apply(op, input.detach(), axis=axis), axis)


# ---- differences ---------------------------------------------------------------------


@numpy_names
def diff(
    input: Tensor,
    n: int = 1,
    dim: int = -1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """Differences of neighbours along ``dim``, taken ``n`` times (exclusive or for bools)."""
    need_tensor("diff", input)
    if input.ndim == 0:
        raise ShapeError("diff takes at least one dimension")
    need_int("diff: n", n, 0)
    axis = normal_dim(dim, input.ndim)
    if n == 0:
        return apply("copy", input)
    parts = [x for x in (prepend, input, append) if x is not None]
    out = cat(parts, axis) if len(parts) > 1 else input
    extent = out.shape[axis]
    for _ in range(n if n < extent else 0):
        left, right = _neighbours(out, axis)
        out = logical_xor(right, left) if out.dtype is T.bool_ else sub(right, left)
    return out if n < extent else narrow(out, axis, 0, 0).clone()


def _neighbours(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """All elements along ``axis`` but the last, and all but the first."""
    extent = x.shape[axis]
    less = extent - 1 if extent else 0
    return narrow(x, axis, 0, less), narrow(x, axis, extent - less, less)


@numpy_names
def gradient(
    input: Tensor, *, spacing: Any = None, dim: Any = None, edge_order: int = 1
) -> list[Tensor]:
    """The slope along each dimension, by central differences, one-sided at the ends.

    ``spacing`` is a distance (1 by default), a list of one for each dimension, or of
    the coordinates along each (1-d tensors).  Uneven coordinates and
    ``edge_order=2`` use the formulas of second order (Fornberg, "Generation of
    finite difference formulas on arbitrarily spaced grids", 1988).
    """
    need_tensor("gradient", input)
    if edge_order not in (1, 2):
        raise ValueError(f"gradient: edge_order must be 1 or 2, not {edge_order!r}")
    axes = _gradient_axes(input, dim)
    steps = _spacings(spacing, len(axes), input)
    found = []
    for axis, step in zip(axes, steps):
        extent = input.shape[axis]
        if extent < edge_order + 1:
            raise ShapeError(
                f"gradient: dimension {axis} needs at least {edge_order + 1} elements, not {extent}"
            )
        found.append(_slope(input, axis, step, edge_order))
    return found


def _gradient_axes(input: Tensor, dim: Any) -> list[int]:
    if dim is None:
        return list(range(input.ndim))
    given = list(dim) if isinstance(dim, (list, tuple)) else [dim]
    axes = [normal_dim(d, input.ndim) for d in given]
    if len(set(axes)) != len(axes):
        raise ShapeError(f"gradient: a dimension appears twice in {given}")
    return axes


def _spacings(spacing: Any, number: int, input: Tensor) -> Sequence[Any]:
    """A distance or a tensor of coordinates for each dimension."""
    if not isinstance(spacing, (list, tuple)):
        return [1 if spacing is None else spacing] * number
    if len(spacing) != number:
        raise ShapeError(f"gradient: {len(spacing)} spacings do not fit {number} dimensions")
    return spacing


def _slope(x: Tensor, axis: int, step: Any, edge_order: int) -> Tensor:
    from graphflow.tensor import Tensor

    extent = x.shape[axis]
    if isinstance(step, Tensor):
        if step.ndim != 1 or step.shape[0] != extent:
            raise ShapeError(
                f"gradient: {extent} elements along dimension {axis} need as many coordinates, "
                f"not a tensor of shape {list(step.shape)}"
            )
        shape = [1] * x.ndim
        shape[axis] = extent
        points = step.reshape(shape)
        steps = sub(*reversed(_neighbours(points, axis)))
    else:
        steps = None
    inner = _inner_slope(x, axis, step, steps)
    first = _edge_slope(x, axis, step, steps, edge_order, 0)
    last = _edge_slope(x, axis, step, steps, edge_order, extent - 1)
    return cat([first, inner, last], axis)


def _inner_slope(x: Tensor, axis: int, step: Any, steps: Tensor | None) -> Tensor:
    """Central differences at all elements but the ends."""
    extent = x.shape[axis]
    before, after = narrow(x, axis, 0, extent - 2), narrow(x, axis, 2, extent - 2)
    if steps is None:
        return div(sub(after, before), 2 * step)
    here = narrow(x, axis, 1, extent - 2)
    h, k = _neighbours(steps, axis)
    a, b, c = -k / (h * (h + k)), (k - h) / (h * k), h / (k * (h + k))
    return add(add(mul(a, before), mul(b, here)), mul(c, after))


def _edge_slope(
    x: Tensor, axis: int, step: Any, steps: Tensor | None, order: int, place: int
) -> Tensor:
    """The one-sided difference at the first or last element."""
    sign = 1 if place == 0 else -1

    def at(offset: int) -> Tensor:
        return narrow(x, axis, place + sign * offset, 1)

    def distance(index: int) -> Any:
        if steps is None:
            return step
        return narrow(steps, axis, index if place == 0 else steps.shape[axis] - 1 - index, 1)

    h = distance(0)
    if order == 1:
        return div(mul(sub(at(1), at(0)), sign), h)
    k = distance(1)
    a, b, c = -(2 * h + k) / (h * (h + k)), (h + k) / (h * k), -h / (k * (h + k))
    return mul(add(add(mul(at(0), a), mul(at(1), b)), mul(at(2), c)), sign)


# ---- integrals -----------------------------------------------------------------------


@numpy_names
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral of ``y`` along ``dim`` by the trapezoidal rule."""
    need_tensor("trapezoid", y)
    areas = _areas("trapezoid", y, x, dx, dim)
    return sum(areas, dim)


trapz = trapezoid


@numpy_names
def cumulative_trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1
) -> Tensor:
    """Integrals of ``y`` from its first element up to each other one along ``dim``."""
    need_tensor("cumulative_trapezoid", y)
    return cumsum(_areas("cumulative_trapezoid", y, x, dx, dim), dim)


def _areas(name: str, y: Tensor, x: Tensor | None, dx: Any, dim: int) -> Tensor:
    """The trapezoids between neighbours along ``dim``."""
    if y.dtype is T.bool_ or (x is not None and x.dtype is T.bool_):
        raise DTypeError(f"{name} does not take bool tensors")
    if x is not None and dx is not None:
        raise TypeError(f"{name} takes x or dx, not both")
    axis = normal_dim(dim, y.ndim)
    if y.ndim == 0:
        raise ShapeError(f"{name} takes at least one dimension")
    left, right = _neighbours(y, axis)
    heights = add(left, right)
    if x is None:
        step = 1.0 if dx is None else dx
        return div(mul(heights, step), 2.0)
    points = x
    if x.ndim == 1 and y.ndim > 1:
        if x.shape[0] != y.shape[axis]:
            raise ShapeError(
                f"{name}: x has {x.shape[0]} coordinates for {y.shape[axis]} elements along "
                f"dimension {dim}"
            )
        points = x.reshape([-1 if k == axis else 1 for k in range(y.ndim)])
    elif x.ndim < y.ndim:
        points = x.reshape((1,) * (y.ndim - x.ndim) + tuple(x.shape))
    before, after = _neighbours(points, axis - y.ndim + points.ndim)
    return div(mul(sub(after, before), heights), 2.0)
