"""Affine index expressions: what a view does to indices.

``Affine({i: 2, j: 1}, 3)`` is ``2*i + j + 3`` over loop variables ``i``, ``j``.
View operations map the index of a result element to the index of the operand
element it shows; composing those maps lets code generation read any chain of
views straight from memory.  Coefficients and offsets may be symbolic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from graphflow.ir.dims import Dim
from graphflow.records import dataclass


@dataclass(frozen=True, slots=True)
class Affine:
    """``sum(coefficient * variable) + offset``; variables are named."""

    terms: tuple[tuple[str, Dim], ...] = ()
    offset: Dim = 0

    @staticmethod
    def variable(name: str) -> Affine:
        """The expression that is just ``name``."""
        return Affine(((name, 1),))

    @staticmethod
    def of(terms: Mapping[str, Dim], offset: Dim = 0) -> Affine:
        """Canonical form: sorted by variable, zero coefficients dropped."""
        kept = sorted((n, c) for n, c in terms.items() if c != 0)
        return Affine(tuple(kept), offset)

    def __add__(self, other: Affine | Dim) -> Affine:
        if not isinstance(other, Affine):
            return Affine(self.terms, self.offset + other)
        terms = dict(self.terms)
        for name, coefficient in other.terms:
            terms[name] = terms.get(name, 0) + coefficient
        return Affine.of(terms, self.offset + other.offset)

    def __mul__(self, factor: Dim) -> Affine:
        return Affine.of({n: c * factor for n, c in self.terms}, self.offset * factor)

    def coefficient(self, name: str) -> Dim:
        """The factor of variable ``name`` (0 if it does not occur)."""
        return dict(self.terms).get(name, 0)

    def __str__(self) -> str:
        parts = [n if c == 1 else f"{c}*{n}" for n, c in self.terms]
        if self.offset != 0 or not parts:
            parts.append(str(self.offset))
        return " + ".join(parts)


Index: TypeAlias = tuple[Affine, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """``low <= index < high``; half of a guard on a padded or joined read."""

    index: Affine
    low: Dim
    high: Dim


@dataclass(frozen=True, slots=True)
class Piece:
    """One operand a view reads: at ``index``, where every condition holds."""

    operand: int
    index: Index
    conditions: tuple[Condition, ...] = ()
