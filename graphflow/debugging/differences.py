"""How far apart two arrays are, and how far they may be.

Arrays are compared relative to the largest finite number of the expected one, so that
elements which are zero but for rounding do not count.  Where both sides are the same NaN
or infinity they agree; where only one is, the difference is infinite.  Of integers and
booleans the part that differs is what counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.ir.types import TensorType, bfloat16

Array = np.ndarray[Any, Any]

LAWFUL = 1e-6
"""Between graphs that are both computed in double: laws change rounding only."""
_ROUNDING = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2}
_NOISE = 16.0
"""How many times the rounding error of NumPy's own arithmetic is allowed."""


def difference(expected: Array, found: Array) -> float:
    """The largest difference, relative to the largest number of ``expected``."""
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    if expected.dtype.kind in "biu" and found.dtype.kind in "biu":
        return float(np.mean(expected != found))
    with np.errstate(all="ignore"):
        kind = np.complex128 if "c" in (expected.dtype.kind, found.dtype.kind) else np.float64
        one, other = expected.astype(kind), found.astype(kind)
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        if same.all():
            return 0.0
        gaps = np.abs(one - other)[~same]
        if not np.isfinite(gaps).all():
            return float("inf")
        finite = np.abs(one[np.isfinite(one)])
        return float(gaps.max() / max(float(finite.max(initial=0.0)), 1e-30))


def allowed(type: TensorType, exact: Array, rounded: Array) -> float:
    """How far a kernel's result of ``type`` may be from ``exact``, computed in double.

    ``rounded`` is NumPy's result in the type itself: where that is far off (a sum that
    cancels, a comparison of what is nearly equal), kernels may be too.
    """
    base = 0.0
    if type.dtype.is_floating_point or type.dtype.is_complex:
        real = np.dtype(type.dtype.numpy.type(0).real.dtype).name
        base = 6e-2 if type.dtype is bfloat16 else _ROUNDING.get(real, 1e-4)
    return max(base, _NOISE * difference(exact, rounded))
