"""The error function in NumPy, which has none.

Two pieces, both fitted at Chebyshev nodes in 50-digit arithmetic:
``erf(x) = x * P(x*x)`` for ``|x| <= 1``, and ``1 - exp(-x*x) * Q(t)`` with
``t = (|x| - 2) / (|x| + 2)`` for ``1 < |x| <= 6``, where erf rounds to 1.
The fits are exact to 2e-17 relative (double) and 5e-8 (single precision).
"""

from __future__ import annotations

import numpy as np

from graphflow.ir.op import Array
from graphflow.ir.ops.pieces import in_pieces

_NEAR_64 = (
    5.958930743134941e-11, -1.1373902296430911e-09, 1.4660051998394848e-08,
    -1.6350354461959655e-07, 1.6461004480962034e-06, -1.4925595519506043e-05,
    0.00012055331122299266, -0.0008548326981129666, 0.005223977624823223,
    -0.026866170645077334, 0.11283791670954882, -0.3761263890318375, 1.1283791670955126,
)  # fmt: skip
_FAR_64 = (
    -2.407544566330492e-07, 4.1689860393343104e-06, 1.8577412631027575e-06,
    -1.4174279153901538e-05, -2.7638522202479394e-05, 2.7561407887165217e-05,
    0.0001743643727640126, 4.355258739982262e-05, -0.0009819770802739363,
    -0.0008471431209521972, 0.006997461738047919, 0.0037328924016303074,
    -0.07897858101569452, 0.24165819424248774, -0.4271858474139586, 0.2553956763105057,
)  # fmt: skip
_NEAR_32 = (
    -0.0005654105859760388, 0.004923277665221193, -0.02671638509664073,
    0.11280364408032745, -0.3761234978454141, 1.1283791273927473,
)  # fmt: skip
_FAR_32 = (
    -0.0013407814869532402, 0.0068397546844389985, 0.0038236628556571617,
    -0.07897125520193002, 0.24165400071684273, -0.4271859495247007, 0.2553957048358594,
)  # fmt: skip


@in_pieces
def erf(x: Array) -> Array:
    """The error function of ``x``, computed in its dtype (half precision in single)."""
    dtype = x.dtype
    if dtype.itemsize < 4:
        return erf(x.astype(np.float32)).astype(dtype)
    near, far = (_NEAR_32, _FAR_32) if dtype == np.float32 else (_NEAR_64, _FAR_64)
    size = np.minimum(np.absolute(x), 6)
    square = size * size
    tail = 1 - np.exp(-square) * _polynomial((size - 2) / (size + 2), far)
    return np.where(size <= 1, x * _polynomial(square, near), np.copysign(tail, x))


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """``coefficients``, highest power first, at ``x`` (Horner's scheme)."""
    total = x * coefficients[0]
    for c in coefficients[1:-1]:  # in place: new memory takes longer than a step
        total += c
        total *= x
    total += coefficients[-1]
    return total
