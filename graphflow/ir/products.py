"""What contractions say of themselves: the labels of their axes, and how much they add up."""

from __future__ import annotations

from math import prod

from graphflow.errors import CompileError
from graphflow.ir.node import Node
from graphflow.ir.op import Labels


def labels_of(node: Node) -> Labels:
    """The labels of contraction ``node``."""
    rule = node.op.contraction
    if rule is None:
        raise CompileError(f"{node.op.name} should have been decomposed before code generation")
    return rule([n.tensor_type for n in node.inputs], node.attrs)


def depth_of(node: Node) -> int:
    """How many products are added up for an element of contraction ``node``."""
    if node.op.contraction is None:
        return 1  # its calls say how much they do
    left, _, out = labels_of(node)
    shape = node.inputs[0].tensor_type.static_shape
    return prod(d for label, d in zip(left, shape, strict=True) if label not in out)
