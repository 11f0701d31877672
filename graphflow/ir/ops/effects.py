"""Calls of Python functions at every run of a program (``gf.print``, ``gf.callback``).

An effect needs an order, and nothing may find that its result is unused.  So it takes a
token and returns the next one; the tracer keeps the token in state, which is updated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.errors import DTypeError, GraphError
from graphflow.ir.op import NON_DIFFERENTIABLE, Array, Kind, OpDef, OpTests, Sample, register
from graphflow.ir.ops.matrices import Types
from graphflow.ir.ops.rules import Attrs, spelled
from graphflow.ir.types import TensorType, int64

if TYPE_CHECKING:
    from collections.abc import Iterator

_functions: dict[int, Callable[..., Any]] = {}
_numbers = itertools.count(1)
_silent: list[bool] = []


def remember_function(function: Callable[..., Any]) -> int:
    """The number by which the attribute ``function`` of a callback names ``function``."""
    number = next(_numbers)
    _functions[number] = function
    return number


@contextmanager
def silence() -> Iterator[None]:
    """A stretch in which callbacks do nothing: a step that is run for another reason."""
    _silent.append(True)
    try:
        yield
    finally:
        _silent.pop()


def _infer(types: Types, attrs: Attrs) -> TensorType:
    if not types or types[0] != TensorType(int64, ()):
        raise DTypeError(f"{spelled('callback', types)}: the first operand is a token, i64[]")
    return types[0]


def _call(token: Array, *values: Array, function: int) -> Array:
    if not _silent:
        called = _functions.get(function)
        if called is None:
            raise GraphError(
                f"callback {function} is a Python function of the process that traced the graph"
            )
        called(*(np.array(value) for value in values))
    return np.asarray(token + 1)


CALLBACK = register(
    OpDef(
        name="callback",
        kind=Kind.OPAQUE,
        summary="Calls a Python function with copies of the operands after the token.",
        infer=_infer,
        reference=_call,
        vjp=NON_DIFFERENTIABLE,
        pure=False,
        cost=1000.0,
        tests=OpTests(
            dtypes=(),
            samples=(Sample((np.array(0, np.int64), np.ones(3)), {"function": 0}),),
            gradient=False,
        ),
    )
)
_functions[0] = lambda *values: None
