"""Straight-line text of small Fourier transforms: the butterflies of the kernels' passes.

``transform(r)`` has, for inputs in the variables ``x0r, x0i, x1r, …``, statements that end with
the outputs, and their names in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Pair = tuple[str, str]
"""The variables with the real and the imaginary part of a number."""


class _Text:
    """Statements, each with a variable of its own."""

    def __init__(self) -> None:
        self.lines = list[str]()

    def let(self, formula: str) -> str:
        """A new variable that is ``formula``."""
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {formula}")
        return name

    def sums(self, a: Pair, b: Pair) -> tuple[Pair, Pair]:
        """``a + b`` and ``a - b``."""
        plus, minus = (
            (self.let(f"{a[0]} {sign} {b[0]}"), self.let(f"{a[1]} {sign} {b[1]}")) for sign in "+-"
        )
        return plus, minus

    def turned_sums(self, a: Pair, b: Pair) -> tuple[Pair, Pair]:
        """``a - ib`` and ``a + ib``."""
        minus, plus = (
            (self.let(f"{a[0]} {one} {b[1]}"), self.let(f"{a[1]} {other} {b[0]}"))
            for one, other in ("+-", "-+")
        )
        return minus, plus


def transform(radix: int) -> tuple[list[str], list[Pair]]:
    """Statements and results of the transform of ``radix`` numbers, a power of 2 or odd."""
    text = _Text()
    inputs = [(f"x{k}r", f"x{k}i") for k in range(radix)]
    results = _odd(text, inputs) if radix % 2 else _even(text, inputs)
    return text.lines, results


def _even(text: _Text, x: Sequence[Pair]) -> list[Pair]:
    """Decimation in time: transforms of the even and of the odd inputs, put together."""
    if len(x) == 2:
        return list(text.sums(*x))
    even, odd = _even(text, x[::2]), _even(text, x[1::2])
    low, high = [], []
    for k, (a, b) in enumerate(zip(even, odd, strict=True)):
        if 4 * k == len(odd) * 2:
            one, other = text.turned_sums(a, b)
        else:
            one, other = text.sums(a, _turned(text, b, k, len(x)))
        low.append(one)
        high.append(other)
    return low + high


def _turned(text: _Text, x: Pair, k: int, n: int) -> Pair:
    """``x`` times ``exp(-2 pi i k / n)``, for n up to 8."""
    if k == 0:
        return x
    assert n == 8
    half = repr(math.sqrt(0.5))
    if k == 1:
        return (text.let(f"{half} * ({x[0]} + {x[1]})"), text.let(f"{half} * ({x[1]} - {x[0]})"))
    less = repr(-math.sqrt(0.5))
    return (text.let(f"{half} * ({x[1]} - {x[0]})"), text.let(f"{less} * ({x[0]} + {x[1]})"))


def _odd(text: _Text, x: Sequence[Pair]) -> list[Pair]:
    """Inputs k and -k go into outputs j and -j by the same products."""
    n = len(x)
    pairs = [text.sums(x[k], x[n - k]) for k in range(1, n // 2 + 1)]
    results = [x[0]] * n
    results[0] = (
        text.let(" + ".join([x[0][0], *(plus[0] for plus, _ in pairs)])),
        text.let(" + ".join([x[0][1], *(plus[1] for plus, _ in pairs)])),
    )
    for j in range(1, n // 2 + 1):
        angles = [2 * math.pi * (j * k % n) / n for k in range(1, n // 2 + 1)]
        cosines = [repr(math.cos(a)) for a in angles]
        sines = [repr(math.sin(a)) for a in angles]
        near, far = (
            [
                text.let(" + ".join(f"{w} * {pair[k][part]}" for w, pair in zip(weights, pairs)))
                for part in range(2)
            ]
            for k, weights in enumerate((cosines, sines))
        )
        middle = text.let(f"{x[0][0]} + {near[0]}"), text.let(f"{x[0][1]} + {near[1]}")
        results[j], results[n - j] = text.turned_sums(middle, (far[0], far[1]))
    return results
