"""What the labels of a contraction's axes say about it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from graphflow.codegen.layout import Layout
from graphflow.ir.build import input_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, with_inputs
from graphflow.ir.op import Kind, Labels
from graphflow.ir.types import TensorType

SUM = "{0} + {1}"
"""The scalar form of what adds: as register tiles do to what is there."""


def is_matrix_product(labels: Labels) -> bool:
    """True for products of matrices over the last two axes, with batch axes in order."""
    left, right, out = labels
    if min(map(len, labels)) < 2:
        return False
    (row, depth), (depth_too, column) = left[-2:], right[-2:]
    if depth != depth_too or depth in out or out[-2:] != (row, column):
        return False
    batch = out[:-2]
    longest = all(batch[len(batch) - len(own) :] == own for own in (left[:-2], right[:-2]))
    return longest and len(batch) == max(len(left), len(right)) - 2


def summand(body: Graph, product: Node) -> Node | None:
    """The input of ``body`` to which ``product`` is added, where that is all ``body`` does."""
    (made, *others) = body.outputs
    if others or len(made.inputs) != 2 or product not in made.inputs or made.type != product.type:
        return None
    if made.op.kind is not Kind.ELEMENTWISE or made.op.scalar_for(product.dtype) != SUM:
        return None
    other = made.inputs[made.inputs[0] is product]
    return other if other in body.inputs and other.type == product.type else None


def without(body: Graph, made: Collection[Node]) -> tuple[Graph, list[Node]]:
    """What ``body`` does with nodes that are made elsewhere: a graph that reads them, and the
    nodes it reads."""
    new: dict[Node, Node] = {}
    kept: list[Node] = []
    seen = set(body.outputs)
    for node in reversed(body.nodes):
        if node in seen and node not in made:
            seen.update(node.inputs)
    for node in body.nodes:
        if node not in seen:
            continue
        if node in made or node in body.inputs:
            new[node] = input_node(f"x{len(kept)}", node.tensor_type)
            kept.append(node)
        else:
            new[node] = with_inputs(node, [new[n] for n in node.inputs])
    inputs = tuple(new[n] for n in kept)
    return Graph(inputs, tuple(new[n] for n in body.outputs), name="body"), kept


def place_of_product(
    body: Graph,
    product: Node,
    operands: Sequence[Layout],
    results: Sequence[Layout],
    temporary: Callable[[TensorType], Layout],
) -> Layout:
    """Where a product is written before what follows it: a result's own memory if nothing else
    is there (what follows then works in place), else a temporary."""
    if product in body.outputs:
        return results[body.outputs.index(product)]
    read = {operand.buffer for operand in operands}
    for result in results:
        if result.type == product.type and result.buffer not in read:
            return result
    return temporary(product.tensor_type)
