"""Writing at computed positions: every element of the last operand goes to the place its
index names along one axis, and stays where it is along the others.

What arrives at one place is folded into what is there in the order of that axis, so the
bits never depend on the number of threads; ``scatter`` itself keeps what arrives last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.op import (
    Application,
    Array,
    Builder,
    Kind,
    OpDef,
    OperandRule,
    OpTests,
    Reduction,
    Sample,
    register,
)
from graphflow.ir.ops import batches
from graphflow.ir.ops.gradients import mask, scalar, zeros
from graphflow.ir.ops.indexing import (
    Types,
    along,
    check_range,
    index_gather,
    positions,
    require_index,
    same_but,
)
from graphflow.ir.ops.reduce import highest, lowest
from graphflow.ir.ops.rules import (
    ANY,
    NUMBER,
    NUMERIC,
    Attrs,
    check_arity,
    check_axis,
    require,
    spelled,
)
from graphflow.ir.types import TensorType


def _rule(name: str, kinds: frozenset[str]) -> Callable[[Types, Attrs], TensorType]:
    """Base, index and source of one rank; index and source have one shape."""

    def infer(types: Types, attrs: Attrs) -> TensorType:
        check_arity(name, types, 3)
        require(name, types, kinds)
        require_index(name, types, 1)
        base, index, source = types
        if base.dtype is not source.dtype:
            raise DTypeError(f"{spelled(name, types)}: base and source have different dtypes")
        if index.shape != source.shape:
            raise ShapeError(f"{spelled(name, types)}: index and source must have one shape")
        axis = check_axis(name, types, attrs.get("axis"), base.rank)
        same_but(name, types, 0, 1, axis)
        return base

    return infer


def _folding(name: str, fold: Callable[[Array, tuple[Array, ...], Array], None]) -> Any:
    def reference(base: Array, index: Array, source: Array, *, axis: int) -> Array:
        check_range(name, index, base.shape[axis], axis)
        out = np.array(base)
        # NumPy walks backwards through arrays that lie backwards: the last would come first.
        index, source = np.ascontiguousarray(index), np.ascontiguousarray(source)
        fold(out, along(index, axis), source)
        return out

    return reference


SAMPLES = (
    Sample(((3, 5), positions((3, 4), 5), (3, 4)), {"axis": 1}),
    Sample(((4, 3), positions((6, 3), 4), (6, 3)), {"axis": 0}),
    Sample(((4,), np.array([1, 1, 1]), (3,)), {"axis": 0}),
    Sample(((2, 4, 3), positions((2, 5, 3), 4), (2, 5, 3)), {"axis": 1}),
    Sample(((3, 5), np.zeros((3, 0), np.int64), (3, 0)), {"axis": 1}),
)


def scattering(
    name: str,
    summary: str,
    *,
    fold: Callable[[Array, tuple[Array, ...], Array], None],
    reduction: Reduction,
    vjp: tuple[OperandRule, OperandRule],
    kinds: frozenset[str] = ANY,
    dtypes: tuple[str, ...] = ("f32", "f64", "i64"),
) -> OpDef:
    """Register a scatter; ``vjp``: the rules of base and source."""
    return register(
        OpDef(
            name=name,
            kind=Kind.SCATTER,
            summary=summary,
            infer=_rule(name, kinds),
            reference=_folding(name, fold),
            vjp=(vjp[0], None, vjp[1]),
            index=index_gather,
            reduction=reduction,
            fallible=True,
            batched=batches.TOGETHER,
            cost=4.0,
            tests=OpTests(
                dtypes=dtypes,
                samples=SAMPLES,
                tolerance={"f32": 2e-6, "f64": 1e-13},
            ),
        )
    )


# ---- the last one stays --------------------------------------------------------------


def _replace(out: Array, places: tuple[Array, ...], source: Array) -> None:
    out[places] = source


def _overwritten(b: Builder, n: Application, ct: Any) -> Any:
    index = n.inputs[1]
    return b.scatter(ct, index, zeros(b, index.shape, ct.dtype), axis=n.attrs["axis"])


def _written(b: Builder, n: Application, ct: Any) -> Any:
    """The cotangent where each element went, for those that no later one replaced."""
    (base, index), axis = n.inputs[:2], n.attrs["axis"]
    number = b.iota(shape=tuple(index.shape), axis=axis, dtype=index.dtype)
    last = b.scatter(zeros(b, base.shape, index.dtype), index, number, axis=axis)
    stayed = b.eq(b.gather(last, index, axis=axis), number)
    return mask(b, stayed, b.gather(ct, index, axis=axis))


SCATTER = scattering(
    "scatter", "The first operand with the third put at positions index along an axis.",
    fold=_replace, reduction=Reduction(lambda dtype: 0, "{1}", reassociate=False),
    vjp=(_overwritten, _written), dtypes=("f32", "f64", "i64", "bool"),
)  # fmt: skip

# ---- sums and products ---------------------------------------------------------------


def _added(b: Builder, n: Application, ct: Any) -> Any:
    return b.gather(ct, n.inputs[1], axis=n.attrs["axis"])


SCATTER_ADD = scattering(
    "scatter_add", "The first operand with the third added at positions index along an axis.",
    fold=np.add.at, reduction=Reduction(lambda dtype: 0, "add_fast({0}, {1})", reassociate=False),
    vjp=(lambda b, n, ct: ct, _added), kinds=NUMBER,
)  # fmt: skip


def _scaled(b: Builder, n: Application, ct: Any) -> Any:
    base, index, source = n.inputs
    one = b.expand(scalar(b, 1, base.dtype), shape=tuple(base.shape))
    return ct * b.scatter_mul(one, index, source, axis=n.attrs["axis"])


def _factor(b: Builder, n: Application, ct: Any) -> Any:
    """The product of everything else that arrived, right where one factor is 0 (second
    derivatives there are lost)."""
    (base, index, source), axis = n.inputs, n.attrs["axis"]
    one = scalar(b, 1, source.dtype)
    zero = b.eq(source, 0)
    nonzero = b.where(zero, one, source)
    count = b.cast(zero, dtype=source.dtype)
    rest = b.scatter_mul(base, index, nonzero, axis=axis)
    count = b.scatter_add(zeros(b, base.shape, source.dtype), index, count, axis=axis)
    rest = b.gather(ct * rest, index, axis=axis) / nonzero
    alone = b.eq(b.gather(count, index, axis=axis), b.cast(zero, dtype=source.dtype))
    return mask(b, alone, rest)


SCATTER_MUL = scattering(
    "scatter_mul", "The first operand times the third at positions index along an axis.",
    fold=np.multiply.at,
    reduction=Reduction(lambda dtype: 1, "mul_fast({0}, {1})", reassociate=False),
    vjp=(_scaled, _factor), kinds=NUMERIC,
)  # fmt: skip

# ---- largest and smallest ------------------------------------------------------------


def _share(b: Builder, n: Application, ct: Any) -> tuple[Any, Any, Any]:
    """Which base elements are the result, which source elements are, and the cotangent
    divided by how many there are at each place."""
    (base, index, source), axis = n.inputs, n.attrs["axis"]
    stayed = b.eq(base, n.out)
    chosen = b.eq(source, b.gather(n.out, index, axis=axis))
    count = b.scatter_add(
        b.cast(stayed, dtype=ct.dtype), index, b.cast(chosen, dtype=ct.dtype), axis=axis
    )
    return stayed, chosen, ct / count


def _kept(b: Builder, n: Application, ct: Any) -> Any:
    stayed, _, part = _share(b, n, ct)
    return mask(b, stayed, part)


def _chosen(b: Builder, n: Application, ct: Any) -> Any:
    _, chosen, part = _share(b, n, ct)
    return mask(b, chosen, b.gather(part, n.inputs[1], axis=n.attrs["axis"]))


SCATTER_MAX = scattering(
    "scatter_max", "The larger of the first operand and what the third has for its place.",
    fold=np.maximum.at, vjp=(_kept, _chosen),
    reduction=Reduction(lowest, "vm.maximum({0}, {1})", reassociate=False),
)  # fmt: skip
SCATTER_MIN = scattering(
    "scatter_min", "The smaller of the first operand and what the third has for its place.",
    fold=np.minimum.at, vjp=(_kept, _chosen),
    reduction=Reduction(highest, "vm.minimum({0}, {1})", reassociate=False),
)  # fmt: skip
