"""The laws of algebra that simplification may use, one a row.

A row holds for every value, NaN, infinities and -0.0 included, to the last bit,
unless it says ``rounding``: then both sides are the same real number and differ
by rounding only (or in the sign of a zero sum).  That is why some well-known
laws are missing: ``x + 0.0`` turns -0.0 into 0.0, ``x * 0`` is NaN for an
infinite ``x``, ``x - x`` too, and ``not (a < b)`` is no ``a >= b`` for NaN.

Replacements with attributes to compute are functions in
:mod:`graphflow.passes.view_laws`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeAlias

from graphflow.digests import BYTES, amendments
from graphflow.ir.node import Node
from graphflow.ir.pattern import Apply, Bindings, Pattern, build, fit, match, needed, parse_pattern
from graphflow.ir.types import TensorType
from graphflow.passes import view_laws as views
from graphflow.passes.rewrite import hits, settled
from graphflow.records import dataclass

Replacement: TypeAlias = Callable[[Node, Bindings], Node | None]


@dataclass(frozen=True, slots=True)
class Law:
    """``pattern`` may be replaced by ``replacement``: a pattern, or a function that
    computes it and returns ``None`` where the law does not hold."""

    pattern: str
    replacement: str | Replacement
    rounding: bool = False


LAWS: tuple[Law, ...] = (
    # Neutral elements.  -0.0 is the neutral element of float addition: 0.0 is none.
    Law("add(%x, -0.0)", "%x"),  # x + -0.0 = x
    Law("add(%x, 0)", "%x"),  # x + 0 = x, integers
    Law("sub(%x, 0.0)", "%x"),  # x - 0.0 = x
    Law("sub(%x, 0)", "%x"),  # x - 0 = x, integers
    Law("mul(%x, 1.0)", "%x"),  # x * 1 = x
    Law("mul(%x, 1)", "%x"),
    Law("mul(%x, 0)", "0"),  # x * 0 = 0, integers only: a float may be infinite
    Law("div(%x, 1.0)", "%x"),  # x / 1 = x
    Law("pow(%x, 1.0)", "%x"),  # x ** 1 = x
    Law("pow(%x, 1)", "%x"),
    Law("pow(%x, 0.0)", "1.0"),  # x ** 0 = 1, even for NaN (IEEE 754, 9.2.1)
    Law("pow(%x, 0)", "1"),
    Law("logical_and(%x, true)", "%x"),  # x and true = x
    Law("logical_and(%x, false)", "false"),  # x and false = false
    Law("logical_or(%x, false)", "%x"),  # x or false = x
    Law("logical_or(%x, true)", "true"),  # x or true = true
    # Signs.
    Law("neg(neg(%x))", "%x"),  # -(-x) = x
    Law("mul(%x, -1.0)", "neg(%x)"),  # x * -1 = -x
    Law("mul(neg(%x), neg(%y))", "mul(%x, %y)"),  # (-x) * (-y) = x * y
    Law("div(neg(%x), neg(%y))", "div(%x, %y)"),  # (-x) / (-y) = x / y
    Law("add(%x, neg(%y))", "sub(%x, %y)"),  # x + (-y) = x - y, by definition
    Law("sub(%x, neg(%y))", "add(%x, %y)"),  # x - (-y) = x + y
    Law("neg(sub(%x, %y))", views.swapped_difference),  # -(x - y) = y - x, integers
    Law("abs(neg(%x))", views.absolute_of_negative),  # |-x| = |x|
    Law("abs(abs(%x))", "abs(%x)"),  # ||x|| = |x|
    # Idempotence and choice.
    Law("relu(relu(%x))", "relu(%x)"),  # max(max(x, 0), 0) = max(x, 0)
    Law("maximum(%x, %x)", "%x"),  # max(x, x) = x
    Law("minimum(%x, %x)", "%x"),  # min(x, x) = x
    Law("logical_and(%x, %x)", "%x"),  # x and x = x
    Law("logical_or(%x, %x)", "%x"),  # x or x = x
    Law("logical_not(logical_not(%x))", "%x"),  # not not x = x, booleans
    Law("logical_not(eq(%x, %y))", "ne(%x, %y)"),  # not (x = y) is x ≠ y, for NaN too
    Law("logical_not(ne(%x, %y))", "eq(%x, %y)"),  # not (x ≠ y) is x = y
    Law("where(%_, %x, %x)", "%x"),  # c ? x : x = x
    Law("where(true, %x, %_)", "%x"),  # true ? x : y = x
    Law("where(false, %_, %y)", "%y"),  # false ? x : y = y
    Law("where(logical_not(%c), %x, %y)", views.swapped_choice),  # not c ? x : y = c ? y : x
    # Powers and quotients.
    Law("pow(%x, 2.0)", "mul(%x, %x)", rounding=True),  # x² = x * x
    Law("pow(%x, 2)", "mul(%x, %x)"),
    Law("pow(%x, 3.0)", "mul(mul(%x, %x), %x)", rounding=True),  # x³ = x * x * x
    Law("pow(%x, -1.0)", "reciprocal(%x)", rounding=True),  # x ** -1 = 1 / x
    Law("div(%x, %y)", views.quotient_by_power_of_two),  # x / 2^k = x * 2^-k
    # tanh of softplus (mish): no logarithm, and no second exponential.
    Law(
        "tanh(where(gt(%x, %k), %x, log1p(exp(where(gt(%x, %k), %k, %x)))))",
        views.tanh_of_bounded_softplus,  # (u²-1)/(u²+1) with u = 1 + e^min(x, k), for 20 ≤ k ≤ 40
        rounding=True,
    ),
    Law("tanh(where(gt(%x, %k), %x, %y))", views.tanh_of_large),  # tanh(x) = 1 for x > 20
    Law("tanh(log1p(exp(%x)))", views.tanh_of_softplus, rounding=True),  # (u²-1)/(u²+1), u=1+eˣ
    # erf(x) + 1 = 2 Phi(sqrt(2) x), which needs no relative accuracy of erf (GELU).
    Law("add(erf(mul(%x, %c)), 1.0)", views.normal_share, rounding=True),  # c = sqrt(1/2)
    Law("add(erf(%x), 1.0)", "mul(phi(mul(%x, 1.4142135623730951)), 2.0)", rounding=True),
    Law("mul(mul(%x, 0.5), mul(phi(%y), 2.0))", "mul(%x, phi(%y))", rounding=True),
    # Conversions.
    Law("cast(%x)", views.cast_to_same),  # a cast to the type x has
    Law("cast(cast(%x))", views.cast_of_lossless_cast),  # the first cast lost nothing
    Law("stop_gradient(%x)", "%x"),  # there is nothing left to differentiate
    # Views.
    Law("reshape(%x)", views.same_type),  # reshape to the shape x has
    Law("reshape(reshape(%x))", views.reshape_of_reshape),  # only the last shape counts
    Law("permute(%x)", views.permute_of_unit_axes),  # moves axes of extent 1 only: reshape
    Law("permute(permute(%x))", views.permute_of_permute),  # permutations compose
    Law("expand(%x)", views.expand_by_unit_axes),  # adds axes of extent 1 only: reshape
    Law("expand(expand(%x))", views.expand_of_expand),  # only the last shape counts
    Law("expand(reshape(%x))", views.expand_of_reshape),  # the reshape adds leading 1s
    Law("slice(%x)", views.same_type),  # all of x
    Law("slice(slice(%x))", views.slice_of_slice),  # (x[a:b:s])[c:d:t] = x[a + c*s: … : s*t]
    Law("flip(%x)", views.flip_of_unit_axes),  # an axis of extent 1 has no direction
    Law("flip(flip(%x))", views.flip_of_flip),  # two reversals of an axis cancel
    Law("pad(%x)", views.same_type),  # by nothing
    Law("add(pad(%x), %y)", views.sum_of_paddings, rounding=True),  # side by side: put together
    Law("concatenate(...)", views.concatenate_of_few),  # of one operand, or with empty ones
    # Products.
    Law("matmul(%x, %y)", views.few_long_sums, rounding=True),  # Σ x y
    Law("contract(%x, %y)", views.few_long_sums, rounding=True),
    # Reductions.
    Law("reduce_sum(%x)", views.reduction_of_unit_axes, rounding=True),  # a sum of one element
    Law("reduce_prod(%x)", views.reduction_of_unit_axes),
    Law("reduce_max(%x)", views.reduction_of_unit_axes),
    Law("reduce_min(%x)", views.reduction_of_unit_axes),
    Law("reduce_sum(reduce_sum(%x))", views.reduction_of_reduction, rounding=True),  # ΣΣ = Σ
    Law("reduce_max(reduce_max(%x))", views.reduction_of_reduction),  # max max = max
    Law("reduce_min(reduce_min(%x))", views.reduction_of_reduction),  # min min = min
    Law("reduce_sum(expand(%x))", views.sum_of_copies, rounding=True),  # x + … + x = n * x
    Law("reduce_sum(mul(%x, %y))", views.sum_of_scaled, rounding=True),  # Σ x w = w * Σ x
)

_in_force = LAWS


_Row: TypeAlias = tuple[tuple[frozenset[str], ...], Pattern, Law, Pattern | None]
"""What operands must be there (:func:`needed`), the pattern, its law and what it gives."""


@lru_cache(maxsize=1)
def _index() -> Mapping[str, tuple[_Row, ...]]:
    """The laws in force by the operation their patterns start with."""
    found: dict[str, list[_Row]] = {}
    for law in _in_force:
        pattern = parse_pattern(law.pattern)
        assert isinstance(pattern, Apply)
        result = parse_pattern(law.replacement) if isinstance(law.replacement, str) else None
        found.setdefault(pattern.op, []).append((needed(pattern), pattern, law, result))
    return {name: tuple(rows) for name, rows in found.items()}


@lru_cache(maxsize=4096)
def _rows(op: str, *operands: str) -> Sequence[tuple[Pattern, Law, Pattern | None]]:
    """The laws that may hold for an operation on the results of ``operands``."""
    return [
        (pattern, law, result)
        for sources, pattern, law, result in _index().get(op, ())
        if not any(source.isdisjoint(operands) for source in sources)
    ]


@contextmanager
def laws_in_force(laws: Sequence[Law]) -> Iterator[None]:
    """Simplify by ``laws`` in place of :data:`LAWS` for a block, in all threads; blocks nest.

    A program compiled in it is never taken for one compiled outside of it or in another block,
    nor the other way: its plan is kept under a name that nothing else has, since what a law's
    function does cannot be digested.
    """
    before, amendment = _in_force, os.urandom(BYTES)
    amendments.append(amendment)
    try:
        _put_in_force(tuple(laws))
        yield
    finally:
        _put_in_force(before)
        amendments.remove(amendment)


def _put_in_force(laws: tuple[Law, ...]) -> None:
    """Forget what was known of the laws before, and which nodes they had nothing to say about."""
    global _in_force
    _in_force = laws
    _index.cache_clear()
    _rows.cache_clear()
    settled.pop(apply_laws, None)


def apply_laws(node: Node) -> Node | None:
    """``node`` rewritten by the first law that holds for it; ``None`` if none does."""
    for pattern, law, result in _rows(node.op.name, *[n.op.name for n in node.inputs]):
        bound = match(pattern, node)
        if bound is not None:
            replacement = _replacement(node, law, result, bound)
            if replacement is not None:
                hits[law.pattern] += 1
                return replacement
    found = views.narrowed(node)
    if found is not None:
        hits[f"{node.op.kind.value} of broadcasts"] += 1
    return found


def _replacement(node: Node, law: Law, result: Pattern | None, bound: Bindings) -> Node | None:
    if result is None:
        assert not isinstance(law.replacement, str)
        return law.replacement(node, bound)
    type = node.type
    assert isinstance(type, TensorType)
    made = build(result, bound, type.dtype)
    if made.dtype is not type.dtype:  # ``not not x`` is no ``x`` for an integer
        return None
    return fit(made, type)
