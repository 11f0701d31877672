"""What a library is asked for: plain records, of products beside a kernel, of whole operations.

A product's call carries a :class:`Seen`: its axes, how its operands and its result step along
them, and what follows it.  Whether that is a product of matrices that a library takes is another
question, asked for the sizes at hand (:mod:`graphflow.codegen.cuda.matmul`).  An operation that
a library computes as a whole is a :class:`Routine` instead, and has no kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.records import dataclass

IDENTITY, RELU, GELU = "", "relu", "gelu"
"""What may follow a sum; ``gelu`` is the form with tanh."""


@dataclass(frozen=True, slots=True)
class Operand:
    """An array behind pointer ``argument`` of a call: from element ``offset`` on, with a stride
    in elements for each axis of the product."""

    argument: int
    offset: int
    dtype: str
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """``factor * operand``, added to a product."""

    operand: Operand
    factor: float


@dataclass(frozen=True, slots=True)
class Seen:
    """``result = activation(alpha * sum(a * b) + terms)`` over axes of ``kinds`` (``batch``,
    ``rows``, ``columns``, ``depth``) and ``extents``; sums of float32 may be TF32's."""

    kinds: tuple[str, ...]
    extents: tuple[int, ...]
    a: Operand
    b: Operand
    result: Operand
    alpha: float = 1.0
    terms: tuple[Term, ...] = ()
    activation: str = IDENTITY
    tf32: bool = False

    def at(self, numbers: Callable[[Sequence[int]], tuple[int, ...]]) -> Seen:
        """The same for other sizes: ``numbers`` says what integers are then."""

        def moved(operand: Operand) -> Operand:
            offset, *strides = numbers((operand.offset, *operand.strides))
            return Operand(operand.argument, offset, operand.dtype, tuple(strides))

        return Seen(
            self.kinds, numbers(self.extents), moved(self.a), moved(self.b), moved(self.result),
            self.alpha, tuple(Term(moved(t.operand), t.factor) for t in self.terms),
            self.activation, self.tf32,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Strided:
    """An array as it lies from its first element on; ``strides`` count elements."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Routine:
    """Operation ``name`` as a whole, over its operands and then its results.

    ``deterministic``: equal bits in every run.
    """

    name: str
    arrays: tuple[Strided, ...]
    attrs: tuple[tuple[str, Any], ...]
    deterministic: bool

    def at(self, numbers: Callable[[Sequence[int]], tuple[int, ...]]) -> Routine:
        """The same for other sizes: ``numbers`` says what integers are then."""
        arrays = (Strided(x.dtype, numbers(x.shape), numbers(x.strides)) for x in self.arrays)
        return Routine(self.name, tuple(arrays), self.attrs, self.deterministic)
