"""What a library is asked for: plain records, of products beside a kernel, of whole operations.

A product's call carries a :class:`Seen`: its axes, how its operands and its result step along
them, and what follows it.  Whether that is a product of matrices that a library takes is another
question, asked for the sizes at hand (:mod:`graphflow.codegen.cuda.matmul`,
:mod:`graphflow.codegen.cuda.convolution`).  An operation that a library computes as a whole is a
:class:`Routine` instead, and has no kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

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
class Numerics:
    """What a library may do: round float32 to TF32 in products of matrices (``matmul_tf32``) and
    in convolutions, and, unless ``deterministic``, add up in another order in every run."""

    matmul_tf32: bool = False
    convolution_tf32: bool = False
    deterministic: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """``result = activation(alpha * sum(a * b) + terms)`` over axes of ``kinds`` (``batch``,
    ``rows``, ``columns``, ``depth``) and ``extents``, computed as ``numerics`` says."""

    kinds: tuple[str, ...]
    extents: tuple[int, ...]
    a: Operand
    b: Operand
    result: Operand
    alpha: float = 1.0
    terms: tuple[Term, ...] = ()
    activation: str = IDENTITY
    numerics: Numerics = Numerics()

    def at(self, numbers: Callable[[Sequence[int]], tuple[int, ...]]) -> Seen:
        """The same for other sizes: ``numbers`` says what integers are then."""
        terms = tuple(Term(_moved(t.operand, numbers), t.factor) for t in self.terms)
        a, b, result = (_moved(x, numbers) for x in (self.a, self.b, self.result))
        return Seen(
            self.kinds, numbers(self.extents), a, b, result, self.alpha, terms,
            self.activation, self.numerics,
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


@dataclass(frozen=True, slots=True)
class Padded:
    """A copy with zeros around: ``result[i] = source[i - low]`` where ``source``, of ``extents``,
    has that element, else 0; ``result`` is of ``wide`` extents and without gaps."""

    source: Operand
    result: Operand
    low: tuple[int, ...]
    extents: tuple[int, ...]
    wide: tuple[int, ...]

    def at(self, numbers: Callable[[Sequence[int]], tuple[int, ...]]) -> Padded:
        """The same for other sizes: ``numbers`` says what integers are then."""
        return Padded(
            _moved(self.source, numbers), _moved(self.result, numbers), numbers(self.low),
            numbers(self.extents), numbers(self.wide),
        )  # fmt: skip


def _moved(operand: Operand, numbers: Callable[[Sequence[int]], tuple[int, ...]]) -> Operand:
    offset, *strides = numbers((operand.offset, *operand.strides))
    return Operand(operand.argument, offset, operand.dtype, tuple(strides))


Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True)
class Plan(Generic[Asked]):
    """A product by a library: what it is ``asked`` for, once for each of ``starts``.

    ``places`` are the arguments of a call that its operands lie behind (-1: it has none), and a
    start is the element at which each begins.
    """

    asked: Asked
    places: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
