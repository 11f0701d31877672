"""The extents that code under trace sees: ``x.shape[0]`` where a dimension is symbolic.

A :class:`TracedSize` computes like an integer and stays symbolic under ``+ - * // %``.
A question (``batch > 1``) that has one answer for all sizes is simply answered; any other
is answered from the example the trace was given, and the answer becomes an assumption
of the program (``batch % 8 == 0`` among them).  Where a plain integer is needed
(``range(n)``, ``int(n)``), or equality with a number holds, only the example's size will
do: the dimension is then given that size, by tracing again (:class:`NeedsSize`).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from math import gcd
from typing import TYPE_CHECKING, Any, NoReturn, cast

from graphflow.errors import TraceError
from graphflow.ir.dims import Dim, Rounded, Shape, SymDim, never_negative, quotient
from graphflow.mode import mode
from graphflow.records import dataclass

if TYPE_CHECKING:
    from graphflow.tensor import Tensor


_RELATIONS = {">=": operator.ge, "!=": operator.ne, "==": operator.eq}


class NeedsSize(TraceError):
    """Traced code asked for the size itself of the dimensions with these ``symbols``.

    ``reason`` says where and how, for a trace made again with the dimensions fixed;
    ``always`` is False if other sizes may do without.
    """

    def __init__(
        self, message: str, symbols: frozenset[str], reason: str, always: bool = True
    ) -> None:
        super().__init__(message)
        self.symbols, self.reason, self.always = symbols, reason, always


@dataclass(frozen=True, slots=True)
class Assumption:
    """``dim >= bound``, ``dim != bound`` or, of a remainder, ``dim == bound``.

    ``dim`` has no constant part and no common factor.
    """

    dim: SymDim
    relation: str
    bound: int

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether it does for these sizes."""
        return bool(_RELATIONS[self.relation](self.dim.evaluate(sizes), self.bound))

    def __str__(self) -> str:
        remainder = _remainder_of(self.dim)
        if remainder is not None:
            return f"{remainder[0]} % {remainder[1]} {self.relation} {self.bound}"
        if self.dim.terms[0][1] < 0:
            turned = {">=": "<="}.get(self.relation, self.relation)
            return f"{-self.dim} {turned} {-self.bound}"
        return f"{self.dim} {self.relation} {self.bound}"


def assumption(dim: SymDim, relation: str) -> Assumption:
    """``dim >= 0``, ``dim != 0`` or ``dim == 0`` in canonical form."""
    constant, rest, factor = _parts(dim)
    if relation != ">=":
        turned = cast("SymDim", -rest)
        is_remainder = _remainder_of(rest) is not None
        if not is_remainder and (rest.terms[0][1] < 0 or _remainder_of(turned) is not None):
            factor = -factor
    return Assumption(cast("SymDim", quotient(rest, factor)), relation, -(constant // factor))


def _remainder_of(dim: SymDim) -> tuple[Dim, int] | None:
    """The ``x`` and ``n`` of a dimension that is ``x % n``."""
    for monomial, _ in dim.terms:
        atom = monomial[0] if len(monomial) == 1 else None
        if isinstance(atom, Rounded) and atom.function == "//" and isinstance(atom.right, int):
            if SymDim.__sub__(dim, atom.left % atom.right) == 0:
                return atom.left, atom.right
    return None


def _parts(dim: SymDim) -> tuple[int, SymDim, int]:
    """The constant in ``dim``, the rest, and the greatest number that divides the rest."""
    constant = next((c for monomial, c in dim.terms if not monomial), 0)
    rest = SymDim(tuple(term for term in dim.terms if term[0]))
    return constant, rest, gcd(*(c for _, c in rest.terms))


class TracedSize(SymDim):
    """A symbolic dimension in the hands of the function that is traced."""

    __slots__ = ()

    # ---- arithmetic ----------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        if isinstance(other, (int, SymDim)):
            return as_traced(SymDim.__add__(self, other))
        return self._number(other, lambda x: x + other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, (int, SymDim)):
            return as_traced(SymDim.__mul__(self, other))
        return self._number(other, lambda x: x * other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, (int, SymDim)):
            return as_traced(SymDim.__sub__(self, other))
        return self._number(other, lambda x: x - other)

    def __rsub__(self, other: Any) -> Any:
        if isinstance(other, (int, SymDim)):
            return as_traced(SymDim.__rsub__(self, other))
        return self._number(other, lambda x: other - x)

    def __neg__(self) -> Any:
        return as_traced(SymDim.__mul__(self, -1))

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, (int, SymDim)):
            return as_traced(as_plain(self) // as_plain(other))
        return self._number(other, lambda x: x // other)

    def __rfloordiv__(self, other: Any) -> Any:
        return as_traced(as_plain(other) // as_plain(self))

    def __mod__(self, other: Any) -> Any:
        if isinstance(other, (int, SymDim)):
            return as_traced(as_plain(self) % as_plain(other))
        return self._number(other, lambda x: x % other)

    def __rmod__(self, other: Any) -> Any:
        return as_traced(as_plain(other) % as_plain(self))

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __pow__(self, other: Any) -> Any:
        if isinstance(other, int) and other >= 0:
            found: Any = 1
            for _ in range(other):
                found = found * self
            return found
        return self._number(other, lambda x: x**other)

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, SymDim):
            return self.number() / number_of(other)
        return self._number(other, lambda x: x / other, whole=True)

    def __rtruediv__(self, other: Any) -> Any:
        return self._number(other, lambda x: other / x, whole=True)

    def _number(self, other: Any, compute: Any, whole: bool = False) -> Any:
        """``compute`` of this size as a run-time number, for a Python number ``other``."""
        if isinstance(other, float) or (whole and isinstance(other, int)):
            return compute(self.number())
        return NotImplemented

    def number(self) -> Tensor:
        """This size as a run-time scalar, which counts as a Python float."""
        return number_of(self)

    # ---- questions -----------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (int, SymDim)):
            return NotImplemented
        difference = SymDim.__sub__(self, other)
        if isinstance(difference, int):
            return difference == 0
        constant, _, factor = _parts(difference)
        if constant % factor:
            return False
        if never_negative(difference - 1) or never_negative(-1 - difference):
            return False
        if _assume(difference, "!="):
            return False
        if _remainder_of(assumption(difference, "==").dim) is not None:
            return _assume(difference, "==")
        _need_size(self, f"{self} == {other}", always=False)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.terms,))

    def __ge__(self, other: Any) -> bool:
        return _not_negative(SymDim.__sub__(self, other))

    def __le__(self, other: Any) -> bool:
        return _not_negative(SymDim.__rsub__(self, other))

    def __gt__(self, other: Any) -> bool:
        return _not_negative(SymDim.__sub__(self, other) - 1)

    def __lt__(self, other: Any) -> bool:
        return _not_negative(SymDim.__rsub__(self, other) - 1)

    def __bool__(self) -> bool:
        return self != 0

    def __index__(self) -> int:
        _need_size(self, f"{self} as a plain integer")

    def __int__(self) -> int:
        _need_size(self, f"int({self})")

    def __float__(self) -> float:
        _need_size(self, f"float({self})")

    def __round__(self, digits: int | None = None) -> Any:
        return self

    def __reduce__(self) -> Any:
        return SymDim, (self.terms,)


class _AsTypesDo:
    """``with as_types_do:`` sizes are compared as type rules compare dimensions.

    Gradient rules follow types, in which a symbolic dimension is no number: nothing need
    be assumed.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        if mode.tracer is not None:
            mode.tracer.rules += 1

    def __exit__(self, *error: object) -> None:
        if mode.tracer is not None:
            mode.tracer.rules -= 1
            mode.tracer.rule_place = None


as_types_do = _AsTypesDo()


def as_traced(dim: Dim) -> Any:
    """``dim`` for the function that is traced; integers are themselves."""
    return TracedSize(dim.terms) if isinstance(dim, SymDim) else dim


def traced_shape(shape: Shape) -> tuple[Any, ...]:
    """The extents of ``shape`` for the function that is traced."""
    return tuple(map(as_traced, shape))


_PLAIN = {int}


def as_plain(value: Any) -> Any:
    """An attribute, with sizes as the dimensions that graphs are made of."""
    kind = value.__class__
    if kind is tuple:
        return value if _PLAIN.issuperset(map(type, value)) else tuple(map(as_plain, value))
    return SymDim(value.terms) if kind is TracedSize else value


def same_size(one: Any, other: Any) -> bool:
    """True if two extents are equal for all sizes; nothing is assumed."""
    return bool(as_plain(one) == as_plain(other))


def at_sizes(value: Any, sizes: Mapping[str, int]) -> Any:
    """``value`` (a size, or a tuple that holds some) with numbers for the dimensions."""
    if isinstance(value, SymDim):
        return value.evaluate(sizes)
    if not isinstance(value, tuple):
        return value
    from graphflow.tensor import Size

    numbers = tuple(at_sizes(v, sizes) for v in value)
    return Size(numbers) if isinstance(value, Size) else numbers


def number_of(dim: Dim) -> Tensor:
    """``dim`` as a float64 run-time scalar, which counts as a Python number."""
    from graphflow.dispatch import scalar
    from graphflow.ir.types import float64

    made = scalar(dim, float64)
    made._weak = True
    return made


def _not_negative(dim: Dim) -> bool:
    if never_negative(dim):
        return True
    if isinstance(dim, int) or never_negative(-1 - dim):
        return False
    return _assume(dim, ">=")


def _assume(dim: SymDim, relation: str) -> bool:
    """Answer from the example, and let the program assume the answer."""
    tracer = mode.tracer
    found = assumption(dim, relation)
    if tracer is not None and tracer.rules and relation == "!=":
        return True
    if tracer is None or not dim.symbols <= tracer.sizes.keys():
        if tracer is None or relation != "!=":
            _need_size(dim, str(found))
        holds = True  # without an example a dimension is taken to be no particular number
    else:
        holds = found.holds(tracer.sizes)
    if not holds:
        if relation != ">=":
            return False
        found = assumption(cast("SymDim", -1 - dim), ">=")
    tracer.assumptions[found] = None
    return holds


def _need_size(dim: SymDim, what: str, always: bool = True) -> NoReturn:
    names = ", ".join(f"'{name}'" for name in sorted(dim.symbols))
    tracer = mode.tracer
    where = str(tracer.here()) if tracer is not None else ""
    place = f"\n  at {where}" if where else ""
    raise NeedsSize(
        f"{what} needs the size of the symbolic dimension {names}, which is not known while "
        f"the function is traced{place}\n  give the dimension a fixed size, or compute with "
        "the dimension itself (+ - * // % stay symbolic)",
        dim.symbols,
        f"{what} needs its size ({where})" if always else f"{what} ({where})",
        always,
    )
