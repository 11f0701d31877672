"""Philox4x32-10, the counter-based generator behind every random number.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011).  Counter = (element index low, high, call low, high), key = seed
(low, high); ``word`` says which of the four results is wanted.
"""

from __future__ import annotations

from graphflow.codegen.llvm_expr import Value, select

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def _halves(x: Value) -> tuple[Value, Value]:
    return x.convert("u32"), (x.bitcast("u64") >> 32).convert("u32")


def _multiply(a: Value, multiplier: int) -> tuple[Value, Value]:
    product = a.convert("u64") * multiplier
    return (product >> 32).convert("u32"), product.convert("u32")


def philox(seed: Value, call: Value, index: Value, word: Value) -> Value:
    """Word ``word`` (0 … 3) of the block for element ``index`` of random call ``call``."""
    k0, k1 = _halves(seed)
    c0, c1 = _halves(index)
    c2, c3 = _halves(call)
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    first = select(word.equals(0), c0, c1)
    second = select(word.equals(2), c2, c3)
    return select(word < 2, first, second)
