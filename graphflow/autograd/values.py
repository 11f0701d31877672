"""Which values a gradient rule reads, found by applying it to graph nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphflow.ir.build import NODES, emit, input_node
from graphflow.ir.cotangent import carries_gradient, operand_cotangent
from graphflow.ir.node import Node, attrs_key, topological
from graphflow.ir.op import Application, OpDef
from graphflow.ir.types import TensorType, TupleType
from graphflow.tensor import Tensor

_KEPT = 4096
"""Applications whose answers are remembered."""
_known: dict[Any, frozenset[int]] = {}


def values_read(
    op: OpDef, inputs: Sequence[Tensor], attrs: Mapping[str, Any], wanted: Sequence[object]
) -> frozenset[int]:
    """Positions of the operands, and after them of the results, whose *values* are read.

    Shapes and dtypes alone are not values.  ``wanted`` has None for operands without a gradient;
    all results are taken to have cotangents.
    """
    types = tuple(t._type for t in inputs)
    wants = tuple(edge is not None for edge in wanted)
    key = (op.name, types, attrs_key(attrs), wants)
    found = _known.get(key)
    if found is None:
        if len(_known) >= _KEPT:
            _known.clear()
        found = _known[key] = _read(op, types, attrs, wants)
    return found


def _read(
    op: OpDef, types: Sequence[TensorType], attrs: Mapping[str, Any], wants: Sequence[bool]
) -> frozenset[int]:
    leaves = tuple(input_node(f"x{i}", type) for i, type in enumerate(types))
    type = emit(op, *leaves, **attrs).type
    several = isinstance(type, TupleType)
    made: Sequence[Any] = type.items if isinstance(type, TupleType) else (type,)
    outs = tuple(input_node(f"out{i}", item) for i, item in enumerate(made))
    cts = tuple(
        input_node(f"ct{i}", item) if carries_gradient(outs[i]) else None
        for i, item in enumerate(made)
    )
    application = Application(leaves, outs if several else outs[0], attrs)
    ct = cts if several else cts[0]
    results = [
        operand_cotangent(NODES, op, application, ct, i) for i, want in enumerate(wants) if want
    ]
    read: set[Node] = set(topological([r for r in results if r is not None]))
    return frozenset(i for i, node in enumerate((*leaves, *outs)) if node in read)
