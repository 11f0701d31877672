"""Random decisions of transforms, from GraphFlow's default generator (``gf.manual_seed``)."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.rng import default_generator

_MASK = 0xFFFFFFFF


def unit() -> float:
    """The number that ``gf.rand(1, dtype=gf.float64)`` would give, at a hundredth of the price."""
    state = default_generator.draw()._key._concrete("a random transform")
    seed, call = state.tolist()
    first, second = _philox(seed, call)
    return ((first >> 5) * 2.0**26 + (second >> 6)) * 2.0**-53


def _philox(seed: int, call: int) -> tuple[int, int]:
    """The first two words of Philox4x32-10 at element 0, as in ``graphflow.ir.ops.generators``."""
    x0, x1, x2, x3 = 0, 0, call & _MASK, call >> 32 & _MASK
    k0, k1 = seed & _MASK, seed >> 32 & _MASK
    for _ in range(10):
        p0, p1 = x0 * 0xD2511F53, x2 * 0xCD9E8D57
        x0, x1, x2, x3 = (p1 >> 32) ^ x1 ^ k0, p1 & _MASK, (p0 >> 32) ^ x3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return x0, x1


def uniform(low: float, high: float) -> float:
    """A number in [low, high)."""
    return low + (high - low) * unit()


def integer(low: int, high: int) -> int:
    """A whole number in [low, high)."""
    return min(high - 1, low + int(uniform(0, high - low)))


def chance(p: float) -> bool:
    """True with probability ``p``."""
    return uniform(0, 1) < p


def order(count: int) -> list[int]:
    """The numbers below ``count`` in random order."""
    keys = [unit() for _ in range(count)]
    return sorted(range(count), key=lambda i: keys[i])


def weighted(weights: Sequence[float]) -> int:
    """A position, with probability proportional to its weight."""
    left = uniform(0, sum(weights))
    for position, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return position
    return len(weights) - 1
