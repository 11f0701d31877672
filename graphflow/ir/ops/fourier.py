"""Discrete Fourier transforms, run by NumPy on the host or by kernels.

The three kinds are linear, so a gradient is the transform that goes the other way (the
conjugate transpose); ``scale`` is what the result is multiplied by.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.errors import ShapeError
from graphflow.ir.op import Application, Array, Builder, Sample, Transform
from graphflow.ir.ops.host import host
from graphflow.ir.ops.matrices import Types
from graphflow.ir.ops.rules import COMPLEX, FLOAT, Attrs, check_arity, check_axis, require, spelled
from graphflow.ir.types import TensorType, int64


def _axes(name: str, types: Types, attrs: Attrs) -> tuple[int, ...]:
    axes: tuple[int, ...] = attrs["axes"]
    for axis in axes:
        check_axis(name, types, axis, types[0].rank)
        if types[0].shape[axis] == 0:
            raise ShapeError(f"{spelled(name, types)}: axis {axis} holds no elements to transform")
    return axes


def _normalised(x: Array, scale: float, count: int, inverse: bool) -> Array:
    """NumPy divides inverse transforms by the number of points."""
    factor = scale * count if inverse else scale
    return x if factor == 1.0 else x * x.real.dtype.type(factor)


def _count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return int(np.prod([shape[a] for a in axes], dtype=np.int64))


# ---- complex to complex --------------------------------------------------------------


def _infer_c2c(types: Types, attrs: Attrs) -> TensorType:
    check_arity("fft_c2c", types, 1)
    require("fft_c2c", types, COMPLEX)
    _axes("fft_c2c", types, attrs)
    return types[0]


def _c2c(x: Array, *, axes: tuple[int, ...], inverse: bool, scale: float) -> Array:
    made = (np.fft.ifftn if inverse else np.fft.fftn)(x, axes=axes)
    return _normalised(made, scale, _count(x.shape, axes), inverse).astype(x.dtype, copy=False)


def _c2c_vjp(b: Builder, n: Application, ct: Any) -> Any:
    return b.fft_c2c(ct, **{**n.attrs, "inverse": not n.attrs["inverse"]})


_SHAPES = (((4,), (0,)), ((3, 5), (1,)), ((3, 4), (0, 1)), ((2, 3, 4), (1, 2)), ((5, 1), (1,)))
C2C = host(
    "fft_c2c", "The Fourier transform of complex values over the axes, or the inverse one.",
    infer=_infer_c2c, reference=_c2c, vjp=(_c2c_vjp,),
    transform=Transform.COMPLEX,
    samples=[
        Sample((np.zeros(shape, np.complex64) + np.arange(shape[-1]) * (1 - 0.5j),),
               {"axes": axes, "inverse": inverse, "scale": scale})
        for shape, axes in _SHAPES for inverse, scale in ((False, 1.0), (True, 0.25))
    ],
)  # fmt: skip

# ---- real to half of a Hermitian result ----------------------------------------------


def _half(shape: tuple[Any, ...], axis: int, extent: int) -> tuple[Any, ...]:
    return (*shape[:axis], extent, *shape[axis + 1 :])


def _infer_r2c(types: Types, attrs: Attrs) -> TensorType:
    check_arity("fft_r2c", types, 1)
    require("fft_r2c", types, FLOAT)
    axes = _axes("fft_r2c", types, attrs)
    last = axes[-1]
    shape: Any = types[0].shape
    dtype = types[0].dtype.complex
    assert dtype is not None
    return TensorType(dtype, _half(shape, last, shape[last] // 2 + 1))


def _r2c(x: Array, *, axes: tuple[int, ...], inverse: bool, scale: float) -> Array:
    """The inverse transform of real values is the conjugate of the forward one."""
    made = np.fft.rfftn(x, axes=axes)
    if inverse:
        made = np.conj(made)
    return _normalised(made, scale, 1, False).astype(np.result_type(x, np.complex64), copy=False)


def _r2c_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """The other half of the result has no cotangent; the operand has no imaginary part."""
    x, axis = n.inputs[0], n.attrs["axes"][-1]
    missing = x.shape[axis] - ct.shape[axis]
    high = tuple(missing if k == axis else 0 for k in range(len(x.shape)))
    whole = b.pad(ct, low=(0,) * len(high), high=high, value=0)
    back = b.fft_c2c(whole, **{**n.attrs, "inverse": not n.attrs["inverse"]})
    return b.cast(back, dtype=x.dtype)


R2C = host(
    "fft_r2c", "The transform of real values: the first half along the last of the axes.",
    infer=_infer_r2c, reference=_r2c, vjp=(_r2c_vjp,),
    transform=Transform.REAL,
    samples=[
        Sample((shape,), {"axes": axes, "inverse": inverse, "scale": scale})
        for shape, axes in _SHAPES for inverse, scale in ((False, 1.0), (True, 0.25))
    ],
)  # fmt: skip

# ---- half of Hermitian values to real ------------------------------------------------


def _infer_c2r(types: Types, attrs: Attrs) -> TensorType:
    check_arity("fft_c2r", types, 1)
    require("fft_c2r", types, COMPLEX)
    last, extent = _axes("fft_c2r", types, attrs)[-1], attrs["extent"]
    if extent < 1 or extent // 2 + 1 != types[0].shape[last]:
        raise ShapeError(
            f"{spelled('fft_c2r', types)}: {extent} real values come from {extent // 2 + 1} "
            f"complex ones, not {types[0].shape[last]}"
        )
    return TensorType(types[0].dtype.real, _half(types[0].shape, last, extent))


def _c2r(x: Array, *, axes: tuple[int, ...], extent: int, inverse: bool, scale: float) -> Array:
    sizes = (*(x.shape[a] for a in axes[:-1]), extent)
    made = np.fft.irfftn(x if inverse else np.conj(x), sizes, axes=axes)
    count = int(np.prod(sizes, dtype=np.int64))
    return _normalised(made, scale, count, True).astype(x.real.dtype, copy=False)


def _c2r_vjp(b: Builder, n: Application, ct: Any) -> Any:
    """Values between the ends stand for their conjugates, too, so they count twice."""
    attrs = {k: v for k, v in n.attrs.items() if k != "extent"}
    found = b.fft_r2c(ct, **{**attrs, "inverse": not attrs["inverse"]})
    axis, extent = attrs["axes"][-1], n.attrs["extent"]
    half = found.shape[axis]
    line = (half, *(1 for _ in found.shape[axis + 1 :]))
    place = b.iota(shape=line, axis=0, dtype=int64)
    twice = b.logical_and(b.gt(place, 0), b.lt(place, (extent + 1) // 2))
    real = found.dtype
    return found * (b.cast(twice, dtype=real) + 1.0)


C2R = host(
    "fft_c2r", "The real transform of Hermitian values, of which the first half is given.",
    infer=_infer_c2r, reference=_c2r, vjp=(_c2r_vjp,),
    transform=Transform.HERMITIAN,
    samples=[
        Sample((np.zeros(shape, np.complex64) + np.arange(shape[-1]) * (1 - 0.5j),),
               {"axes": axes, "extent": 2 * shape[axes[-1]] - odd, "inverse": True, "scale": 0.5})
        for shape, axes in _SHAPES for odd in (1, 2) if shape[axes[-1]] > 1
    ],
)  # fmt: skip
