"""Leaves: values that a graph starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.errors import GraphError
from graphflow.ir.node import ArrayValue
from graphflow.ir.op import Array, Kind, OpDef, OpTests, register
from graphflow.ir.ops.rules import Attrs
from graphflow.ir.types import TensorType

NO_TESTS = OpTests(dtypes=(), gradient=False)


def _named(name: str, summary: str) -> OpDef:
    """Register a leaf that is declared with its type and bound when a graph runs."""

    def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        raise GraphError(
            f"{name} {attrs.get('name')!r} has the type it is declared with; "
            f"make it with build.{name}_node(name, type)"
        )

    def reference(**attrs: Any) -> Array:
        raise GraphError(f"{name} {attrs.get('name')!r} has no value here; bind it when running")

    return register(
        OpDef(
            name=name,
            kind=Kind.LEAF,
            summary=summary,
            infer=infer,
            reference=reference,
            vjp=(),
            cost=0.0,
            tests=NO_TESTS,
        )
    )


INPUT = _named("input", "An argument of the graph, by name.")
STATE = _named("state", "A parameter, buffer, optimiser slot or RNG key, by name.")


def _infer_constant(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    value = attrs.get("value")
    if types or not isinstance(value, ArrayValue):
        raise GraphError(f"constant() takes no operands and an array as value, not {value!r}")
    return value.type


def _constant(*, value: ArrayValue) -> Array:
    return value.array


CONSTANT = register(
    OpDef(
        name="constant",
        kind=Kind.LEAF,
        summary="Data known when the graph is built (read-only).",
        infer=_infer_constant,
        reference=_constant,
        vjp=(),
        cost=0.0,
        tests=NO_TESTS,
    )
)
