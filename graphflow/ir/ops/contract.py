"""Contractions: sums of products over an axis of two operands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.dims import Dim, dim_product
from graphflow.ir.op import (
    Application,
    Array,
    Builder,
    Kind,
    Labels,
    OpDef,
    OpTests,
    register,
)
from graphflow.ir.ops import batches, complex_parts, orders
from graphflow.ir.ops.gradients import transposed
from graphflow.ir.ops.rules import (
    NUMBER,
    Attrs,
    calls,
    check_arity,
    per_axis,
    require,
    spelled,
)
from graphflow.ir.types import DType, TensorType, broadcast_shapes, int32


def _infer_matmul(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("matmul", types, 2)
    require("matmul", types, NUMBER)
    a, b = types
    if a.dtype is not b.dtype:
        raise DTypeError(f"{spelled('matmul', types)}: operands have different dtypes; cast one")
    if a.rank < 2 or b.rank < 2:
        raise ShapeError(f"{spelled('matmul', types)}: both operands need at least two axes")
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"{spelled('matmul', types)}: {a.shape[-1]} columns do not meet {b.shape[-2]} rows"
        )
    try:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ShapeError as error:
        raise ShapeError(f"{spelled('matmul', types)}: batch axes: {error}") from None
    return TensorType(sum_dtype("matmul", types, attrs), (*batch, a.shape[-2], b.shape[-1]))


def sum_dtype(name: str, types: Sequence[TensorType], attrs: Attrs) -> DType:
    """The dtype of sums of products: the operands' own, or attribute ``dtype``, to which both
    are converted first.  That is for integers, whose products do not fit their type."""
    own, wanted = types[0].dtype, attrs.get("dtype", types[0].dtype)
    if wanted is not own and not (own.kind in ("int", "uint") and wanted is int32):
        raise DTypeError(
            f"{spelled(name, types)}: {own.short} adds up as {own.short}, not as {wanted.short}"
        )
    return wanted


def _matmul(a: Array, b: Array, dtype: DType | None = None) -> Array:
    if a.dtype.kind in "iu" and a.dtype.itemsize <= 2:
        return _matmul_of_small_integers(a, b, a.dtype if dtype is None else dtype.numpy)
    if dtype is not None:
        a, b = a.astype(dtype.numpy), b.astype(dtype.numpy)
    if a.dtype.itemsize == 2 and a.dtype.kind not in "iu":  # half precision adds in single
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
    return np.matmul(a, b)


def _matmul_of_small_integers(a: Array, b: Array, wanted: np.dtype[Any]) -> Array:
    """Sums of integers of 8 or 16 bits, wrapped to ``wanted``, by NumPy's product of floats.

    It is many times as fast as that of integers.  Nothing is rounded: sums of ``depth`` products
    fit into the mantissa of 24 bits, or that of 53.
    """
    bits = 2 * (8 * a.dtype.itemsize - (a.dtype.kind == "i")) + max(a.shape[-1] - 1, 0).bit_length()
    if bits > 53:
        return np.matmul(a.astype(wanted), b.astype(wanted))
    wide = np.float32 if bits <= 24 else np.float64
    sums = np.matmul(a.astype(wide), b.astype(wide))
    return sums.astype(np.int32 if bits < 31 else np.int64).astype(wanted, copy=False)


def _matmul_unordered(a: Array, b: Array, dtype: DType | None = None) -> Array:
    """A product whose left operand is a transpose is made as the transpose of its own."""
    if dtype is not None:
        return _matmul(a, b, dtype)
    if a.ndim == b.ndim == 2 and a.flags.f_contiguous and not a.flags.c_contiguous:
        return _matmul(b.T, a.T).T
    return _matmul(a, b)


def _matmul_left(b: Builder, n: Application, ct: Any) -> Any:
    return b.matmul(ct, transposed(b, n.inputs[1]))


def _matmul_right(b: Builder, n: Application, ct: Any) -> Any:
    """A matrix shared by a whole batch gets one product over all rows, not a sum of many."""
    left, right = n.inputs
    if len(right.shape) == 2 and len(left.shape) > 2:
        rows = dim_product(tuple(left.shape[:-1]))
        left = b.reshape(left, shape=(rows, left.shape[-1]))
        ct = b.reshape(ct, shape=(rows, ct.shape[-1]))
    return b.matmul(transposed(b, left), ct)


def _labels_matmul(types: Sequence[TensorType], attrs: Attrs) -> Labels:
    """Row 0, column 1, depth 2; batch axes from 3 on, counted from the right."""
    batches = [tuple(range(t.rank, 2, -1)) for t in types]
    return (*batches[0], 0, 2), (*batches[1], 2, 1), (*max(batches, key=len), 0, 1)


MATMUL = register(
    OpDef(
        name="matmul",
        kind=Kind.CONTRACTION,
        summary="Matrix product over the last two axes; the axes before broadcast.",
        infer=_infer_matmul,
        reference=_matmul,
        unordered=_matmul_unordered,
        vjp=(_matmul_left, _matmul_right),
        parts=complex_parts.product,
        contraction=_labels_matmul,
        blas=True,
        cost=8.0,
        batched=batches.broadcast,
        tests=OpTests(
            tolerance={"f32": 5e-6, "f64": 1e-13},
            dtypes=("f32", "f64", "i64"),
            samples=calls(
                ((3, 4), (4, 5), {}), ((1, 1), (1, 1), {}), ((2, 3, 4), (2, 4, 5), {}),
                ((2, 3, 4), (4, 5), {}), ((3, 4), (2, 4, 5), {}),
                ((2, 1, 3, 4), (5, 4, 2), {}), ((3, 0), (0, 2), {}), ((0, 3), (3, 2), {}),
            ),
        ),
    )
)  # fmt: skip

# ---- contract ------------------------------------------------------------------------


def _labels(types: Sequence[TensorType], attrs: Attrs) -> Labels:
    return attrs["left"], attrs["right"], attrs["out"]


def _infer_contract(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("contract", types, 2)
    require("contract", types, NUMBER)
    if types[0].dtype is not types[1].dtype:
        raise DTypeError(f"{spelled('contract', types)}: operands have different dtypes; cast one")
    extents: dict[int, Dim] = {}
    for key, type in zip(("left", "right"), types):
        labels = per_axis("contract", types, attrs, key, type.rank)
        for label, extent in zip(labels, type.shape):
            if extents.setdefault(label, extent) != extent:
                raise ShapeError(
                    f"{spelled('contract', types)}: axes of label {label} have extents "
                    f"{extents[label]} and {extent}"
                )
    left, right, out = (attrs[key] for key in ("left", "right", "out"))
    if any(len(set(labels)) != len(labels) for labels in (left, right, out)):
        raise ShapeError(f"{spelled('contract', types)}: a label appears twice on one side")
    if not set(left) ^ set(right) <= set(out) <= set(left) | set(right):
        raise ShapeError(
            f"{spelled('contract', types)}: the result's labels {out} must be those of operands, "
            "with every label that one operand has alone"
        )
    dtype = sum_dtype("contract", types, attrs)
    return TensorType(dtype, tuple(extents[label] for label in out))


def _contract(
    a: Array, b: Array, *, left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...],
    dtype: DType | None = None,
) -> Array:  # fmt: skip
    """By one batched matrix product: batch, rows, columns and depth are merged axes."""
    extents = {**dict(zip(left, a.shape)), **dict(zip(right, b.shape))}
    batch = [x for x in out if x in left and x in right]
    rows, columns = [x for x in out if x not in right], [x for x in out if x not in left]
    depth = [x for x in left if x not in out]

    def merged(array: Array, labels: tuple[int, ...], *groups: list[int]) -> Array:
        order = [labels.index(x) for group in groups for x in group]
        sizes = [math.prod([extents[x] for x in group]) for group in groups]
        return array.transpose(order).reshape(sizes)

    def operand(array: Array, labels: tuple[int, ...], up: list[int], along: list[int]) -> Array:
        """A matrix a batch, rows ``up``: made as its transpose where that copies longer runs."""
        runs = [_run(array, labels, extents, group) for group in (along, up)]
        if runs[0] >= runs[1]:
            return merged(array, labels, batch, up, along)
        return merged(array, labels, batch, along, up).swapaxes(-1, -2)

    one, other = operand(a, left, rows, depth), operand(b, right, depth, columns)
    if out and rows and out[-1] == rows[-1]:  # then rows are neighbours in the result
        product = _matmul(other.swapaxes(-1, -2), one.swapaxes(-1, -2), dtype)
        found = batch + columns + rows
    else:
        product, found = _matmul(one, other, dtype), batch + rows + columns
    shaped = product.reshape([extents[x] for x in found])
    return shaped.transpose([found.index(x) for x in out]).copy(order="C")


def _run(
    array: Array, labels: tuple[int, ...], extents: Mapping[int, int], group: list[int]
) -> int:
    """Elements that are neighbours in memory along the axes of ``group``, the last one first."""
    count = 1
    for label in reversed(group):
        stride = array.strides[labels.index(label)]
        if extents[label] > 1 and stride != count * array.itemsize:
            break
        count *= extents[label]
    return count


def _contract_left(b: Builder, n: Application, ct: Any) -> Any:
    left, right, out = (n.attrs[key] for key in ("left", "right", "out"))
    return b.contract(ct, n.inputs[1], left=out, right=right, out=left)


def _contract_right(b: Builder, n: Application, ct: Any) -> Any:
    left, right, out = (n.attrs[key] for key in ("left", "right", "out"))
    return b.contract(n.inputs[0], ct, left=left, right=out, out=right)


def _labelled(left: str, right: str, out: str) -> dict[str, tuple[int, ...]]:
    """Attributes of a product in the notation of ``einsum``."""
    texts = {"left": left, "right": right, "out": out}
    return {key: tuple(ord(c) - ord("a") for c in text) for key, text in texts.items()}


CONTRACT = register(
    OpDef(
        name="contract",
        kind=Kind.CONTRACTION,
        summary="Sum of products over the axes whose labels the result lacks (two-operand einsum).",
        infer=_infer_contract,
        reference=_contract,
        vjp=(_contract_left, _contract_right),
        parts=complex_parts.product,
        contraction=_labels,
        reordered=orders.labelled,
        cost=8.0,
        batched=batches.labelled,
        tests=OpTests(
            tolerance={"f32": 5e-6, "f64": 1e-13},
            dtypes=("f32", "f64", "i64"),
            samples=calls(
                ((3, 4), (4, 5), _labelled("ab", "bc", "ac")),
                ((3, 4), (5, 4), _labelled("ab", "cb", "ca")),
                ((2, 3, 4, 5), (4, 6, 2), _labelled("abcd", "cea", "bade")),
                ((2, 3, 4), (3, 2, 4), _labelled("abc", "bac", "")),
                ((2, 3), (4,), _labelled("ab", "c", "cba")), ((), (2,), _labelled("", "a", "a")),
                ((2, 3), (2, 3), _labelled("ab", "ab", "ba")),
                ((2, 0), (0, 3), _labelled("ab", "bc", "ac")),
                ((3, 2, 5, 4), (2, 7, 4, 5), _labelled("abcd", "bedc", "ae")),
            ),
        ),
    )
)  # fmt: skip
