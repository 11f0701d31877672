"""What follows a product, as a library's epilogue: factors, terms, and a function at the end.

No operation is known by name: sums and products are told by their scalar templates, and a
function of the sum alone by its values at many points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.codegen.contraction.labels import SUM
from graphflow.codegen.library import GELU, IDENTITY, RELU
from graphflow.codegen.loops import Apply, Count, Literal, Load, Value
from graphflow.codegen.spaces import operands_of
from graphflow.ir.op import Array, Kind
from graphflow.records import dataclass

TIMES = "{0} * {1}"
CAST = "{dtype.short}({0})"
HALVES = ("f16", "bf16")
LONGEST = 24
"""Values of a longer function are not looked at."""
_STEPS = np.array([1e-30, 1e-12, 1e-6, 1e-3, 17.0, 60.0, 1e4, 1e8, 1e30])
PROBES = np.concatenate([np.linspace(-12.0, 12.0, 193), _STEPS, -_STEPS])
"""Where functions are compared."""
CLOSE = 1e-6
"""Relatively: constants are rounded to float32."""


def relu(x: Array, dtype: Any = np.float64) -> Array:
    """``CUBLASLT_EPILOGUE_RELU``."""
    return np.maximum(x, 0.0)


def gelu(x: Array, dtype: Any = np.float64) -> Array:
    """``CUBLASLT_EPILOGUE_GELU``, the form with tanh, its constants rounded to ``dtype``."""
    inside, outside = (float(dtype(c)) for c in (0.044715, np.sqrt(2.0 / np.pi)))
    return 0.5 * x * (1.0 + np.tanh(outside * (x + inside * x**3)))


ACTIVATIONS = {RELU: relu, GELU: gelu}


@dataclass(frozen=True, slots=True)
class Epilogue:
    """``activation(alpha * product + sum of factor * load)``."""

    alpha: float = 1.0
    terms: tuple[tuple[Load, float], ...] = ()
    activation: str = IDENTITY


def epilogue_of(value: Value, values: Sequence[Value], total: Value) -> Epilogue | str:
    """What makes ``value`` of the product ``total``, ``values`` being all that there is; or why
    that is no epilogue of a library's."""
    alpha, terms, at = 1.0, (), total  # type: tuple[float, tuple[tuple[Load, float], ...], Value]
    while True:
        function = _function(value, at)
        if function is not None:
            return Epilogue(alpha, terms, function)
        users = [v for v in values if any(x is at for x in operands_of(v))]
        if len(users) != 1 or not isinstance(users[0], Apply):
            return "what follows it is no epilogue of the library's"
        step = users[0]
        template = step.op.scalar_for(step.operand_dtype)
        others = [x for x in step.arguments if x is not at]
        factor = _number(others[0]) if len(others) == 1 else None
        term = _term(others[0]) if len(others) == 1 else None
        if template == SUM and term is not None:
            terms = (*terms, term)
        elif template == TIMES and factor is not None and not terms:
            alpha *= factor
        elif not (template == CAST and not terms and _widens(step)):
            return "what follows it is no epilogue of the library's"
        at = step


def _widens(step: Apply) -> bool:
    return step.operand_dtype.short in HALVES and step.dtype.short == "f32"


def _number(value: Value) -> float | None:
    if isinstance(value, Literal):
        return float(value.value)
    if isinstance(value, Count):
        return 1.0 / value.count if value.reciprocal else float(value.count)
    return None


def _term(value: Value) -> tuple[Load, float] | None:
    """An element of memory, perhaps times a number."""
    if isinstance(value, Load):
        return None if value.guard is not None or value.depends else (value, 1.0)
    if isinstance(value, Apply) and value.op.scalar_for(value.operand_dtype) == TIMES:
        for one, other in (value.arguments, value.arguments[::-1]):
            factor = _number(other)
            if isinstance(one, Load) and one.guard is None and not one.depends:
                return None if factor is None else (one, factor)
    return None


def _function(value: Value, argument: Value) -> str | None:
    """Which of the library's functions of ``argument`` a value is, if it is one."""
    if value is argument:
        return IDENTITY
    order = _between(value, argument)
    if order is None:
        return None
    known: dict[Value, Array] = {argument: PROBES}
    with np.errstate(all="ignore"):
        for step in order:
            number = _number(step)
            if isinstance(step, Apply):
                found = step.op.reference(*(known[x] for x in step.arguments), **step.attrs)
                known[step] = np.asarray(found)
            elif number is not None:
                known[step] = np.float64(number)
        made = np.broadcast_to(known[value].astype(np.float64), PROBES.shape)
        for name, function in ACTIVATIONS.items():
            for dtype in (np.float64, value.dtype.numpy.type):
                wanted = function(PROBES, dtype)
                room = CLOSE * np.minimum(np.abs(PROBES), 1 + np.abs(wanted))
                if np.all(np.abs(made - wanted) <= room):
                    return name
    return None


def _between(value: Value, argument: Value) -> list[Value] | None:
    """What computes ``value`` from ``argument``, operands first; None if it needs more or is
    long."""
    order: list[Value] = []
    seen: set[Value] = {argument}

    def visit(one: Value) -> bool:
        if one in seen:
            return True
        plain = isinstance(one, Apply) and one.op.kind is Kind.ELEMENTWISE
        if not (plain or _number(one) is not None) or len(seen) > LONGEST:
            return False
        seen.add(one)
        if not all(map(visit, operands_of(one))):
            return False
        order.append(one)
        return True

    return order if visit(value) else None
