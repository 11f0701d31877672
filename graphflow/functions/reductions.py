"""Reductions: ``gf.sum``, ``gf.mean``, ``gf.max`` … over some or all dimensions.

``dim`` is a dimension, a tuple of them, or None for all; ``keepdim`` leaves
them in the result with extent 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from graphflow.checks import need_floating, need_tensor
from graphflow.dispatch import apply, apply_view
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.elementwise import add, div, eq, exp, log, mul, sqrt, sub, where
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.promotion import cast, get_default_dtype

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "log_softmax", "logsumexp", "max", "mean",
    "min", "norm", "prod", "softmax", "std", "sum", "var",
]  # fmt: skip
METHODS = """
all amax amin any argmax argmin log_softmax logsumexp max mean min norm prod softmax std sum var
""".split()


class ValuesAndIndices(NamedTuple):
    """What ``max(dim)`` and its kin return."""

    values: Tensor
    indices: Tensor


def normal_dim(dim: int, rank: int) -> int:
    """``dim`` counted from the front; IndexError as PyTorch's when out of range."""
    if not hasattr(dim, "__index__"):
        raise TypeError(f"a dimension must be a whole number, not {dim!r}")
    dim, limit = int(dim), rank if rank else 1
    if not -limit <= dim < limit:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], "
            f"but got {dim})"
        )
    return dim % limit


def normal_dims(dim: Any, rank: int) -> tuple[int, ...]:
    """Sorted, distinct, non-negative dimensions; all of them for None or ()."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(rank))
    given = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    dims = tuple(sorted({normal_dim(d, rank) for d in given}))
    if len(dims) != len(given):
        raise ShapeError(f"a dimension appears twice in {given}")
    return dims if rank else ()


def reduce(op: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Primitive reduction ``op`` over ``dim``, with ``keepdim`` as a view."""
    shape = input.shape
    axes = normal_dims(dim, len(shape))
    out = apply(op, input, axes=axes) if axes else input.clone()
    if keepdim and axes:
        kept = tuple(1 if i in axes else d for i, d in enumerate(shape))
        out = apply_view("reshape", out, shape=kept)
    return out


def sum(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Sum; integers and bools add up in int64."""
    whole = input.dtype.kind in ("bool", "int", "uint")
    return reduce(
        "reduce_sum", cast(input, dtype or (T.int64 if whole else input.dtype)), dim, keepdim
    )


def mean(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """Arithmetic mean of floating-point values."""
    source = cast(input, dtype) if dtype else input
    if not (source.dtype.is_floating_point or source.dtype.is_complex):
        raise DTypeError(f"mean needs a floating dtype, not {source.dtype.name}; pass dtype=")
    total = reduce("reduce_sum", source, dim, keepdim)
    return div(total, count(input, dim))


def count(input: Tensor, dim: Any) -> int:
    """How many elements are folded into one result."""
    shape, number = input.shape, 1
    for axis in normal_dims(dim, len(shape)):
        number *= shape[axis]
    return number


def prod(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Product; integers and bools multiply in int64."""
    whole = input.dtype.kind in ("bool", "int", "uint")
    return reduce("reduce_prod", cast(input, T.int64) if whole else input, dim, keepdim)


def _nonempty(name: str, input: Tensor, dim: Any) -> None:
    if count(input, dim) == 0 and input.ndim:
        raise GraphFlowError(
            f"{name}: there is no element to choose from in a tensor of shape {list(input.shape)}"
        )


def amax(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Largest value; NaN if there is one.  Ties share the gradient evenly."""
    _nonempty("amax", input, dim)
    return reduce("reduce_max", input, dim, keepdim)


def amin(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Smallest value; NaN if there is one.  Ties share the gradient evenly."""
    _nonempty("amin", input, dim)
    return reduce("reduce_min", input, dim, keepdim)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the first largest value (in the flattened tensor for ``dim=None``)."""
    return _arg("argmax", input, dim, keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the first smallest value (in the flattened tensor for ``dim=None``)."""
    return _arg("argmin", input, dim, keepdim)


def _arg(op: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    _nonempty(op, input, dim)
    source = input.detach()
    if dim is None or input.ndim == 0:
        out = apply(op, source.reshape(-1), axis=0)
        return out.reshape((1,) * input.ndim) if keepdim else out
    axis = normal_dim(dim, input.ndim)
    out = apply(op, source, axis=axis)
    return out.unsqueeze(axis) if keepdim else out


def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """Largest value; with ``dim`` (values, indices); with a tensor the elementwise maximum."""
    return _extreme("argmax", "maximum", amax, input, dim, keepdim)


def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """Smallest value; with ``dim`` (values, indices); with a tensor the elementwise minimum."""
    return _extreme("argmin", "minimum", amin, input, dim, keepdim)


def _extreme(arg: str, pairwise: str, fold: Any, input: Tensor, dim: Any, keepdim: bool) -> Any:
    from graphflow.functions import elementwise
    from graphflow.tensor import Tensor

    if dim is None:
        return fold(input)
    if isinstance(dim, Tensor):
        return getattr(elementwise, pairwise)(input, dim)
    if input.ndim == 0:
        return ValuesAndIndices(input.clone(), _arg(arg, input, None, False))
    axis = normal_dim(dim, input.ndim)
    indices = _arg(arg, input, axis, True)
    values = apply("gather", input, indices, axis=axis)
    if not keepdim:
        return ValuesAndIndices(values.squeeze(axis), indices.squeeze(axis))
    return ValuesAndIndices(values, indices)


def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """True where some element is not 0."""
    return cast(reduce("reduce_max", cast(cast(input, T.bool_), T.uint8), dim, keepdim), T.bool_)


def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """True where every element is not 0."""
    return cast(reduce("reduce_min", cast(cast(input, T.bool_), T.uint8), dim, keepdim), T.bool_)


def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Variance; ``correction`` (default 1) is taken off the number of elements."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    off = (1 if unbiased else 0) if correction is None else correction
    centred = sub(input, mean(input, dim, keepdim=True))
    total = reduce("reduce_sum", mul(centred, centred), dim, keepdim)
    number = count(input, dim) - off
    return div(total, number if number > 0 else 0)


def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Standard deviation: the root of :func:`var`."""
    return sqrt(var(input, dim, unbiased, keepdim, correction=correction))


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))), computed around the largest value so that it cannot overflow."""
    source = input if input.dtype.is_floating_point else cast(input, get_default_dtype())
    largest = reduce("reduce_max", source.detach(), dim, True)
    finite = where(apply("lt", apply("abs", largest), _inf(largest)), largest, 0)
    total = reduce("reduce_sum", exp(sub(source, finite)), dim, True)
    out = add(log(total), finite)
    axes = normal_dims(dim, input.ndim)
    if keepdim or not axes:
        return out
    kept = tuple(d for i, d in enumerate(out.shape) if i not in axes)
    return apply_view("reshape", out, shape=kept)


def _inf(like: Tensor) -> Tensor:
    from graphflow.dispatch import scalar

    return scalar(float("inf"), like.dtype)


def _real(name: str, input: Tensor, dtype: DType | None) -> Tensor:
    need_tensor(name, input)
    source = cast(input, dtype) if dtype else input
    need_floating(name, source)
    return source


def softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """exp(input) over its sum along ``dim``."""
    source = _real("softmax", input, dtype)
    if not count(source, dim):
        return source.clone()  # type: ignore[no-any-return]
    weights = exp(sub(source, reduce("reduce_max", source.detach(), dim, True)))
    return div(weights, reduce("reduce_sum", weights, dim, True))


def log_softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """log(softmax(input)), without the overflow."""
    source = _real("log_softmax", input, dtype)
    if not count(source, dim):
        return source.clone()  # type: ignore[no-any-return]
    shifted = sub(source, reduce("reduce_max", source.detach(), dim, True))
    return sub(shifted, log(reduce("reduce_sum", exp(shifted), dim, True)))


def norm(input: Tensor, p: float = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The p-norm of the values (2 by default)."""
    if p == 2:
        total = reduce("reduce_sum", mul(input, input), dim, keepdim)
        # The slope of the root at 0 is infinite; the norm's there is taken as 0.
        return where(eq(total, 0), 0.0, sqrt(where(eq(total, 0), 1.0, total)))
    if p == 1:
        return reduce("reduce_sum", apply("abs", input), dim, keepdim)
    if p == float("inf"):
        return reduce("reduce_max", apply("abs", input), dim, keepdim)
    raise ValueError(f"norm supports p = 1, 2 and inf here, not {p!r}")
