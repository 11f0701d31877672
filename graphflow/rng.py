"""Random numbers: counter-based, the same eagerly, compiled and on any device.

A :class:`Generator` is a seed and a call number in one i64[2] tensor.  A draw
takes the next call number; element ``i`` of draw ``n`` is Philox4x32-10 of
(seed, n, i) (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), so no order of evaluation, fusion or thread count can change it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from graphflow.cell import Cell, Filling
from graphflow.checks import need_dtype, need_int, need_tensor
from graphflow.device import CPU, Device, beside_operands
from graphflow.dispatch import TENSORS, apply, assign, fill_with
from graphflow.errors import DTypeError, GraphFlowError, TraceError
from graphflow.formats import check_placement
from graphflow.functions.creation import _shape, placed
from graphflow.functions.elementwise import add, div, log, lt, mul, neg, sub
from graphflow.ir import types as T
from graphflow.ir.op import ARRAYS, Builder
from graphflow.ir.types import DType, broadcast_shapes
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast, get_default_dtype
from graphflow.runtime.storage import Array
from graphflow.tensor import Tensor

__all__ = [
    "bernoulli", "normal", "rand", "rand_like", "randint", "randn", "randn_like",
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

    @property
    def device(self) -> Device:
        """The CPU's, whichever device draws."""
        return CPU

    def clone_state(self) -> Generator:
        """Another generator that goes on from the same state."""
        return Generator().set_state(self.get_state())

    def get_state(self) -> Tensor:
        """Seed and call number as an int64 tensor of two elements."""
        return Tensor._of(Cell(self._cell.value.copy()))

    def set_state(self, state: Tensor) -> Generator:
        """Continue from a state that :meth:`get_state` gave."""
        array = state.numpy()
        if array.shape != (2,) or array.dtype != np.int64:
            raise GraphFlowError("a generator state is an int64 tensor of two elements")
        self._cell.value[:] = array
        self._cell.version += 1
        return self

    def draw(self) -> Draw:
        """The next call: independent bits for as many elements as wanted."""
        tracer = mode.tracer
        if tracer is not None:
            number = tracer.draw(self._cell)
            made = Draw(tracer.generator_key(self._cell), number)
            return made if tracer.behind is None else made.again(tracer.behind)
        key = Tensor._of(Cell(self._cell.value.copy()))
        self._cell.value[1] += 1
        self._cell.version += 1
        return Draw(key, 0)


class Draw:
    """One call of a generator."""

    def __init__(self, key: Tensor, number: int) -> None:
        self._key, self._number = key, number

    def again(self, token: Tensor) -> Draw:
        """The same bits, drawn anew once ``token``, a number, is there: not kept till then."""
        return Draw(apply("after", self._key, cast(token, T.int64)), self._number)

    def bits(self, shape: tuple[int, ...], word: int) -> Tensor:
        """u32 bits; ``word`` 0 to 3 are independent."""
        key = self._key
        if mode.place is not None:
            from graphflow.moves import moved

            key = moved(key, mode.place)
        return apply("random_bits", key, shape=shape, call=self._number, word=word)

    def uniform(self, shape: tuple[int, ...], dtype: DType, word: int = 0) -> Tensor:
        """Floats in [0, 1): as many random bits as the dtype holds exactly."""
        if dtype is T.float64:
            high = cast(apply("shift_right", self.bits(shape, 2 * word), _u32(5)), T.float64)
            low = cast(apply("shift_right", self.bits(shape, 2 * word + 1), _u32(6)), T.float64)
            return mul(add(mul(high, 2.0**26), low), 2.0**-53)
        if dtype is T.float32:
            many = self._many(shape, (word,))
            if many is not None:
                return many
        digits = _DIGITS.get(dtype, 24)
        kept = apply("shift_right", self.bits(shape, word), _u32(32 - digits))
        return cast(mul(cast(kept, T.float32), 2.0**-digits), dtype)

    def normal(self, shape: tuple[int, ...], dtype: DType) -> Tensor:
        """Standard normal values by Box and Muller's transform."""
        working = T.float64 if dtype is T.float64 else T.float32
        made = self._many(shape, (0, 1), _normal_of) if working is T.float32 else None
        if made is None:
            u, v = self.uniform(shape, working, 0), self.uniform(shape, working, 1)
            made = _normal_of(TENSORS, u, v)
        return cast(made, dtype)

    def fills(self, target: Tensor, words: tuple[int, ...], formula: _Formula) -> bool:
        """``target[...] = formula(uniform of each word)`` by a kernel; False if there is none."""
        single = target.dtype is T.float32 and mode.guard is None
        return single and fill_with(target, lambda array: self._filler(array, words, formula))

    def _many(
        self, shape: tuple[int, ...], words: tuple[int, ...], formula: _Formula | None = None
    ) -> Tensor | None:
        """Float32 by a kernel, where the cache has it: the same numbers, sooner."""
        if mode.tracer is not None or math.prod(shape) < _MANY:
            return None
        made = np.empty(shape, np.float32)
        fill = self._filler(made, words, formula)
        if fill is None:
            return None
        fill(made)
        return Tensor._of(Cell(made))

    def _filler(
        self, out: Array, words: tuple[int, ...], formula: _Formula | None
    ) -> Filling | None:
        """A kernel, where the cache has it, that writes over many row-major elements.

        The formula is worked out for a few at a time, in the caches, by every thread.
        """
        if mode.place is not None or out.size < _MANY or not out.flags.c_contiguous:
            return None
        from graphflow.runtime.random_floats import random_floats

        seed, base = self._key._eager().tolist()
        here = None if formula is None else partial(formula, ARRAYS)
        return random_floats(seed, base + self._number, words, here)


_Formula: TypeAlias = Callable[..., Any]
"""A builder, and float32 values in [0, 1): what an elementwise formula makes of them."""


def _normal_of(b: Builder, u: Any, v: Any) -> Any:
    """Standard normal values of two that are uniform in [0, 1)."""
    return b.sqrt(b.log(1.0 - u) * -2.0) * b.cos(v * (2.0 * math.pi))


_MANY = 1 << 14
"""Elements from which a kernel that has to be looked for is sooner done than NumPy."""
_DIGITS = {T.float16: 11, T.bfloat16: 8}
"""Bits of a fraction that a narrow format holds exactly."""


def _u32(value: int) -> Tensor:
    return as_operand(value, T.uint32)


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator."""
    return default_generator.manual_seed(need_int("a seed", seed))


def seed() -> int:
    """Seed the default generator from the operating system; returns the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """State of the default generator."""
    return default_generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Continue the default generator from ``state``."""
    default_generator.set_state(state)


def draw(generator: Generator | None) -> Draw:
    """The next call of ``generator``, or of the default one."""
    return (generator or default_generator).draw()


def _floating(name: str, dtype: DType | None) -> DType:
    made = need_dtype(dtype) or get_default_dtype()
    if not made.is_floating_point:
        raise DTypeError(f"{name} makes floating tensors, not {made.name}")
    return made


def _finish(made: Tensor, requires_grad: bool, placement: Mapping[str, Any]) -> Tensor:
    made = placed(made, placement)
    return made.requires_grad_() if requires_grad else made


def rand(
    *size: Any, generator: Generator | None = None, dtype: DType | None = None,
    requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """Uniform values in [0, 1)."""
    shape, dtype = _size("rand", size, placement), need_dtype(dtype)
    if dtype is not None and dtype.is_complex:
        parts = draw(generator).uniform((*shape, 2), dtype.real)
        return _finish(apply("view_as_complex", parts), requires_grad, placement)
    return _finish(
        draw(generator).uniform(shape, _floating("rand", dtype)), requires_grad, placement
    )


def randn(
    *size: Any, generator: Generator | None = None, dtype: DType | None = None,
    requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """Standard normal values."""
    shape, dtype = _size("randn", size, placement), need_dtype(dtype)
    if dtype is not None and dtype.is_complex:  # of variance 1 over both parts
        parts = mul(draw(generator).normal((*shape, 2), dtype.real), math.sqrt(0.5))
        return _finish(apply("view_as_complex", parts), requires_grad, placement)
    return _finish(
        draw(generator).normal(shape, _floating("randn", dtype)), requires_grad, placement
    )


def _size(name: str, size: Any, placement: dict[str, Any]) -> tuple[int, ...]:
    if not size and "size" in placement:
        size = (placement.pop("size"),)
    check_placement(name, placement)
    return _shape(size)


def rand_like(
    input: Tensor, *, generator: Generator | None = None, dtype: DType | None = None,
    requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """Uniform values in the shape and dtype of ``input``."""
    like = need_tensor("rand_like", input)
    options = {"dtype": dtype or like.dtype, "device": like.device, **placement}
    return rand(tuple(input.shape), generator=generator, requires_grad=requires_grad, **options)


def randn_like(
    input: Tensor, *, generator: Generator | None = None, dtype: DType | None = None,
    requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """Standard normal values in the shape and dtype of ``input``."""
    like = need_tensor("randn_like", input)
    options = {"dtype": dtype or like.dtype, "device": like.device, **placement}
    return randn(tuple(input.shape), generator=generator, requires_grad=requires_grad, **options)


def randint(
    low: int = 0, high: Any = None, size: Any = None, *, generator: Generator | None = None,
    dtype: DType | None = None, requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """Whole numbers in [low, high); ``randint(high, size)`` starts at 0."""
    check_placement("randint", placement)
    if high is None or isinstance(high, (tuple, list)):
        low, high, size = 0, low, high if size is None else size
    made = whole_numbers("randint", _shape((size,)), low, high, generator)
    return _finish(cast(made, need_dtype(dtype) or T.int64), requires_grad, placement)


def whole_numbers(
    name: str, shape: tuple[int, ...], low: int, high: int, generator: Generator | None
) -> Tensor:
    """Int64 numbers in [low, high), from 53 random bits each."""
    low, high = need_int(f"{name}: low", low), need_int(f"{name}: high", high)
    if high <= low:
        raise GraphFlowError(f"{name} needs low < high, got [{low}, {high})")
    unit = draw(generator).uniform(shape, T.float64)
    return add(cast(apply("floor", mul(unit, float(high - low))), T.int64), low)


@beside_operands
def bernoulli(input: Tensor, p: Any = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that ``input`` gives (or ``p``), else 0."""
    odds = need_tensor("bernoulli", input).detach() if p is None else p
    if p is None and not input.dtype.is_floating_point:
        raise DTypeError(f"bernoulli takes floating probabilities, not {input.dtype.name}")
    return cast(_hits("bernoulli", tuple(input.shape), odds, generator), input.dtype)


def _hits(name: str, shape: tuple[int, ...], p: Any, generator: Generator | None) -> Tensor:
    """Bool: true with probability ``p``, a number or a tensor."""
    if isinstance(p, Tensor):
        inside = mode.tracer is not None or bool(((p._host() >= 0) & (p._host() <= 1)).all())
        working = p.dtype if p.dtype is T.float64 else T.float32
    else:
        inside, working = 0 <= p <= 1, T.float64
    if not inside:
        raise GraphFlowError(f"{name} needs probabilities between 0 and 1")
    return lt(draw(generator).uniform(shape, working), p)


@beside_operands
def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
    dtype: DType | None = None, requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """Normal values of the given mean and standard deviation, numbers or tensors."""
    check_placement("normal", placement)
    tensors = [v.detach() for v in (mean, std) if isinstance(v, Tensor) and not v._weak]
    if size is None and not tensors:
        raise TypeError("normal of two numbers needs a size")
    _check_deviation("normal", std)
    shape = _shape((size,)) if size is not None else ()
    for other in tensors:
        shape = broadcast_shapes(shape, tuple(other.shape))  # type: ignore[assignment]
    made = dtype or (tensors[0].dtype if tensors else get_default_dtype())
    base = draw(generator).normal(shape, _floating("normal", made))
    mean, std = (v.detach() if isinstance(v, Tensor) else v for v in (mean, std))
    return _finish(cast(add(mul(base, std), mean), made), requires_grad, placement)


def _check_deviation(name: str, std: Any) -> None:
    known = mode.tracer is None or not isinstance(std, Tensor)
    if known and (bool((std._host() < 0).any()) if isinstance(std, Tensor) else std < 0):
        raise GraphFlowError(f"{name} needs a standard deviation >= 0")


# ---- in place --------------------------------------------------------------------------


def _need_floating(name: str, input: Tensor) -> None:
    if not need_tensor(name, input).dtype.is_floating_point:
        raise DTypeError(f"{name} fills floating tensors, not {input.dtype.name}")


def uniform_(
    input: Tensor, a: float = 0.0, to: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with uniform values in [a, to)."""
    _need_floating("uniform_", input)
    if not (isinstance(a, Tensor) or isinstance(to, Tensor)) and a > to:
        raise GraphFlowError(f"uniform_ needs from <= to, not {a} and {to}")
    drawn = draw(generator)
    if _are_numbers(a, to) and drawn.fills(input, (0,), lambda b, unit: unit * (to - a) + a):
        return input
    unit = drawn.uniform(tuple(input.shape), input.dtype)
    return assign(input, add(mul(unit, to - a), a))


def normal_(
    input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with normal values."""
    _need_floating("normal_", input)
    _check_deviation("normal_", std)
    drawn = draw(generator)
    if _are_numbers(mean, std) and drawn.fills(
        input, (0, 1), lambda b, u, v: _normal_of(b, u, v) * std + mean
    ):
        return input
    base = drawn.normal(tuple(input.shape), input.dtype)
    return assign(input, add(mul(base, std), mean))


def _are_numbers(*values: Any) -> bool:
    """Whether all are Python's own, which take the dtype of what they meet."""
    return all(value.__class__ in (int, float) for value in values)


@beside_operands
def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 1 at probability ``p`` (a number or a tensor), else 0."""
    shape = tuple(input.shape)
    return assign(input, cast(_hits("bernoulli_", shape, p, generator), input.dtype))


def exponential_(
    input: Tensor, lambd: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with exponentially distributed values of rate ``lambd``."""
    _need_floating("exponential_", input)
    if not isinstance(lambd, Tensor) and lambd <= 0:
        raise GraphFlowError(f"exponential_ needs a rate above 0, not {lambd}")
    return assign(input, div(waiting_times(tuple(input.shape), input.dtype, generator), lambd))


def waiting_times(shape: tuple[int, ...], dtype: DType, generator: Generator | None) -> Tensor:
    """Exponentially distributed values of rate 1."""
    working = T.float64 if dtype is T.float64 else T.float32
    unit = draw(generator).uniform(shape, working)
    return cast(neg(log(sub(1.0, unit))), dtype)
