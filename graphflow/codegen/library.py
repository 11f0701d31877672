"""A product as a library would be asked for it: plain records beside a kernel.

A product's call carries a :class:`Seen`: its axes, how its operands and its result step along
them, and what follows it.  Whether that is a product of matrices that a library takes is another
question, asked for the sizes at hand (:mod:`graphflow.codegen.cuda.matmul`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
