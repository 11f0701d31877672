"""Views: operations that move, repeat or drop elements without computing.

Each record maps the index of a result element to the operand element it shows
(``index``), which lets code generation read chains of views in place.  The
references return NumPy views where NumPy can; ``view_inverse`` writes through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import ShapeError
from graphflow.ir.affine import Affine, Index, Piece
from graphflow.ir.op import (
    Application,
    Array,
    Builder,
    Kind,
    OpDef,
    OpTests,
    register,
)
from graphflow.ir.ops import batches, orders
from graphflow.ir.ops.rules import (
    Attrs,
    calls,
    check_arity,
    check_axis,
    per_axis,
    spelled,
    wanted_shape,
)
from graphflow.ir.types import TensorType

Types = Sequence[TensorType]
EVERY = ("f32", "f64", "i64", "bool")
ZERO = Affine()

# ---- reshape -------------------------------------------------------------------------


def _infer_reshape(types: Types, attrs: Attrs) -> TensorType:
    check_arity("reshape", types, 1)
    result = TensorType(types[0].dtype, wanted_shape("reshape", types, attrs))
    if result.numel != types[0].numel:
        raise ShapeError(
            f"{spelled('reshape', types)}: has {types[0].numel} elements, "
            f"but shape [{','.join(map(str, result.shape))}] holds {result.numel}"
        )
    return result


def _index_reshape(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    """Only extents of 1 may come and go; any other reshape has no affine map: ``()``."""
    old, new = types[0].shape, attrs["shape"]
    kept = [part for part, extent in zip(index, new) if extent != 1]
    if [d for d in old if d != 1] != [d for d in new if d != 1]:
        return ()
    remaining = iter(kept)
    return (Piece(0, tuple(ZERO if d == 1 else next(remaining) for d in old)),)


def _reshape(x: Array, *, shape: tuple[int, ...]) -> Array:
    return x.reshape(shape)


RESHAPE = register(
    OpDef(
        name="reshape",
        kind=Kind.VIEW,
        summary="The elements in row-major order, with another shape.",
        infer=_infer_reshape,
        reference=_reshape,
        vjp=(lambda b, n, ct: b.reshape(ct, shape=tuple(n.inputs[0].shape)),),
        index=_index_reshape,
        view_inverse=lambda emit, parent, new, attrs: emit(
            "reshape", new, shape=tuple(parent.shape)
        ),
        reordered=orders.reshaped,
        cost=0.0,
        batched=batches.together(shape=batches.SIZE),
        tests=OpTests(
            dtypes=EVERY,
            samples=calls(
                ((6,), {"shape": (2, 3)}), ((2, 3), {"shape": (6,)}), ((), {"shape": (1, 1)}),
                ((1, 1), {"shape": ()}), ((2, 0), {"shape": (0, 5)}),
                ((2, 3), {"shape": (2, 1, 3, 1)}), ((1, 4, 1), {"shape": (4,)}),
            ),
        ),
    )
)  # fmt: skip

# ---- permute -------------------------------------------------------------------------


def _infer_permute(types: Types, attrs: Attrs) -> TensorType:
    check_arity("permute", types, 1)
    axes = per_axis("permute", types, attrs, "axes", types[0].rank)
    if sorted(axes) != list(range(len(axes))):
        raise ShapeError(f"{spelled('permute', types)}: axes {axes} are not an order of the axes")
    return TensorType(types[0].dtype, tuple(types[0].shape[axis] for axis in axes))


def inverse_order(axes: Sequence[int]) -> tuple[int, ...]:
    """The order of axes that undoes ``axes``."""
    back = [0] * len(axes)
    for position, axis in enumerate(axes):
        back[axis] = position
    return tuple(back)


def _index_permute(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    return (Piece(0, tuple(index[k] for k in inverse_order(attrs["axes"]))),)


def _permute(x: Array, *, axes: tuple[int, ...]) -> Array:
    return x.transpose(axes)


PERMUTE = register(
    OpDef(
        name="permute",
        kind=Kind.VIEW,
        summary="The axes in another order: axis k of the result is axis axes[k].",
        infer=_infer_permute,
        reference=_permute,
        vjp=(lambda b, n, ct: b.permute(ct, axes=inverse_order(n.attrs["axes"])),),
        index=_index_permute,
        view_inverse=lambda emit, parent, new, attrs: emit(
            "permute", new, axes=inverse_order(attrs["axes"])
        ),
        reordered=orders.permuted,
        cost=0.0,
        batched=batches.permuted,
        tests=OpTests(
            dtypes=EVERY,
            samples=calls(
                ((2, 3), {"axes": (1, 0)}), ((2, 3, 4), {"axes": (2, 0, 1)}),
                ((), {"axes": ()}), ((0, 3), {"axes": (1, 0)}),
            ),
        ),
    )
)  # fmt: skip

# ---- expand --------------------------------------------------------------------------


def _infer_expand(types: Types, attrs: Attrs) -> TensorType:
    check_arity("expand", types, 1)
    shape, old = wanted_shape("expand", types, attrs), types[0].shape
    missing = len(shape) - len(old)
    if missing < 0 or any(d not in (1, want) for d, want in zip(old, shape[missing:])):
        raise ShapeError(
            f"{spelled('expand', types)}: does not expand to [{','.join(map(str, shape))}]; "
            "only extents of 1 repeat, aligned at the last axis"
        )
    return TensorType(types[0].dtype, shape)


def _index_expand(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    old = types[0].shape
    shown = index[len(index) - len(old) :]
    return (Piece(0, tuple(ZERO if d == 1 else part for d, part in zip(old, shown))),)


def _expand(x: Array, *, shape: tuple[int, ...]) -> Array:
    if not x.flags.c_contiguous or not x.size:
        return np.broadcast_to(x, shape)
    lead = len(shape) - x.ndim  # what broadcast_to does, in a fifth of its time
    steps = [0 if have == 1 else step for have, step in zip(x.shape, x.strides)]
    out = np.ndarray(shape, x.dtype, x, 0, (0,) * lead + tuple(steps))
    out.setflags(write=False)
    return out


def _expand_vjp(b: Builder, n: Application, ct: Any) -> Any:
    from graphflow.ir.cotangent import unbroadcast

    return unbroadcast(b, ct, tuple(n.inputs[0].shape))


EXPAND = register(
    OpDef(
        name="expand",
        kind=Kind.VIEW,
        summary="Repeats extents of 1 and adds leading axes, to the given shape.",
        infer=_infer_expand,
        reference=_expand,
        vjp=(_expand_vjp,),
        index=_index_expand,
        reordered=orders.expanded,
        cost=0.0,
        batched=batches.expanded,
        tests=OpTests(
            dtypes=EVERY,
            samples=calls(
                ((), {"shape": (2, 3)}), ((3,), {"shape": (2, 3)}), ((2, 1), {"shape": (2, 3)}),
                ((1, 3), {"shape": (0, 3)}), ((2, 3), {"shape": (2, 3)}), ((), {"shape": ()}),
                ((2, 1, 3), {"shape": (4, 2, 5, 3)}),
            ),
        ),
    )
)  # fmt: skip

# ---- flip ----------------------------------------------------------------------------


def _infer_flip(types: Types, attrs: Attrs) -> TensorType:
    check_arity("flip", types, 1)
    axes = attrs.get("axes")
    if not isinstance(axes, tuple) or len(set(axes)) != len(axes):
        raise ShapeError(f"{spelled('flip', types)}: axes must be distinct, not {axes!r}")
    for axis in axes:
        check_axis("flip", types, axis, types[0].rank)
    return types[0]


def _index_flip(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    shape, axes = types[0].shape, attrs["axes"]
    shown = (
        part * -1 + (shape[axis] - 1) if axis in axes else part for axis, part in enumerate(index)
    )
    return (Piece(0, tuple(shown)),)


def _flip(x: Array, *, axes: tuple[int, ...]) -> Array:
    return np.flip(x, axes)


FLIP = register(
    OpDef(
        name="flip",
        kind=Kind.VIEW,
        summary="The order of elements reversed along the axes.",
        infer=_infer_flip,
        reference=_flip,
        vjp=(lambda b, n, ct: b.flip(ct, axes=n.attrs["axes"]),),
        index=_index_flip,
        view_inverse=lambda emit, parent, new, attrs: emit("flip", new, axes=attrs["axes"]),
        reordered=orders.with_axes,
        cost=0.0,
        batched=batches.TOGETHER,
        tests=OpTests(
            dtypes=EVERY,
            samples=calls(
                ((4,), {"axes": (0,)}), ((2, 3), {"axes": (0, 1)}), ((2, 3), {"axes": (1,)}),
                ((2, 3), {"axes": ()}), ((0, 3), {"axes": (0,)}),
            ),
        ),
    )
)  # fmt: skip
