"""Random choices and the rarer distributions."""

from __future__ import annotations

import math
from typing import Any

from graphflow.checks import need_dtype, need_int, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply, assign
from graphflow.errors import DTypeError, GraphFlowError
from graphflow.formats import check_placement
from graphflow.functions.creation import placed
from graphflow.functions.cumulative import cumsum
from graphflow.functions.elementwise import add, clamp, div, exp, floor, log, mul, sub
from graphflow.functions.reductions import argmin
from graphflow.functions.shaping import narrow
from graphflow.functions.sorting import argsort, searchsorted
from graphflow.functions.trigonometry import tan
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast
from graphflow.rng import Generator, draw, waiting_times, whole_numbers
from graphflow.tensor import Tensor

__all__ = ["multinomial", "poisson", "randint_like", "randperm"]
METHODS = "cauchy_ geometric_ log_normal_ multinomial random_".split()

_MANTISSA = {T.float16: 11, T.bfloat16: 8, T.float32: 24, T.float64: 53}


def randperm(
    n: int, *, generator: Generator | None = None, dtype: DType | None = None,
    requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """The whole numbers below ``n`` in random order."""
    check_placement("randperm", placement)
    if need_int("randperm: n", n) < 0:
        raise GraphFlowError(f"randperm needs n >= 0, not {n}")
    unit = draw(generator).uniform((n,), T.float64)
    made = cast(argsort(unit, 0, stable=True), need_dtype(dtype) or T.int64)
    made = placed(made, placement)
    return made.requires_grad_() if requires_grad else made


@beside_operands
def randint_like(
    input: Tensor, low: int, high: int | None = None, *, generator: Generator | None = None,
    dtype: DType | None = None, requires_grad: bool = False, **placement: Any,
) -> Tensor:  # fmt: skip
    """Whole numbers in [low, high), or [0, low), in the shape and dtype of ``input``."""
    check_placement("randint_like", placement)
    first, last = (0, low) if high is None else (low, high)
    shape = tuple(need_tensor("randint_like", input).shape)
    made = cast(whole_numbers("randint_like", shape, first, last, generator), dtype or input.dtype)
    made = placed(made, placement)
    return made.requires_grad_() if requires_grad else made


@beside_operands
def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """``num_samples`` indices a row, drawn with the weights in the last dimension.

    Without ``replacement`` the largest of ``weight / waiting time`` are taken (the
    exponential race: P. S. Efraimidis and P. G. Spirakis, Information Processing Letters
    97, 2006).
    """
    weights = need_tensor("multinomial", input).detach()
    _check_weights(weights, num_samples, replacement)
    if replacement:
        total = cumsum(cast(weights, T.float64), -1)
        shape = (*weights.shape[:-1], num_samples)
        unit = draw(generator).uniform(shape, T.float64)
        place = searchsorted(total, mul(unit, narrow(total, -1, -1, 1)), right=True)
        return clamp(place, max=weights.shape[-1] - 1)
    times = waiting_times(tuple(weights.shape), T.float64, generator)
    race = div(times, cast(weights, T.float64))
    if num_samples == 1:
        return argmin(race, -1, keepdim=True)
    return narrow(argsort(race, -1, stable=True), -1, 0, num_samples)


@beside_operands
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson variables, as floats, whose means are the elements of ``input``."""
    from graphflow.functions.rejection import poisson_variables

    rates = need_tensor("poisson", input)
    if not rates.dtype.is_floating_point:
        raise DTypeError(f"poisson takes floating rates, not {rates.dtype.name}")
    if mode.tracer is None and not bool((rates._host() >= 0).all()):
        raise GraphFlowError("poisson needs rates of at least 0")
    return poisson_variables(rates, generator)


def _check_weights(weights: Tensor, number: int, replacement: bool) -> None:
    if not weights.dtype.is_floating_point:
        raise DTypeError(f"multinomial takes floating weights, not {weights.dtype.name}")
    if weights.ndim not in (1, 2) or not weights.shape[-1]:
        raise GraphFlowError(
            f"multinomial takes a row or a matrix of weights, not shape {list(weights.shape)}"
        )
    if need_int("multinomial: num_samples", number) < 1:
        raise GraphFlowError(f"multinomial needs num_samples > 0, not {number}")
    if not replacement and number > weights.shape[-1]:
        raise GraphFlowError(
            f"multinomial cannot draw {number} of {weights.shape[-1]} without replacement"
        )
    if mode.tracer is None:
        array = weights._host().astype("float64")
        low, total = array.min(initial=0.0), array.sum(-1)
        if not (low >= 0 and (total > 0).all() and (total < math.inf).all()):
            raise GraphFlowError("multinomial needs weights that are finite, >= 0 and not all 0")


def cauchy_(
    input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with values of Cauchy's distribution."""
    unit = _unit("cauchy_", input, generator)
    return _fill(input, add(mul(tan(mul(sub(unit, 0.5), math.pi)), sigma), median))


def log_normal_(
    input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with values whose logarithm is normal."""
    _need_floating("log_normal_", input)
    if std <= 0:
        raise GraphFlowError(f"log_normal_ needs std > 0, not {std}")
    base = draw(generator).normal(tuple(input.shape), T.float64)
    return _fill(input, exp(add(mul(base, std), mean)))


def geometric_(input: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill with the number of the first success among trials of probability ``p``: 1, 2, …"""
    if not 0 < p < 1:
        raise GraphFlowError(f"geometric_ needs a probability between 0 and 1, not {p}")
    unit = draw(generator).uniform(tuple(input.shape), T.float64)
    return _fill(input, add(floor(div(log(sub(1.0, unit)), math.log1p(-p))), 1.0))


def random_(
    input: Tensor, low: int = 0, to: int | None = None, *, generator: Generator | None = None
) -> Tensor:
    """Fill with whole numbers in [low, to); ``random_(to)`` starts at 0.

    Without an end they go up to the largest the dtype holds (floats: exactly).
    """
    if to is None and low:
        low, to = 0, low
    if to is not None:
        values = whole_numbers("random_", tuple(input.shape), low, to, generator)
    elif input.dtype is T.int64:
        values = _sixty_three_bits(tuple(input.shape), generator)
    else:
        values = whole_numbers("random_", tuple(input.shape), 0, _end(input.dtype), generator)
    return _fill(input, values)


def _end(dtype: DType) -> int:
    if dtype in _MANTISSA:
        return int(2 ** _MANTISSA[dtype]) + 1
    return 2 if dtype.kind == "bool" else int(2 ** (8 * dtype.itemsize - (dtype.kind == "int")))


def _sixty_three_bits(shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    source = draw(generator)
    high, low = (cast(source.bits(shape, word), T.int64) for word in (0, 1))
    shifted = apply("shift_left", high, as_operand(31, T.int64))
    return apply("bitwise_xor", shifted, apply("shift_right", low, as_operand(1, T.int64)))


def _need_floating(name: str, input: Tensor) -> None:
    if not need_tensor(name, input).dtype.is_floating_point:
        raise DTypeError(f"{name} fills floating tensors, not {input.dtype.name}")


def _unit(name: str, input: Tensor, generator: Generator | None) -> Tensor:
    _need_floating(name, input)
    return draw(generator).uniform(tuple(input.shape), T.float64)


def _fill(input: Tensor, values: Tensor) -> Tensor:
    return assign(input, cast(values, input.dtype))
