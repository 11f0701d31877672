"""Complex numbers: their parts as views, and the conjugate.

A gradient with respect to a complex z is the direction of steepest ascent of the real loss,
``dL/d(Re z) + i dL/d(Im z)``; for a holomorphic f it passes back as ``ct * conj(f'(z))``.
Rules of arithmetic are written for ``ct * f'(z)``: :mod:`graphflow.ir.cotangent` conjugates
around them.  Those here say what they mean themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.affine import Index, Piece
from graphflow.ir.op import Array, Kind, OpDef, OpTests, Sample, register
from graphflow.ir.ops import batches, complex_parts
from graphflow.ir.ops.rules import COMPLEX, Attrs, check_arity, elementwise, require, spelled
from graphflow.ir.types import TensorType

Types = Sequence[TensorType]
SAMPLES = tuple(Sample((shape,)) for shape in ((), (3,), (2, 3), (0, 2)))


def _no_map(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    """Elements change their size: only strides show this view."""
    return ()


def _infer_parts(types: Types, attrs: Attrs) -> TensorType:
    check_arity("view_as_real", types, 1)
    require("view_as_real", types, COMPLEX)
    return TensorType(types[0].dtype.real, (*types[0].shape, 2))


def _parts(z: Array) -> Array:
    """Shares the memory where strides allow it, which is whenever NumPy can say so."""
    real: Array = z.real
    return np.lib.stride_tricks.as_strided(
        real, (*z.shape, 2), (*z.strides, real.dtype.itemsize), writeable=z.flags.writeable
    )


VIEW_AS_REAL = register(
    OpDef(
        name="view_as_real",
        kind=Kind.VIEW,
        summary="Complex numbers as (real, imaginary) in a new last axis.",
        infer=_infer_parts,
        reference=_parts,
        vjp=(lambda b, n, ct: b.view_as_complex(ct),),
        index=_no_map,
        view_inverse=lambda emit, parent, new, attrs: emit("view_as_complex", new),
        cost=0.0,
        batched=batches.TOGETHER,
        tests=OpTests(dtypes=("c64",), samples=SAMPLES, gradient=True),
    )
)


def _infer_complex(types: Types, attrs: Attrs) -> TensorType:
    check_arity("view_as_complex", types, 1)
    dtype = types[0].dtype.complex
    if dtype is None:
        raise DTypeError(f"{spelled('view_as_complex', types)}: takes float32 or float64")
    if not types[0].rank or types[0].shape[-1] != 2:
        raise ShapeError(f"{spelled('view_as_complex', types)}: the last axis must have 2 elements")
    return TensorType(dtype, types[0].shape[:-1])


def _joined(x: Array) -> Array:
    """Shares the memory where the pairs lie side by side."""
    if x.strides[-1] != x.itemsize or any(s % (2 * x.itemsize) for s in x.strides[:-1]):
        x = np.ascontiguousarray(x)
    return x.view(np.result_type(x.dtype, np.complex64))[..., 0]


VIEW_AS_COMPLEX = register(
    OpDef(
        name="view_as_complex",
        kind=Kind.VIEW,
        summary="Pairs in the last axis as complex numbers.",
        infer=_infer_complex,
        reference=_joined,
        vjp=(lambda b, n, ct: b.view_as_real(ct),),
        index=_no_map,
        view_inverse=lambda emit, parent, new, attrs: emit("view_as_real", new),
        cost=0.0,
        batched=batches.TOGETHER,
        tests=OpTests(
            samples=tuple(Sample((shape,)) for shape in ((2,), (3, 2), (2, 3, 2), (0, 2)))
        ),
    )
)

CONJ = register(
    OpDef(
        name="conj",
        kind=Kind.ELEMENTWISE,
        summary="The complex conjugate.",
        infer=elementwise("conj", 1, COMPLEX),
        reference=np.conjugate,
        vjp=(lambda b, n, ct: b.conj(ct),),
        scalar={},
        parts=complex_parts.conjugate,
        tests=OpTests(dtypes=("c64",)),
    )
)
