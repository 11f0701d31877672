"""Reductions: fold the axes ``axes`` (a sorted tuple), which leave the shape.

Sums and products keep the operand's dtype (the front widens small integers);
half precision accumulates in single.  ``argmax`` and ``argmin`` fold one
``axis`` and yield positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.errors import ShapeError
from graphflow.ir.dims import Dim, SymDim, dim_product
from graphflow.ir.op import (
    NON_DIFFERENTIABLE,
    Application,
    Array,
    Builder,
    Kind,
    OpDef,
    OperandRule,
    OpTests,
    PartsRule,
    Reduction,
    Sample,
    register,
)
from graphflow.ir.ops import batches, complex_parts, orders
from graphflow.ir.ops.gradients import mask, repeat_axes, restore_axes, scalar, shifted
from graphflow.ir.ops.rules import (
    NUMBER,
    ORDERED,
    Attrs,
    check_arity,
    check_axis,
    require,
    spelled,
)
from graphflow.ir.types import DType, TensorType, int64

NUMBERS = ("f32", "f64", "i64", "i32")
FUSED = 8
"""Running products of up to so many elements are multiplied out, longer ones are scans."""
LONG = 4096
"""Folds in turn of more elements than this would lose digits of single precision."""
EVERY = ("f32", "f64", "i64", "u8", "bool")


def lowest(dtype: DType) -> bool | int | float:
    """The value that every other is at least: the identity of ``maximum``."""
    if dtype.kind == "bool":
        return False
    if dtype.is_floating_point:
        return -np.inf
    return int(np.iinfo(dtype.numpy).min)


def highest(dtype: DType) -> bool | int | float:
    """The value that every other is at most: the identity of ``minimum``."""
    if dtype.kind == "bool":
        return True
    if dtype.is_floating_point:
        return np.inf
    return int(np.iinfo(dtype.numpy).max)


def reduced_axes(name: str, types: Sequence[TensorType], attrs: Attrs) -> tuple[int, ...]:
    """The ``axes`` attribute, checked: sorted, distinct, in range."""
    axes = attrs.get("axes")
    if not isinstance(axes, tuple):
        raise ShapeError(f"{spelled(name, types)}: axes must be a tuple, not {axes!r}")
    for axis in axes:
        check_axis(name, types, axis, types[0].rank)
    if list(axes) != sorted(set(axes)):
        raise ShapeError(f"{spelled(name, types)}: axes {axes} must be increasing")
    return axes


def _rule(name: str, kinds: frozenset[str], empty: bool) -> Callable[..., TensorType]:
    """Drops the axes; ``empty``: a fold over no elements has a value."""

    def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        check_arity(name, types, 1)
        require(name, types, kinds)
        axes = reduced_axes(name, types, attrs)
        shape = types[0].shape
        if not empty and any(shape[axis] == 0 for axis in axes):
            raise ShapeError(f"{spelled(name, types)}: axes {axes} hold no elements to choose from")
        kept = tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
        return TensorType(types[0].dtype, kept)

    return infer


def _samples(extra: tuple[Sample, ...] = (), empty: bool = False) -> tuple[Sample, ...]:
    """Calls over one axis, several, all, none, size-1 and (where allowed) empty axes."""
    cases: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((5,), (0,)), ((3, 4), (1,)), ((3, 4), (0,)), ((3, 4), (0, 1)), ((2, 3, 4), (0, 2)),
        ((2, 3, 4), (1,)), ((2, 1, 4), (1,)), ((), ()), ((3, 4), ()), ((0, 3), (1,)),
    ]  # fmt: skip
    if empty:
        cases += [((0, 3), (0,)), ((2, 0), (0, 1))]
    return tuple(Sample((shape,), {"axes": axes}) for shape, axes in cases) + extra


def reduction(
    name: str,
    summary: str,
    *,
    reference: Callable[..., Any],
    fold: Reduction,
    vjp: OperandRule,
    parts: PartsRule | None = None,
    kinds: frozenset[str],
    dtypes: tuple[str, ...],
    empty: bool,
    picks: bool = False,
    samples: tuple[Sample, ...] = (),
) -> OpDef:
    """Register a reduction; ``empty``: folding no elements is allowed."""
    return register(
        OpDef(
            name=name,
            kind=Kind.REDUCTION,
            summary=summary,
            infer=_rule(name, kinds, empty),
            batched=batches.TOGETHER,
            reference=reference,
            vjp=(vjp,),
            parts=parts,
            reduction=fold,
            picks=picks,
            reordered=orders.folded,
            tests=OpTests(
                tolerance={"f32": 2e-6, "f64": 1e-13},
                dtypes=dtypes,
                samples=_samples(samples, empty),
            ),
        )
    )


# ---- sum and product -----------------------------------------------------------------


def _folding(ufunc: Any) -> Callable[..., Any]:
    def reference(x: Array, *, axes: tuple[int, ...]) -> Array:
        wide = np.float32 if _is_half(x) else x.dtype
        if x.dtype.itemsize <= 4 and x.dtype.kind not in "iub" and _is_long(x, axes):
            wide = np.dtype(np.float64)
        return ufunc.reduce(x, axis=axes, dtype=wide).astype(x.dtype, copy=False)

    return reference


def _is_long(x: Array, axes: tuple[int, ...]) -> bool:
    """True where NumPy folds many elements one after the other: it works pairwise, which
    keeps the digits, only along what is contiguous."""
    number = 1
    for axis in axes:
        number *= x.shape[axis]
    trailing = axes == tuple(range(x.ndim - len(axes), x.ndim)) and x.flags.c_contiguous
    return number > LONG and not trailing


def _is_half(x: Array) -> bool:
    return x.dtype.itemsize == 2 and x.dtype.kind not in "iu"


def _sum_vjp(b: Builder, n: Application, ct: Any) -> Any:
    x = n.inputs[0]
    return repeat_axes(b, ct, n.attrs["axes"], x.shape)


def _prod_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """The product of all the *other* elements, which stays right where some are 0."""
    x, axes = n.inputs[0], n.attrs["axes"]
    repeated = repeat_axes(b, ct, axes, x.shape)
    extents = [x.shape[axis] for axis in axes]
    if any(isinstance(extent, SymDim) for extent in extents):
        return repeated * _others_by_division(b, n)
    if int(dim_product(tuple(extents))) <= 1:  # type: ignore[arg-type]
        return repeated
    return repeated * _others_by_scan(b, x, axes)


def _others_by_division(b: Builder, n: Application) -> Any:
    """``out / x``, with the zeros counted; second derivatives at zeros are lost."""
    x, axes = n.inputs[0], n.attrs["axes"]
    zero = b.eq(x, 0)
    zeros = b.reduce_sum(b.cast(zero, dtype=x.dtype), axes=axes)
    rest = b.reduce_prod(b.where(zero, scalar(b, 1, x.dtype), x), axes=axes)
    zeros, rest = restore_axes(b, zeros, axes, x.shape), restore_axes(b, rest, axes, x.shape)
    single = mask(b, b.logical_and(zero, b.eq(zeros, 1)), rest)
    return b.where(b.eq(zeros, 0), rest / b.where(zero, scalar(b, 1, x.dtype), x), single)


def _others_by_scan(b: Builder, x: Any, axes: tuple[int, ...]) -> Any:
    """Products of all elements before, times those of all after, along ``axes`` as one."""
    shape = tuple(x.shape)
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    moved = tuple(shape[axis] for axis in (*kept, *axes))
    length = int(dim_product(tuple(shape[axis] for axis in axes)))  # type: ignore[arg-type]
    last = len(kept)
    flat: tuple[Dim, ...] = (*moved[:last], length)
    rows = b.reshape(b.permute(x, axes=(*kept, *axes)), shape=flat)
    before, after = shifted(b, rows, last, 1, 1), shifted(b, rows, last, -1, 1)
    if length > FUSED:
        before = b.cumprod(before, axis=last, reverse=False)
        after = b.cumprod(after, axis=last, reverse=True)
    else:  # doubling steps, which fuse
        step = 1
        while step < length:
            before = before * shifted(b, before, last, step, 1)
            after = after * shifted(b, after, last, -step, 1)
            step *= 2
    back = tuple((*kept, *axes).index(axis) for axis in range(len(shape)))
    return b.permute(b.reshape(before * after, shape=moved), axes=back)


REDUCE_SUM = reduction(
    "reduce_sum", "Sum over the axes; 0 for no elements.",
    reference=_folding(np.add), kinds=NUMBER, parts=complex_parts.each, dtypes=NUMBERS, empty=True,
    fold=Reduction(lambda dtype: 0, "add_fast({0}, {1})"),
    vjp=_sum_vjp,
)  # fmt: skip
REDUCE_PROD = reduction(
    "reduce_prod", "Product over the axes; 1 for no elements.",
    reference=_folding(np.multiply), kinds=NUMBER, dtypes=NUMBERS, empty=True,
    fold=Reduction(lambda dtype: 1, "mul_fast({0}, {1})"),
    vjp=_prod_vjp,
    samples=(
        Sample((np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 1.5]]),), {"axes": (1,)}),
        Sample((np.array([2.0, 3.0, 0.0, -1.5, 0.0, 1.5, 1.0, -2.0, 0.5]),), {"axes": (0,)}),
    ),
)  # fmt: skip

# ---- largest and smallest ------------------------------------------------------------


def _chosen_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """Evenly to all elements that equal the result, or to all that are NaN."""
    x, axes = n.inputs[0], n.attrs["axes"]
    hit = b.logical_or(b.eq(x, restore_axes(b, n.out, axes, x.shape)), b.ne(x, x))
    count = b.reduce_sum(b.cast(hit, dtype=ct.dtype), axes=axes)
    return mask(b, hit, repeat_axes(b, ct / count, axes, x.shape))


def _extreme(ufunc: Any) -> Callable[..., Any]:
    return lambda x, *, axes: ufunc.reduce(x, axis=axes)


SPECIAL = Sample((np.array([[1.0, np.nan, 3.0], [-np.inf, np.inf, 0.0]]),), {"axes": (1,)})

REDUCE_MAX = reduction(
    "reduce_max", "The largest element; NaN if any is NaN.",
    reference=_extreme(np.maximum), kinds=ORDERED, dtypes=EVERY, empty=False, picks=True,
    fold=Reduction(lowest, "vm.maximum({0}, {1})"),
    vjp=_chosen_vjp, samples=(SPECIAL,),
)  # fmt: skip
REDUCE_MIN = reduction(
    "reduce_min", "The smallest element; NaN if any is NaN.",
    reference=_extreme(np.minimum), kinds=ORDERED, dtypes=EVERY, empty=False, picks=True,
    fold=Reduction(highest, "vm.minimum({0}, {1})"),
    vjp=_chosen_vjp, samples=(SPECIAL,),
)  # fmt: skip


def position_of(name: str, summary: str, function: Callable[..., Any], fold: Reduction) -> OpDef:
    """Register a reduction along one ``axis`` that yields the winner's position (i64)."""

    def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        check_arity(name, types, 1)
        require(name, types, ORDERED)
        shape = types[0].shape
        axis = check_axis(name, types, attrs.get("axis"), len(shape))
        if shape[axis] == 0:
            raise ShapeError(f"{spelled(name, types)}: axis {axis} holds no elements")
        return TensorType(int64, shape[:axis] + shape[axis + 1 :])

    shapes = ((5,), 0), ((3, 4), 0), ((3, 4), 1), ((2, 3, 4), 1), ((1, 3), 0), ((0, 3), 1)
    ties = np.array([[1.0, np.nan, np.nan], [2.0, 2.0, 1.0], [-np.inf, -np.inf, -np.inf]])
    return register(
        OpDef(
            name=name,
            kind=Kind.REDUCTION,
            summary=summary,
            infer=infer,
            reference=lambda x, *, axis: function(x, axis=axis),
            vjp=NON_DIFFERENTIABLE,
            reduction=fold,
            batched=batches.TOGETHER,
            cost=2.0,
            tests=OpTests(
                dtypes=EVERY,
                samples=(
                    *(Sample((shape,), {"axis": axis}) for shape, axis in shapes),
                    Sample((ties,), {"axis": 1}),
                ),
                gradient=False,
            ),
        )
    )


ARGMAX = position_of(
    "argmax", "Where the largest element is: the first one, or the first NaN.",
    np.argmax,
    Reduction(lowest, "({1} > {0}) | (({1} != {1}) & ({0} == {0}))",
              position=True, element=REDUCE_MAX),
)  # fmt: skip
ARGMIN = position_of(
    "argmin", "Where the smallest element is: the first one, or the first NaN.",
    np.argmin,
    Reduction(highest, "({1} < {0}) | (({1} != {1}) & ({0} == {0}))",
              position=True, element=REDUCE_MIN),
)  # fmt: skip
