"""Dimensions: an ``int``, or a symbolic extent in canonical polynomial form.

A symbolic dimension is a polynomial with integer coefficients over *symbols*
(``batch``, ``seq``).  The canonical form is a sorted tuple of ``(monomial,
coefficient)`` pairs, where a monomial is the sorted tuple of its symbols
(``batch*batch`` is ``("batch", "batch")``).  Two dimensions are equal exactly
when their canonical forms are, so shapes hash and compare like tuples of ints.

A symbol stands for a size that may be anything, so it never broadcasts
implicitly: ``batch`` is compatible with ``batch`` and with the literal 1 only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from graphflow.errors import ShapeError
from graphflow.records import dataclass

Monomial: TypeAlias = tuple[str, ...]

_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z")


@dataclass(frozen=True, slots=True)
class SymDim:
    """A polynomial over symbols; build with :func:`symbol` and ``+ - *``."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        return _from_terms(_terms(self) + _terms(other))

    __radd__ = __add__

    def __mul__(self, other: Dim) -> Dim:
        return _from_terms(
            [
                (tuple(sorted(m1 + m2)), c1 * c2)
                for m1, c1 in _terms(self)
                for m2, c2 in _terms(other)
            ]
        )

    __rmul__ = __mul__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + other * -1

    def __rsub__(self, other: Dim) -> Dim:
        return self * -1 + other

    def __str__(self) -> str:
        parts: list[str] = []
        for monomial, coefficient in self.terms:
            factors = list(monomial)
            if coefficient not in (1, -1) or not monomial:
                factors.insert(0, str(abs(coefficient)))
            sign = "-" if coefficient < 0 else ("+" if parts else "")
            parts.append(sign + "*".join(factors))
        return "".join(parts)

    __repr__ = __str__

    def attribute_key(self) -> tuple[tuple[Monomial, int], ...]:
        """Key for interning when a dimension is an attribute (of ``expand``, say)."""
        return self.terms

    @property
    def symbols(self) -> frozenset[str]:
        """The names of every symbol that occurs."""
        return frozenset(name for monomial, _ in self.terms for name in monomial)

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The extent when every symbol has the size given in ``sizes``."""
        total = 0
        for monomial, coefficient in self.terms:
            for name in monomial:
                if name not in sizes:
                    raise ShapeError(f"the symbolic dimension '{name}' has no size yet")
                coefficient *= sizes[name]
            total += coefficient
        return total


Dim: TypeAlias = int | SymDim
Shape: TypeAlias = tuple[Dim, ...]


def symbol(name: str) -> SymDim:
    """The dimension called ``name`` (an identifier)."""
    if not _SYMBOL.match(name):
        raise ShapeError(f"a symbolic dimension needs an identifier for a name, not {name!r}")
    return SymDim((((name,), 1),))


def dim_sum(dims: tuple[Dim, ...]) -> Dim:
    """Sum of dimensions (0 for none)."""
    total: Dim = 0
    for dim in dims:
        total = total + dim
    return total


def dim_product(dims: tuple[Dim, ...]) -> Dim:
    """Product of dimensions (1 for none): the number of elements of a shape."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def evaluate_dim(dim: Dim, sizes: Mapping[str, int]) -> int:
    """``dim`` as an integer under the given sizes of symbols."""
    return dim if isinstance(dim, int) else dim.evaluate(sizes)


def parse_dim(text: str) -> Dim:
    """Read a dimension as :meth:`SymDim.__str__` writes it (``2*batch+1``)."""
    total: Dim = 0
    for sign, term in re.findall(r"([+-]?)([^+-]+)", text.strip()):
        product: Dim = -1 if sign == "-" else 1
        for factor in term.split("*"):
            factor = factor.strip()
            product = product * (int(factor) if factor.isdigit() else symbol(factor))
        total = total + product
    return total


def _terms(dim: Dim) -> list[tuple[Monomial, int]]:
    if isinstance(dim, SymDim):
        return list(dim.terms)
    return [((), int(dim))] if dim else []


def _from_terms(terms: list[tuple[Monomial, int]]) -> Dim:
    merged: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        merged[monomial] = merged.get(monomial, 0) + coefficient
    kept = {m: c for m, c in merged.items() if c}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    return SymDim(tuple(sorted(kept.items(), key=lambda item: (-len(item[0]), item[0]))))
