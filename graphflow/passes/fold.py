"""Constant folding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np

from graphflow.ir.build import constant
from graphflow.ir.dims import SymDim
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.pattern import fit, splat_of
from graphflow.ir.types import TensorType
from graphflow.passes.base import Pass
from graphflow.passes.rewrite import hits, rewrite

_FOLDABLE = (
    Kind.ELEMENTWISE, Kind.VIEW, Kind.GATHER, Kind.SCATTER, Kind.REDUCTION, Kind.CONTRACTION,
)  # fmt: skip


@dataclass(frozen=True)
class Fold(Pass):
    """Compute what depends on constants only, by the operations' references.

    Elementwise work on filled tensors becomes a filled tensor of whatever size.
    Otherwise operands and results larger than ``limit`` elements are left alone:
    a big constant costs more than its computation.  An operation that fails on
    its constants is left to fail at run time::

        %0: f32[] = constant(2.0)                  %0: f32[] = constant(4.0)
        %1: f32[9,9] = expand(%0, shape=(9, 9))    %1: f32[9,9] = expand(%0, shape=(9, 9))
        %2: f32[9,9] = mul(%1, %1)            →    return %1
        return %2
    """

    limit: int = 64
    name: ClassVar[str] = "fold"

    def run(self, graph: Graph) -> Graph:
        """The graph without work on constants."""
        return rewrite(graph, _folding(self.limit), local=True)


@lru_cache(maxsize=8)
def _folding(limit: int) -> Callable[[Node], Node | None]:
    """The one rule for this limit."""
    return partial(fold_node, limit=limit)


def fold_node(node: Node, limit: int) -> Node | None:
    """A constant, or a filled tensor, that is equal to ``node``; else ``None``."""
    op, inputs = node.op, node.inputs
    if not inputs or op.kind not in _FOLDABLE or not op.pure:
        return None
    for operand in inputs:
        if operand.op.name != "constant" and splat_of(operand) is None:
            return None
    type = node.type
    if not isinstance(type, TensorType):
        return None
    scalars = [splat_of(n) for n in inputs]
    if op.kind is Kind.ELEMENTWISE and None not in scalars:
        value = _compute(node, [n for n in scalars if n is not None], TensorType(type.dtype, ()))
        return None if value is None else fit(value, type)
    if any(n.op.name != "constant" for n in inputs) or not type.is_static:
        return None
    if max(math.prod(n.tensor_type.static_shape) for n in (node, *inputs)) > limit:
        return None
    if op.kind is Kind.VIEW and scalars[0] is not None:
        return None  # a filled tensor is a constant already
    return _compute(node, list(inputs), type)


def _compute(node: Node, operands: list[Node], type: TensorType) -> Node | None:
    """The constant that ``node`` yields on constant ``operands``."""
    if any(_is_symbolic(value) for value in node.attrs.values()):
        return None
    arrays = [n.attrs["value"].array for n in operands]
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(node.op.reference(*arrays, **node.attrs))
    except (ArithmeticError, ValueError, IndexError):
        return None
    if value.dtype != type.dtype.numpy or value.shape != type.shape:
        return None
    hits[f"fold {node.op.name}"] += 1
    return constant(value)


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, SymDim) or (isinstance(value, tuple) and any(map(_is_symbolic, value)))
