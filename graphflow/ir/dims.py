"""Dimensions: an ``int``, or a symbolic extent in canonical polynomial form.

A symbolic dimension is a polynomial with integer coefficients over *atoms*: symbols
(``batch``, ``seq``) and what no polynomial says, a quotient rounded down
``(batch//2)``, a ``min(a,b)`` or ``max(a,b)``.  The canonical form is a sorted tuple
of ``(monomial, coefficient)`` pairs, where a monomial is the sorted tuple of its
atoms (``batch*batch`` is ``("batch", "batch")``).  Two dimensions are equal exactly
when their canonical forms are, so shapes hash and compare like tuples of ints.

A symbol stands for a size that may be anything, so it never broadcasts
implicitly: ``batch`` is compatible with ``batch`` and with the literal 1 only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from graphflow.errors import ShapeError
from graphflow.records import dataclass

_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z")
_FUNCTIONS: dict[str, Callable[[int, int], int]] = {
    "//": lambda a, b: a // b,
    "min": min,
    "max": max,
}


@dataclass(frozen=True, slots=True)
class Rounded:
    """An atom that is no symbol: ``function`` (``//``, ``min``, ``max``) of two dimensions."""

    function: str
    left: Dim
    right: Dim

    def __str__(self) -> str:
        if self.function == "//":
            return f"({_factor(self.left)}//{_factor(self.right)})"
        return f"{self.function}({self.left},{self.right})"

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The number under the given sizes of symbols."""
        left, right = evaluate_dim(self.left, sizes), evaluate_dim(self.right, sizes)
        if self.function == "//" and not right:
            raise ShapeError(f"the dimension {self} divides by zero")
        return _FUNCTIONS[self.function](left, right)


Atom: TypeAlias = str | Rounded
Monomial: TypeAlias = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class SymDim:
    """A polynomial over atoms; build with :func:`symbol` and ``+ - * // %``."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        return _from_terms(_terms(self) + _terms(other))

    __radd__ = __add__

    def __mul__(self, other: Dim) -> Dim:
        return _from_terms(
            [
                (tuple(sorted(m1 + m2, key=str)), c1 * c2)
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

    def __floordiv__(self, other: Dim) -> Dim:
        return quotient(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return quotient(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return self - quotient(self, other) * other

    def __rmod__(self, other: Dim) -> Dim:
        return other - quotient(other, self) * self

    def __ge__(self, other: Dim) -> bool:
        return _known(self - other, f"{self} >= {other}")

    def __gt__(self, other: Dim) -> bool:
        return _known(self - other - 1, f"{self} > {other}")

    def __le__(self, other: Dim) -> bool:
        return _known(other - self, f"{self} <= {other}")

    def __lt__(self, other: Dim) -> bool:
        return _known(other - self - 1, f"{self} < {other}")

    def __str__(self) -> str:
        parts: list[str] = []
        for monomial, coefficient in self.terms:
            factors = [str(atom) for atom in monomial]
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
        found: set[str] = set()
        for monomial, _ in self.terms:
            for atom in monomial:
                if isinstance(atom, str):
                    found.add(atom)
                else:
                    found |= symbols_of(atom.left) | symbols_of(atom.right)
        return frozenset(found)

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The extent when every symbol has the size given in ``sizes``."""
        total = 0
        for monomial, coefficient in self.terms:
            for atom in monomial:
                if not isinstance(atom, str):
                    coefficient *= atom.evaluate(sizes)
                elif atom in sizes:
                    coefficient *= sizes[atom]
                else:
                    raise ShapeError(f"the symbolic dimension '{atom}' has no size yet")
            total += coefficient
        return total


Dim: TypeAlias = int | SymDim
Shape: TypeAlias = tuple[Dim, ...]


def symbol(name: str) -> SymDim:
    """The dimension called ``name`` (an identifier)."""
    if not _SYMBOL.match(name):
        raise ShapeError(f"a symbolic dimension needs an identifier for a name, not {name!r}")
    return SymDim((((name,), 1),))


def symbols_of(dim: Dim) -> frozenset[str]:
    """The names of the symbols in ``dim``; none in an integer."""
    return dim.symbols if isinstance(dim, SymDim) else frozenset()


def quotient(left: Dim, right: Dim) -> Dim:
    """``left // right``: a polynomial where the division is exact for every size."""
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    if isinstance(right, int) and right == 0:
        raise ZeroDivisionError(f"the dimension {left} divided by zero")
    exact = _exact_quotient(left, right)
    if exact is not None:
        return exact
    return SymDim(((((Rounded("//", left, right)),), 1),))


def least(left: Dim, right: Dim) -> Dim:
    """The smaller of two dimensions."""
    return _extreme("min", left, right)


def greatest(left: Dim, right: Dim) -> Dim:
    """The larger of two dimensions."""
    return _extreme("max", left, right)


def _extreme(function: str, left: Dim, right: Dim) -> Dim:
    if isinstance(left, int) and isinstance(right, int):
        return _FUNCTIONS[function](left, right)
    if never_negative(left - right):
        return left if function == "max" else right
    if never_negative(right - left):
        return right if function == "max" else left
    return SymDim((((Rounded(function, left, right),), 1),))


def never_negative(dim: Dim) -> bool:
    """True when ``dim`` is known to be at least zero for all sizes, which are so themselves."""
    if isinstance(dim, int):
        return dim >= 0
    return all(c >= 0 and all(map(_atom_is_natural, m)) for m, c in dim.terms)


def _known(difference: Dim, what: str) -> bool:
    """Whether ``difference >= 0``, if that is the same for all sizes."""
    if never_negative(difference):
        return True
    if never_negative(-1 - difference):
        return False
    raise ShapeError(f"whether {what} depends on the sizes of the symbolic dimensions")


def _atom_is_natural(atom: Atom) -> bool:
    if isinstance(atom, str):
        return True
    either = never_negative(atom.left), never_negative(atom.right)
    return any(either) if atom.function == "max" else all(either)


def _exact_quotient(left: Dim, right: Dim) -> Dim | None:
    """The polynomial that times ``right`` is ``left``, if there is one: long division.

    Terms are sorted by degree and then by name, so a product's first term is the product of
    the first terms.
    """
    found: Dim = 0
    atoms, factor = _terms(right)[0]
    while terms := _terms(left):
        monomial, coefficient = terms[0]
        rest = list(monomial)
        for atom in atoms:
            if atom not in rest:
                return None
            rest.remove(atom)
        if coefficient % factor:
            return None
        term = _from_terms([(tuple(rest), coefficient // factor)])
        found, left = found + term, left - term * right
    return found


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
    """Read a dimension as :meth:`SymDim.__str__` writes it (``2*(batch//2)+1``)."""
    reader = _Reader(re.findall(r"[A-Za-z_0-9]+|//|[-+*(),]", text))
    found = reader.sum()
    if reader.here is not None:
        raise ShapeError(f"{text!r} is no dimension")
    return found


class _Reader:
    """Recursive descent over the tokens of a dimension."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._next = tokens, 0

    @property
    def here(self) -> str | None:
        """The token at hand, None at the end."""
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self, *wanted: str) -> str:
        token = self.here
        if token is None or (wanted and token not in wanted):
            raise ShapeError(f"{' '.join(self._tokens)!r} is no dimension")
        self._next += 1
        return token

    def sum(self) -> Dim:
        """Terms with signs."""
        sign = -1 if self.here == "-" and self._take() else 1
        total = self._product() * sign
        while self.here in ("+", "-"):
            sign = -1 if self._take() == "-" else 1
            total = total + self._product() * sign
        return total

    def _product(self) -> Dim:
        total = self._factor()
        while self.here in ("*", "//"):
            divides = self._take() == "//"
            factor = self._factor()
            total = quotient(total, factor) if divides else total * factor
        return total

    def _factor(self) -> Dim:
        token = self._take()
        if token == "(":
            inner = self.sum()
            self._take(")")
            return inner
        if token in ("min", "max") and self.here == "(":
            self._take("(")
            left = self.sum()
            self._take(",")
            right = self.sum()
            self._take(")")
            return _extreme(token, left, right)
        return int(token) if token.isdigit() else symbol(token)


def _factor(dim: Dim) -> str:
    """``dim`` as an operand of a quotient."""
    text = str(dim)
    return text if text.isalnum() else f"({text})"


def _terms(dim: Dim) -> list[tuple[Monomial, int]]:
    if isinstance(dim, SymDim):
        return list(dim.terms)
    return [((), int(dim))] if dim else []


def _order(item: tuple[Monomial, int]) -> tuple[Any, ...]:
    monomial = item[0]
    return -len(monomial), tuple(map(str, monomial))


def _from_terms(terms: list[tuple[Monomial, int]]) -> Dim:
    merged: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        merged[monomial] = merged.get(monomial, 0) + coefficient
    kept = {m: c for m, c in merged.items() if c}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    return SymDim(tuple(sorted(kept.items(), key=_order)))
