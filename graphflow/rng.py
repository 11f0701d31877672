"""Random numbers: counter-based, the same eagerly, compiled and on any device.

A :class:`Generator` is a seed and a call number in one i64[2] tensor.  A draw
takes the next call number; element ``i`` of draw ``n`` is Philox4x32-10 of
(seed, n, i) (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), so no order of evaluation, fusion or thread count can change it.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from graphflow.cell import Cell
from graphflow.checks import need_device, need_int
from graphflow.dispatch import apply, assign
from graphflow.errors import GraphFlowError, TraceError
from graphflow.functions.creation import _shape
from graphflow.functions.elementwise import add, cos, div, log, lt, mul, neg, sqrt, sub
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast, get_default_dtype
from graphflow.tensor import Tensor

__all__ = [
    "bernoulli", "bernoulli_", "exponential_", "normal", "normal_", "rand", "rand_like",
    "randint", "randn", "randn_like", "randperm", "uniform_",
]  # fmt: skip
METHODS = """
bernoulli bernoulli_ exponential_ normal_ uniform_
""".split()


class Generator:
    """A stream of random numbers: ``manual_seed``, ``initial_seed``, ``get_state``."""

    def __init__(self, device: Any = None) -> None:
        self._cell = Cell(np.array([0, 0], np.int64))
        self.seed()

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream over from ``seed``."""
        if mode.tracer is not None:
            raise TraceError("seeding inside a compiled function is not possible; seed before it")
        self._cell.value[:] = np.array([seed & (2**64 - 1), 0], np.uint64).astype(np.int64)
        self._cell.version += 1
        return self

    def seed(self) -> int:
        """Start over from a seed the operating system chose; returns it."""
        chosen = int.from_bytes(os.urandom(7), "little")
        self.manual_seed(chosen)
        return chosen

    def initial_seed(self) -> int:
        """The seed of the stream."""
        return int(self._cell.value[0])

    def get_state(self) -> Tensor:
        """Seed and call number as an int64 tensor of two elements."""
        return Tensor._of(Cell(self._cell.value.copy()))

    def set_state(self, state: Tensor) -> Generator:
        """Continue from a state that :meth:`get_state` gave."""
        array = state.numpy()
        if array.shape != (2,) or array.dtype != np.int64:
            raise GraphFlowError("a generator state is an int64 tensor of two elements")
        self._cell.value[:] = array
        return self

    def draw(self) -> Draw:
        """The next call: independent bits for as many elements as wanted."""
        tracer = mode.tracer
        if tracer is not None:
            number = tracer.draw(self._cell)
            key = Tensor._of(Cell(tracer.captured[self._cell], tracer))
            return Draw(key, number)
        key = Tensor._of(Cell(self._cell.value.copy()))
        self._cell.value[1] += 1
        return Draw(key, 0)


class Draw:
    """One call of a generator."""

    def __init__(self, key: Tensor, number: int) -> None:
        self._key, self._number = key, number

    def bits(self, shape: tuple[int, ...], word: int) -> Tensor:
        """u32 bits; ``word`` 0 to 3 are independent."""
        return apply("random_bits", self._key, shape=shape, call=self._number, word=word)

    def uniform(self, shape: tuple[int, ...], dtype: DType, word: int = 0) -> Tensor:
        """Floats in [0, 1): 24 random bits, in float64 53."""
        if dtype is T.float64:
            high = cast(apply("shift_right", self.bits(shape, 2 * word), _u32(5)), T.float64)
            low = cast(apply("shift_right", self.bits(shape, 2 * word + 1), _u32(6)), T.float64)
            return mul(add(mul(high, 2.0**26), low), 2.0**-53)
        kept = apply("shift_right", self.bits(shape, word), _u32(8))
        return cast(mul(cast(kept, T.float32), 2.0**-24), dtype)

    def normal(self, shape: tuple[int, ...], dtype: DType) -> Tensor:
        """Standard normal values by Box and Muller's transform."""
        working = T.float64 if dtype is T.float64 else T.float32
        u, v = self.uniform(shape, working, 0), self.uniform(shape, working, 1)
        radius = sqrt(mul(log(sub(1.0, u)), -2.0))
        return cast(mul(radius, cos(mul(v, 2.0 * math.pi))), dtype)


def _u32(value: int) -> Tensor:
    return as_operand(value, T.uint32)


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator."""
    return default_generator.manual_seed(need_int("a seed", seed))


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """State of the default generator."""
    return default_generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Continue the default generator from ``state``."""
    default_generator.set_state(state)


def _draw(generator: Generator | None) -> Draw:
    return (generator or default_generator).draw()


def _finish(made: Tensor, requires_grad: bool) -> Tensor:
    return made.requires_grad_() if requires_grad else made


def rand(
    *size: Any, generator: Generator | None = None, dtype: DType | None = None,
    device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Uniform values in [0, 1)."""
    need_device(device)
    made = _draw(generator).uniform(_shape(size), dtype or get_default_dtype())
    return _finish(made, requires_grad)


def randn(
    *size: Any, generator: Generator | None = None, dtype: DType | None = None,
    device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Standard normal values."""
    need_device(device)
    made = _draw(generator).normal(_shape(size), dtype or get_default_dtype())
    return _finish(made, requires_grad)


def rand_like(input: Tensor, *, dtype: DType | None = None) -> Tensor:
    """Uniform values in the shape and dtype of ``input``."""
    return rand(tuple(input.shape), dtype=dtype or input.dtype)


def randn_like(input: Tensor, *, dtype: DType | None = None) -> Tensor:
    """Standard normal values in the shape and dtype of ``input``."""
    return randn(tuple(input.shape), dtype=dtype or input.dtype)


def randint(
    low: int, high: Any = None, size: Any = None, *, generator: Generator | None = None,
    dtype: DType | None = None, device: Any = None,
) -> Tensor:  # fmt: skip
    """Whole numbers in [low, high); ``randint(high, size)`` starts at 0."""
    need_device(device)
    if size is None:
        low, high, size = 0, low, high
    if high <= low:
        raise GraphFlowError(f"randint needs low < high, got [{low}, {high})")
    unit = _draw(generator).uniform(_shape((size,)), T.float64)
    return cast(add(apply("floor", mul(unit, float(high - low))), low), dtype or T.int64)


def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that ``input`` gives, else 0."""
    unit = _draw(generator).uniform(tuple(input.shape), T.float32)
    return cast(lt(unit, input.detach()), input.dtype)


def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None
) -> Tensor:
    """Normal values of the given mean and standard deviation."""
    shape = next((tuple(v.shape) for v in (mean, std) if isinstance(v, Tensor)), None)
    base = _draw(generator).normal(_shape((size,)) if shape is None else shape, get_default_dtype())
    return add(mul(base, std), mean)


def randperm(n: int, *, generator: Generator | None = None, dtype: DType | None = None) -> Tensor:
    """The whole numbers below ``n`` in random order."""
    unit = _draw(generator).uniform((n,), T.float64)
    order = np.argsort(unit._concrete("randperm()"), kind="stable")
    return cast(Tensor._of(Cell(order.astype(np.int64))), dtype or T.int64)


def uniform_(input: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with uniform values in [a, b)."""
    unit = _draw(generator).uniform(tuple(input.shape), input.dtype)
    return assign(input, add(mul(unit, b - a), a))


def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with normal values."""
    return assign(
        input, add(mul(_draw(generator).normal(tuple(input.shape), input.dtype), std), mean)
    )


def bernoulli_(input: Tensor, p: float = 0.5, generator: Any = None) -> Tensor:
    """Fill with 1 at probability ``p``, else 0."""
    unit = _draw(generator).uniform(tuple(input.shape), T.float32)
    return assign(input, cast(lt(unit, p), input.dtype))


def exponential_(input: Tensor, lambd: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with exponentially distributed values of rate ``lambd``."""
    unit = _draw(generator).uniform(tuple(input.shape), input.dtype)
    return assign(input, neg(div(log(sub(1.0, unit)), lambd)))
