"""Norms and distances.

Gradients follow the usual choices where a norm has a corner: 0 at 0, and an
even share for each of several largest (or smallest) elements.
"""

from __future__ import annotations

from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.autocasting import in_float32
from graphflow.checks import need_dtype, need_floating, need_int, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply, literal
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.elementwise import (
    add,
    clamp,
    div,
    eq,
    gt,
    lt,
    mul,
    pow,
    sub,
    where,
)
from graphflow.functions.reductions import (
    amax,
    amin,
    count,
    like,
    normal_dim,
    reduce,
    root,
    squared_size,
    sum,
    wide,
)
from graphflow.functions.shaping import expand
from graphflow.ir.types import DType, broadcast_shapes, complex64, complex128, float32, float64
from graphflow.keywords import numpy_names
from graphflow.promotion import cast, operands

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = ["cdist", "cosine_similarity", "dist", "norm", "pairwise_distance", "pdist", "renorm"]
METHODS = ["dist", "norm", "renorm"]
IN_PLACE = ["renorm"]

FEW_POINTS = 25
"""Euclidean distances among more points than this are taken by a matrix product."""


@numpy_names
@in_float32
def norm(
    input: Tensor,
    p: float | str | None = "fro",
    dim: Any = None,
    keepdim: bool = False,
    dtype: DType | None = None,
) -> Tensor:
    """The p-norm of the values; ``"fro"`` is p = 2, ``"nuc"`` the sum of singular values."""
    need_tensor("norm", input)
    source = cast(input, need_dtype(dtype) or input.dtype)
    need_floating("norm", source)
    if isinstance(p, str) and p not in ("fro", "nuc"):
        raise ValueError(f"norm: p must be a number, 'fro' or 'nuc', not {p!r}")
    if p == "nuc":
        linalg = import_module("graphflow.linalg")
        found: Tensor = linalg.matrix_norm(source, "nuc", (-2, -1) if dim is None else dim, keepdim)
        return found
    return p_norm(source, 2.0 if p is None or isinstance(p, str) else float(p), dim, keepdim)


def p_norm(input: Tensor, p: float, dim: Any, keepdim: bool) -> Tensor:
    """(sum |x|^p)^(1/p) over ``dim``; the count of what is not 0 for p = 0, the largest or
    smallest |x| for p = ±inf.  ``input`` is floating-point or complex."""
    return like(_p_norm(wide(input), p, dim, keepdim), input)


def _p_norm(input: Tensor, p: float, dim: Any, keepdim: bool) -> Tensor:
    if p == 2:
        return root(reduce("reduce_sum", squared_size(input), dim, keepdim))
    size = apply("abs", input)
    if p == 1:
        return reduce("reduce_sum", size, dim, keepdim)
    if p == 0:
        # Elements at 0 keep a path for the gradient, which is 0.
        return reduce("reduce_sum", where(eq(size, 0), mul(size, 0.0), 1.0), dim, keepdim)
    if p in (inf, -inf):
        if count(input, dim) == 0 and input.ndim:
            raise GraphFlowError(
                f"norm: p = {p} of no elements, in a tensor of shape {list(input.shape)}"
            )
        return (amax if p > 0 else amin)(size, dim, keepdim)
    return _root_of_powers(size, p, dim, keepdim)


def _root_of_powers(size: Tensor, p: float, dim: Any, keepdim: bool) -> Tensor:
    """The general case, without the infinite slopes that powers have at 0."""
    at_zero = 0.0 if p > 0 else inf
    zero = eq(size, 0)
    powers = where(zero, at_zero, pow(where(zero, 1.0, size), p))
    total = reduce("reduce_sum", powers, dim, keepdim)
    none = eq(total, 0)
    outcome = 0.0 if p > 0 else inf
    return where(none, outcome, pow(where(none, 1.0, total), 1.0 / p))


@in_float32
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of the difference."""
    need_tensor("dist", input)
    need_tensor("dist", other, "other")
    difference = sub(input, other)
    need_floating("dist", difference)
    return p_norm(difference, float(p), None, False)


@numpy_names
@in_float32
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Every slice along ``dim`` scaled down to a p-norm of at most ``maxnorm``."""
    need_tensor("renorm", input)
    need_floating("renorm", input)
    if not p > 0:
        raise ValueError(f"renorm: p must be above 0, not {p}")
    if maxnorm < 0:
        raise ValueError(f"renorm: maxnorm must be at least 0, not {maxnorm}")
    if input.ndim < 2:
        raise ShapeError(f"renorm takes at least 2 dimensions, not {list(input.shape)}")
    axis = normal_dim(dim, input.ndim)
    others = tuple(k for k in range(input.ndim) if k != axis)
    size = p_norm(input, float(p), others, True)
    scale = where(gt(size, maxnorm), div(maxnorm, add(size, 1e-7)), 1.0)
    return mul(input, cast(scale, input.dtype))


@numpy_names
@in_float32
def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The p-norm of ``x1 - x2 + eps`` along the last dimension."""
    need_tensor("pairwise_distance", x1, "x1")
    need_tensor("pairwise_distance", x2, "x2")
    return p_norm(add(sub(x1, x2), eps), float(p), -1, keepdim)


@numpy_names
@in_float32
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along ``dim``; norms count as at least ``eps``."""
    need_tensor("cosine_similarity", x1, "x1")
    need_tensor("cosine_similarity", x2, "x2")
    a, b = operands([x1, x2])
    need_floating("cosine_similarity", a)
    try:
        shape = broadcast_shapes(tuple(a.shape), tuple(b.shape))
    except ShapeError as error:
        raise ShapeError(f"cosine_similarity: {error}") from None
    directions = []
    for x in (a, b):
        x = x if tuple(x.shape) == shape else expand(x, shape)
        size = p_norm(x, 2.0, dim, True)
        # The slope is that of the norm, whether it is raised to eps or not.
        raised = add(size, sub(clamp(size, min=eps), size).detach())
        directions.append(div(x, raised))
    return sum(mul(*directions), dim)


# ---- distances among rows ------------------------------------------------------------


@in_float32
def cdist(
    x1: Tensor,
    x2: Tensor,
    p: float = 2.0,
    compute_mode: str | int | None = "use_mm_for_euclid_dist_if_necessary",
) -> Tensor:
    """The p-norm distance between every row of ``x1`` and every row of ``x2``."""
    for name, x in (("x1", x1), ("x2", x2)):
        need_tensor("cdist", x, name)
        need_floating("cdist", x, name)
        if x.dtype in (complex64, complex128):
            raise DTypeError(f"cdist: {name} must be real, not {x.dtype.name}")
        if x.ndim < 2:
            raise ShapeError(f"cdist: {name} must have at least 2 dimensions: {list(x.shape)}")
    if x1.shape[-1] != x2.shape[-1]:
        raise ShapeError(
            f"cdist: rows of {x1.shape[-1]} and of {x2.shape[-1]} elements have no distance"
        )
    if p < 0:
        raise ValueError(f"cdist: p must be at least 0, not {p}")
    if p == 2 and x1.shape[-1] and _by_product(compute_mode, x1.shape[-2], x2.shape[-2]):
        return _euclidean(x1, x2)
    difference = sub(x1.unsqueeze(-2), x2.unsqueeze(-3))
    if not x1.shape[-1]:
        return reduce("reduce_sum", difference, -1, False)
    return p_norm(difference, float(p), -1, False)


def _by_product(compute_mode: str | int | None, rows: int, others: int) -> bool:
    """Whether Euclidean distances are taken by a matrix product."""
    modes: dict[Any, bool] = {
        "use_mm_for_euclid_dist_if_necessary": rows > FEW_POINTS or others > FEW_POINTS,
        "use_mm_for_euclid_dist": True,
        "donot_use_mm_for_euclid_dist": False,
    }
    modes.update({None: modes["use_mm_for_euclid_dist_if_necessary"]})
    modes.update({0: modes[None], 1: True, 2: False})
    if compute_mode not in modes:
        raise ValueError(f"cdist: {compute_mode!r} is not a valid value for compute_mode")
    return modes[compute_mode]


def _euclidean(x1: Tensor, x2: Tensor) -> Tensor:
    """|a - b|² = |a|² - 2ab + |b|², which rounding may take below 0."""
    ends = reduce("reduce_sum", mul(x1, x1), -1, True)
    starts = reduce("reduce_sum", mul(x2, x2), -1, True).transpose(-1, -2)
    squares = add(sub(ends, mul(x1 @ x2.transpose(-1, -2), 2.0)), starts)
    return root(where(lt(squares, 0), 0.0, squares))


@beside_operands
@in_float32
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances between the rows of a matrix, each pair once."""
    need_tensor("pdist", input)
    if input.dtype not in (float32, float64):
        raise DTypeError(f"pdist takes float32 or float64, not {input.dtype.name}")
    if input.ndim != 2:
        raise ShapeError(f"pdist takes a matrix, not a tensor of shape {list(input.shape)}")
    if p < 0:
        raise ValueError(f"pdist: p must be at least 0, not {p}")
    first, second = np.triu_indices(need_int("pdist: rows", input.shape[0]), 1)
    rows = [apply("take", input, literal(np.ascontiguousarray(k)), axis=0) for k in (first, second)]
    difference = sub(*rows)
    if not input.shape[1]:
        return reduce("reduce_sum", difference, -1, False)
    return p_norm(difference, float(p), -1, False)
