"""Winograd's minimal filtering: the matrices.

``size`` neighbouring results under three taps are read off ``size + 2`` products instead of
``3 * size``: polynomials of signal and taps are evaluated at ``size + 1`` points and at
infinity, multiplied there, and interpolated.  With the matrices of this module,

    ``y = result (input d * taps g)``

where ``*`` is elementwise; in two dimensions each matrix is applied on both sides (S. Winograd,
Arithmetic Complexity of Computations, 1980; A. Lavin and S. Gray, Fast Algorithms for
Convolutional Neural Networks, 2016).  The points decide how large rounding errors are: 0, ±5/8,
±3/2 leave half the error of the usual 0, ±1, ±2, and their powers are exact in single precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any

import numpy as np

TAPS = 3
POINTS: dict[int, tuple[Fraction, ...]] = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
}
"""Where polynomials are evaluated, by the size of a tile; opposite points beside one another."""
FORMS = ("input", "taps", "result", "cotangent", "taps_back")
"""What is transformed; ``cotangent`` and ``taps_back`` are ``result`` and ``taps`` transposed."""

Matrix = tuple[tuple[Fraction, ...], ...]


@cache
def matrix(form: str, size: int) -> Matrix:
    """The matrix that transforms ``form`` for tiles of ``size`` results."""
    points = POINTS[size]
    if form in ("cotangent", "taps_back"):
        return tuple(zip(*matrix("result" if form == "cotangent" else "taps", size), strict=True))
    if form == "input":
        rows = [_monic([q for q in points if q != p]) for p in points]
        return (*((*row, Fraction(0)) for row in rows), _monic(points))
    if form == "taps":
        weights = [prod((p - q for q in points if q != p), start=Fraction(1)) for p in points]
        powers = zip(points, weights, strict=True)
        rows = [tuple(p**k / weight for k in range(TAPS)) for p, weight in powers]
        return (*rows, tuple(Fraction(k == TAPS - 1) for k in range(TAPS)))
    return tuple((*(p**k for p in points), Fraction(k == size - 1)) for k in range(size))


def _monic(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients, constant first, of the polynomial with these roots."""
    found = [Fraction(1)]
    for root in roots:
        shifted, same = [Fraction(0), *found], [*found, Fraction(0)]
        found = [up - root * low for up, low in zip(shifted, same, strict=True)]
    return tuple(found)


def both_sides(form: str, size: int, tiles: Any) -> Any:
    """``tiles[i, j, ...]`` with the matrix applied along the first two axes, in their dtype."""
    m = np.array(matrix(form, size), dtype=tiles.dtype)
    return np.tensordot(m, np.tensordot(m, tiles, (1, 1)), (1, 1))
