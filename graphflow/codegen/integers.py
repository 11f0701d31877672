"""What integers in kernels compile to: ranges, quotients and extremes, without branches.

Stock Numba has a range of any step, sign and length, and guards each division by
branches that raise: some forty instructions a loop and twenty-five a division, most of
which LLVM then spends its time on removing.  In kernels a range's step is positive.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core.datamodel import models
from numba.core.extending import register_model
from numba.core.imputils import Registry
from numba.core.typing.templates import AbstractTemplate, signature

from graphflow.codegen.bridge import Lowering, types
from graphflow.errors import CompileError

implementations = Registry("graphflow integers")
_I64 = ir.IntType(64)


class Counter(types.SimpleIteratorType):  # type: ignore[misc]
    """The iterator of a :class:`Counting`."""

    def __init__(self) -> None:
        super().__init__("graphflow.Counter", types.int64)


class Counting(types.SimpleIterableType):  # type: ignore[misc]
    """``range(begin, end, step)`` of 64-bit integers, ``step`` positive."""

    def __init__(self) -> None:
        super().__init__("graphflow.Counting", Counter())


_COUNTING = Counting()


@register_model(Counting)
class _CountingModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        members = [(name, types.int64) for name in ("begin", "end", "step")]
        super().__init__(manager, kind, members)


@register_model(Counter)
class _CounterModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        place = types.EphemeralPointer(types.int64)
        members = [("place", place), ("end", types.int64), ("step", types.int64)]
        super().__init__(manager, kind, members)


# --- typing -----------------------------------------------------------------


def _template(function: Any, arities: tuple[int, ...], result: Any) -> Any:
    """``function`` of so many integers gives ``result``."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            fits = len(args) in arities and all(isinstance(a, types.Integer) for a in args)
            return signature(result, *[types.int64] * len(args)) if fits and not kws else None

    return types.Function(Template)


class _Range(AbstractTemplate):  # type: ignore[misc]
    """Counts up: of a step that is written there it is known."""

    key = range
    prefer_literal = True

    def generic(self, args: Any, kws: Any) -> Any:
        if kws or len(args) > 3 or not all(isinstance(a, types.Integer) for a in args):
            return None
        step = getattr(args[-1], "literal_value", 1) if len(args) == 3 else 1
        if step < 1:
            raise CompileError(f"a range in a kernel counts up, not by {step}")
        return signature(_COUNTING, *[types.int64] * len(args))


GLOBALS = {
    min: _template(min, (2,), types.int64),
    max: _template(max, (2,), types.int64),
    range: types.Function(_Range),
}
"""Builtins whose form in kernels replaces Numba's."""


# --- lowering ---------------------------------------------------------------


def _lowers(function: Any, *kinds: Any) -> Callable[[Lowering], Lowering]:
    """Decorator: the decorated function emits LLVM for ``function`` at argument ``kinds``."""

    def register(lowering: Lowering) -> Lowering:
        implementations.lower(function, *kinds)(lowering)
        return lowering

    return register


def _extreme(condition: str) -> Callable[..., Any]:
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(condition, *args), *args)

    return lower


_lowers(min, types.Integer, types.Integer)(_extreme("<"))
_lowers(max, types.Integer, types.Integer)(_extreme(">"))


def _structure(context: Any, builder: Any, kind: Any, values: tuple[Any, ...]) -> Any:
    made = ir.Constant(context.get_value_type(kind), ir.Undefined)
    for place, value in enumerate(values):
        made = builder.insert_value(made, value, place)
    return made


@_lowers(range, types.int64)
@_lowers(range, types.int64, types.int64)
@_lowers(range, types.int64, types.int64, types.int64)
def _lower_range(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    bounds = (_I64(0), *args) if len(args) == 1 else tuple(args)
    return _structure(context, builder, sig.return_type, (*bounds, _I64(1))[:3])


@_lowers("getiter", Counting)
def _lower_start(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    begin, end, step = (builder.extract_value(args[0], place) for place in range(3))
    with builder.goto_entry_block():
        position = builder.alloca(_I64)
    builder.store(begin, position)
    return _structure(context, builder, sig.return_type, (position, end, step))


@_lowers("iternext", Counter)
def _lower_next(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place, end, step = (builder.extract_value(args[0], member) for member in range(3))
    position = builder.load(place)
    builder.store(builder.add(position, step, flags=["nsw"]), place)
    inside = builder.icmp_signed("<", position, end)
    return _structure(context, builder, sig.return_type, (position, inside))


def _power_of_two(value: Any) -> int | None:
    """The exponent, if ``value`` is a literal power of two."""
    number = value.constant if isinstance(value, ir.Constant) else None
    if isinstance(number, int) and number > 0 and number & (number - 1) == 0:
        return number.bit_length() - 1
    return None


@_lowers(operator.floordiv, types.int64, types.int64)
@_lowers(operator.ifloordiv, types.int64, types.int64)
def _lower_quotient(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    a, b = args
    shift = _power_of_two(b)
    if shift is not None:
        return builder.ashr(a, _I64(shift))
    empty, divisor = _divisor(builder, b)
    quotient = builder.sdiv(a, divisor)
    wrong = _rounds_up(builder, builder.srem(a, divisor), divisor)
    floor = builder.sub(quotient, builder.zext(wrong, _I64))
    return builder.select(empty, _I64(0), floor)


@_lowers(operator.mod, types.int64, types.int64)
@_lowers(operator.imod, types.int64, types.int64)
def _lower_remainder(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    a, b = args
    shift = _power_of_two(b)
    if shift is not None:
        return builder.and_(a, _I64((1 << shift) - 1))
    _, divisor = _divisor(builder, b)
    rest = builder.srem(a, divisor)
    wrong = _rounds_up(builder, rest, divisor)
    return builder.add(rest, builder.select(wrong, divisor, _I64(0)))


def _divisor(builder: Any, b: Any) -> tuple[Any, Any]:
    """Whether ``b`` is zero, and what to divide by: one instead of zero, which would trap."""
    empty = builder.icmp_unsigned("==", b, _I64(0))
    return empty, builder.select(empty, _I64(1), b)


def _rounds_up(builder: Any, rest: Any, divisor: Any) -> Any:
    """True where division rounded towards zero is not the floor."""
    differs = builder.icmp_signed("<", builder.xor(rest, divisor), _I64(0))
    return builder.and_(builder.icmp_unsigned("!=", rest, _I64(0)), differs)
